"""The name that was probably meant: found among few and among thousands, with work that has a bound."""

from __future__ import annotations

import difflib
import time

import pytest

from lensway.limits import NAME_CHARACTERS_MAX
from lensway.query.suggestions import nearest

MANY = [f"lens_{number:04}_of_{kind}" for number in range(1_000) for kind in ("orders", "customers", "returns")]


@pytest.mark.parametrize(
    ("word", "meant"),
    [("totl", "total"), ("otal", "total"), ("TOTAL", "total"), ("custmoer", "customer"), ("zzz", None), ("", None)],
)
def test_a_misspelt_name_is_recognised(word: str, meant: str | None) -> None:
    assert nearest(word, ["id", "customer", "total", "placed"]) == meant


@pytest.mark.parametrize("at", range(0, 3_000, 171))
@pytest.mark.parametrize("change", ["left out at the start", "left out at the end", "doubled", "case"])
def test_among_thousands_a_near_one_is_found(at: int, change: str) -> None:
    name = MANY[at]
    word = {
        "left out at the start": name[1:],
        "left out at the end": name[:-1],
        "doubled": name[:6] + name[5:],
        "case": name.upper(),
    }[change]
    found = nearest(word, MANY)
    assert found is not None
    assert difflib.SequenceMatcher(None, word.lower(), found).ratio() > 0.9


@pytest.mark.parametrize(
    "word", ["x" * 1_000_000, "lens_9999_of_nothing", "a" * 126, "lens_" * 25, "\u0130" * 126, "\x00" * 100]
)
@pytest.mark.parametrize(
    "names",
    [MANY, [f"{'a' * (NAME_CHARACTERS_MAX - 6)}{number:06}" for number in range(100_000)]],
    ids=["usual", "hostile"],
)
def test_the_work_has_a_bound(word: str, names: list[str]) -> None:
    used = []
    for _ in range(3):
        started = time.thread_time()
        nearest(word, names)
        used.append(time.thread_time() - started)
    print(f"{min(used) * 1e3:.2f} ms")
    assert min(used) < 0.015
