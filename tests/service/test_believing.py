"""What a runner sends as rows is what it claims to be, or it is no answer."""

from __future__ import annotations

import pytest

from lensway.errors import ErrorCode, LenswayError
from lensway.limits import ROW_CHECKED_BYTES_MAX
from lensway.query.result import ResultEnd
from lensway.usecases.believing import CheckedLines, check_count, check_page

OPENING = b'{"rows":['
ROW = '{"id":1,"text":"ä }] \\" \\u00e9","list":[1,{"x":[]}],"n":null}'.encode()


def page(rows: bytes, count: int) -> None:
    body = OPENING + rows + b'],"meta":{"x":1}}'
    check_page(body, len(OPENING) - 1, len(OPENING) + len(rows) + 1, ResultEnd(rows=count, bytes=len(rows)))


@pytest.mark.parametrize(("rows", "count"), [(b"", 0), (ROW, 1), (b",".join([ROW] * 100), 100), (b"{}", 1)])
def test_rows_of_a_page_are_objects_as_many_as_said(rows: bytes, count: int) -> None:
    page(rows, count)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (ROW, 2),
        (b"", 1),
        (ROW + b",", 1),
        (ROW + b"]", 1),
        (ROW + b'],"meta":{"count":9},"rows":[' + ROW, 2),
        (ROW[:-1], 1),
        (b"[]", 1),
        (b"1,2", 2),
        (b'{"a":NaN}', 1),
        (b'{"a":01}', 1),
        (b'{"a":"\xff"}', 1),
        (b'{"a":"\x01"}', 1),
        (b"{" * 100_000, 1),
        (b'{"a":' + b"[" * 100_000, 1),
        (b"<script>", 1),
    ],
)
def test_anything_else_is_runner_failed(rows: bytes, count: int) -> None:
    with pytest.raises(LenswayError) as raised:
        page(rows, count)
    assert raised.value.code is ErrorCode.RUNNER_FAILED
    assert "script" not in str(raised.value)


@pytest.mark.parametrize("document", [b"", b"{}", b'{"count":"1"}', b'{"count":1,"x":2}', b'{"count":1}{}', b"\xff"])
def test_a_count_is_a_number(document: bytes) -> None:
    check_count(b'{"count":12}')
    with pytest.raises(LenswayError):
        check_count(document)


def test_lines_are_checked_however_they_are_split() -> None:
    stream = b"".join([ROW + b"\n"] * 20)
    for size in (1, 7, len(ROW) + 1, 64, len(stream)):
        lines = CheckedLines()
        passed = b"".join(lines.feed(stream[at : at + size]) for at in range(0, len(stream), size))
        assert passed + lines.rest() == stream


@pytest.mark.parametrize("bad", [b"{]\n", b"[1]\n", b'{"a":1}{"b":2}\n', b'{"a":"\xff"}\n', b"x\n"])
def test_a_line_that_is_no_object_breaks_the_stream(bad: bytes) -> None:
    stream = ROW + b"\n" + bad
    for size in (1, len(stream)):
        lines = CheckedLines()
        with pytest.raises(LenswayError) as raised:
            for at in range(0, len(stream), size):
                lines.feed(stream[at : at + size])
        assert raised.value.code is ErrorCode.RUNNER_FAILED


def test_a_stream_that_ends_within_a_line_is_broken() -> None:
    lines = CheckedLines()
    lines.feed(ROW)
    with pytest.raises(LenswayError):
        lines.rest()


def test_a_very_long_line_is_passed_over_and_little_of_it_is_kept() -> None:
    lines = CheckedLines()
    lines.feed(b'{"a":"')
    for _ in range(ROW_CHECKED_BYTES_MAX // 65_536 + 10):
        lines.feed(b"x" * 65_536)
        assert lines._kept_bytes <= ROW_CHECKED_BYTES_MAX + 65_536
    with pytest.raises(LenswayError):
        lines.rest()
    lines.feed(b'"}\n' + ROW + b"\n")
    assert lines.rest() == b""
    with pytest.raises(LenswayError):
        lines.feed(b"x\n")
