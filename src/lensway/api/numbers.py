"""JSON whose numbers keep every digit: literals that are not whole become decimals, never floats that round them."""

from __future__ import annotations

import decimal
import math
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

UNREADABLE: Final = decimal.Decimal("NaN")
"""Stands for a literal whose exponent no decimal has. JSON itself has no NaN, so every check of the value refuses it."""
_ROUND_TRIP_CHARACTERS: Final = 15
"""A double holds every decimal of so many digits, and writes it back as it was."""


def decode_request(data: bytes) -> Any:
    """The decoded JSON; whole numbers are integers of any size, others are decimals.

    Raises:
        msgspec.DecodeError: for what is not JSON; as ValidationError for an integer of more digits than Python reads.
    """
    return _REQUESTS.decode(data)


def decode_verbatim(data: bytes) -> Any:
    """As `decode_request`, for what is encoded again: a number that is not whole is written as it was read."""
    return _VERBATIM.decode(data)


def decimal_of(literal: str) -> decimal.Decimal:
    """The literal with all its digits; `UNREADABLE` for an exponent of more than 18 digits."""
    try:
        return decimal.Decimal(literal)
    except decimal.InvalidOperation:
        return UNREADABLE


def shortest(literal: str) -> float | decimal.Decimal:
    """A float where that loses nothing, otherwise a decimal. For rows: a `number` always is a float, a document may hold more."""
    value = float(literal)
    if len(literal) <= _ROUND_TRIP_CHARACTERS and "e" not in literal and "E" not in literal:
        return value
    if repr(value) == literal:
        return value
    exact = decimal_of(literal)
    return value if math.isfinite(value) and decimal.Decimal(repr(value)) == exact else exact


def decoder_of(type: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of answers of this type, whose untyped numbers are as `shortest` has them."""
    decoder = _decoders.get(type)
    if decoder is None:
        decoder = _decoders[type] = msgspec.json.Decoder(type, float_hook=shortest)
    return decoder


def encode(value: object) -> bytes:
    """The value as JSON; decimals are numbers with all their digits; NaN and infinities are ``"NaN"`` and ``"Infinity"``."""
    encoded = _ENCODER.encode(value)
    return encoded if b"NaN" not in encoded and b"Infinity" not in encoded else _ENCODER.encode(_spelled(value))


def _spelled(value: object) -> object:
    match value:
        case decimal.Decimal() if not value.is_finite():
            return "NaN" if value.is_nan() else str(value)
        case dict():
            return {key: _spelled(each) for key, each in value.items()}
        case list() | tuple():
            return [_spelled(each) for each in value]
        case _:
            return value


_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}
"""Types are few: those of the API's answers."""
_REQUESTS: Final = msgspec.json.Decoder(float_hook=decimal_of)
_VERBATIM: Final = msgspec.json.Decoder(float_hook=lambda literal: msgspec.Raw(literal.encode()))
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
