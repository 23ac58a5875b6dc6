"""What is chosen for a caller, by headers alone."""

from __future__ import annotations

import pytest

from lensway.api.negotiation import choose_coding, choose_media

OFFERED = ("application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream")


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv, */*", "text/csv"),
        ("*/*, text/csv;q=0.5", "application/json"),
        ("text/csv;q=0.5, application/x-ndjson;q=0.8", "application/x-ndjson"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("application/vnd.apache.arrow.stream, text/csv", "application/vnd.apache.arrow.stream"),
        ("text/csv, application/vnd.apache.arrow.stream", "text/csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/csv;q=nan", None),
        ("text/csv;q=abc", None),
        ("text/csv;q=0", None),
        ("image/png", None),
        (",;,", None),
        ("text/csv;q=inf" + ";x=y" * 200, "text/csv"),
    ],
)
def test_the_media_type_wanted_most_is_chosen(header: str | None, chosen: str | None) -> None:
    found = choose_media(header, OFFERED)
    assert (None if found is None else found.name) == chosen


def test_parameters_come_with_the_choice() -> None:
    found = choose_media('application/x-ndjson; End = "record"; q=0.9', OFFERED)
    assert found is not None
    assert dict(found.parameters) == {"end": "record"}


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("br", None),
        ("GZIP", "gzip"),
    ],
)
def test_the_coding_wanted_most_is_chosen(header: str | None, chosen: str | None) -> None:
    assert choose_coding(header, ("zstd", "gzip")) == chosen
