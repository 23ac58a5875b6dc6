"""What a caller accepts, from headers alone: the best of the media types and codings that an answer is available in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
PAGE_MEDIA: Final = (JSON, NDJSON, CSV, ARROW)
EXPORT_MEDIA: Final = (NDJSON, CSV, JSON, ARROW, PARQUET)
"""Best first: what a caller gets that accepts anything."""
_WILDCARDS: Final = ("*/*", "*")


class Wish(msgspec.Struct, frozen=True):
    """One range of an `Accept` header, or one coding of `Accept-Encoding`."""

    name: str
    quality: float
    parameters: Mapping[str, str]


class Chosen(msgspec.Struct, frozen=True):
    """The best that is available, and the parameters that the caller put beside it."""

    name: str
    parameters: Mapping[str, str]


def choose_media(header: str | None, offered: Sequence[str]) -> Chosen | None:
    """The media type of ``offered`` (best first) that the header wants most; None when it accepts no offer.

    The most specific range decides about a type. Between equal wishes the more specific one wins, then the one named first, then
    the order of ``offered``. No header, or an empty one, accepts everything.
    """
    if header is None or not header.strip():
        return Chosen(offered[0], {})
    best: tuple[float, int, int] | None = None
    chosen: Chosen | None = None
    wishes = _wishes(header)
    for media in offered:
        found = _most_specific(media, wishes)
        if found is None:
            continue
        specificity, position = found
        wish = wishes[position]
        rank = (wish.quality, specificity, -position)
        if wish.quality > 0 and (best is None or rank > best):
            best, chosen = rank, Chosen(media, wish.parameters)
    return chosen


def choose_coding(header: str | None, offered: Sequence[str]) -> str | None:
    """The coding of ``offered`` (best first) to compress with; None is as it is, which is also the answer to no header."""
    if not header:
        return None
    wishes = _wishes(header)
    quality = {wish.name: wish.quality for wish in wishes}
    rest = quality.get("*", 0.0)
    as_it_is = quality.get("identity", 0.0)
    best = max(offered, key=lambda coding: quality.get(coding, rest), default=None)
    if best is None or quality.get(best, rest) <= 0 or as_it_is > quality.get(best, rest):
        return None
    return best


def _most_specific(media: str, wishes: Sequence[Wish]) -> tuple[int, int] | None:
    """How specific the range is that decides about this type (2 exact, 1 its kind, 0 any), and where it stands."""
    names = (media, media.partition("/")[0] + "/*", "*/*")
    for specificity, name in zip((2, 1, 0), names, strict=True):
        for position, wish in enumerate(wishes):
            if wish.name == name or (specificity == 0 and wish.name in _WILDCARDS):
                return specificity, position
    return None


def _wishes(header: str) -> tuple[Wish, ...]:
    found = []
    for part in header.split(","):
        name, *pieces = (piece.strip() for piece in part.split(";"))
        if not name:
            continue
        parameters = {}
        for piece in pieces:
            key, _, value = piece.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        found.append(Wish(name.lower(), _quality(parameters.pop("q", "1")), parameters))
    return tuple(found)


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(value) else min(1.0, max(0.0, value))
