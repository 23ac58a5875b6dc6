"""Numbers that doubles confuse, as JSON literals and as databases hold them, and what comparing them means."""

from __future__ import annotations

import decimal
import random
from collections.abc import Sequence
from typing import Any, Final

DIGITS_MAX: Final = 40
_EXACT: Final = decimal.Context(prec=2_000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def stored_decimals() -> tuple[str, ...]:
    """Decimals that differ in digits that a double does not have."""
    return (
        *(f"12345678901234567890.1{last}" for last in (2, 3, 4)),
        *("0", "0.1", "0.10000000000000000000000000000000000001", "-0.1", "100", "1e3", "-99999999999999999999.9"),
        *(str(2**53 + each) for each in range(3)),
        *(str(2**63 - 1), str(2**63), "1" * 40, "0." + "3" * 40, "-1e-30", "9007199254740993.5"),
    )


def literals(chance: random.Random, count: int, *, near: Sequence[object] = (), is_double: bool = False) -> list[str]:
    """JSON numbers of up to 40 digits: random ones, and the stored ones themselves and closely beside. ``is_double`` leaves out
    what no double can hold."""
    found: list[str] = []
    while len(found) < count:
        literal = _beside(chance, near) if near and chance.random() < 0.6 else _any(chance)
        if not is_double or _is_double(literal):
            found.append(literal)
    return found


def holds(operator: str, stored: Any, literal: str) -> bool:
    """Whether the comparison holds for a stored number: floats are compared with the float next to the literal, all others
    digit by digit."""
    number = decimal.Decimal(literal)
    if isinstance(stored, float):
        return _compared(operator, stored, float(literal))
    return _compared(operator, decimal.Decimal(str(stored)), number)


def _compared(operator: str, left: Any, right: Any) -> bool:
    holds: bool = {
        "$eq": left == right,
        "$ne": left != right,
        "$gt": left > right,
        "$gte": left >= right,
        "$lt": left < right,
        "$lte": left <= right,
    }[operator]
    return holds


def _any(chance: random.Random) -> str:
    digits = "".join(chance.choices("0123456789", k=chance.randint(1, DIGITS_MAX)))
    at = chance.randint(0, len(digits))
    whole, fraction = digits[:at].lstrip("0") or "0", digits[at:]
    text = chance.choice(("", "-")) + whole + (f".{fraction}" if fraction else "")
    return (
        text
        if chance.random() < 0.8
        else f"{text}{chance.choice('eE')}{chance.choice(('', '+', '-'))}{chance.randint(0, 40)}"
    )


def _beside(chance: random.Random, near: Sequence[object]) -> str:
    exact = _EXACT.create_decimal(str(chance.choice(near)))
    step = chance.choice(("0", "0", "0.5", "1", "-1", "-0.5", "1e-20", "-1e-20", "0.01"))
    moved = _EXACT.add(exact, decimal.Decimal(step))
    text = format(moved, "f") if abs(moved.adjusted()) < 2 * DIGITS_MAX else str(moved)
    if chance.random() < 0.3 and "." not in text and "E" not in text:
        text += ".0"
    return text


def _is_double(literal: str) -> bool:
    value = float(literal)
    return value not in (float("inf"), float("-inf")) and (value != 0.0 or decimal.Decimal(literal) == 0)
