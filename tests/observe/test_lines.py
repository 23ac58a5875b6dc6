"""Lines on a stream that fails or stands still are counted as lost; the program is never held up, and no line is mangled."""

from __future__ import annotations

import io
import os
import time

from lensway.observe.lines import Lines


def test_lines_that_a_full_pipe_does_not_take_are_counted_and_the_count_is_told_later() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as source, os.fdopen(writer, "w") as sink:
        lines = Lines(sink)
        written = [f"line {number} {'x' * (number % 9000)}\n" for number in range(0, 100_000, 777)]
        began = time.monotonic()
        for line in written:
            lines.write(line)
        assert time.monotonic() - began < 1
        os.set_blocking(reader, False)
        got = b""
        while piece := source.read(65536):
            got += piece
        lines.write("at last\n")
        told = source.read(65536).decode()
        whole = got.decode().splitlines(keepends=True)
        torn = [] if whole[-1] in written else [whole.pop()]
        assert whole == written[: len(whole)]
        assert told.endswith("at last\n")
        assert f"[{len(written) - len(whole)} lines were lost" in told
        assert told.startswith("\n") == bool(torn), "a torn line is ended first"


def test_a_stream_that_is_closed_or_missing_loses_lines_only() -> None:
    closed = io.StringIO()
    closed.close()
    for lines in (Lines(None), Lines(closed)):
        lines.write("x\n")
        assert not lines.isatty()
    with open("/dev/full", "w") as full:
        Lines(full).write("x\n")


def test_text_that_cannot_be_encoded_is_escaped() -> None:
    stream = io.StringIO()
    Lines(stream).write("\ud800 \u00e9\n")
    assert stream.getvalue() == "\\ud800 \u00e9\n"
