"""Numbers and words in messages: one row is not ``1 rows``, and no duration is rounded to nothing."""

from __future__ import annotations

import decimal
import io

import pytest

import lensway
from lensway.catalog.names import article, counted
from lensway.cli import report
from lensway.client import ArrowRows, core
from lensway.dispatch.core.failures import duration_text
from lensway.errors import LenswayError
from lensway.observe.lines import Lines
from lensway.query import values
from lensway.query.fields import FieldType


def test_numbers_and_their_words() -> None:
    assert [counted(n, "sign-in") for n in (0, 1, 2, 1500)] == [
        "0 sign-ins",
        "1 sign-in",
        "2 sign-ins",
        "1,500 sign-ins",
    ]
    assert [counted(n, "lens") for n in (1, 2)] == ["1 lens", "2 lenses"]
    assert [core.counted(n, "byte") for n in (0, 1, 2048)] == ["0 bytes", "1 byte", "2,048 bytes"]
    assert [article(word) for word in ("integer", "text", "uuid")] == ["an integer", "a text", "a uuid"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0 ms"),
        (0.001, "1 ms"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (1.0, "1 s"),
        (1.5, "1.5 s"),
        (1.9999, "2 s"),
        (9.96, "10 s"),
        (29.9999, "30 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7200.0, "2 h"),
        (3 * 86400.0, "3 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "type", "got"),
    [
        (True, FieldType.INTEGER, "a boolean"),
        (True, FieldType.TEXT, "a boolean"),
        (7, FieldType.TEXT, "an integer"),
        (7, FieldType.DATE, "an integer"),
        (decimal.Decimal("1.5"), FieldType.BOOLEAN, "a number"),
        (2**64, FieldType.INTEGER, "an integer that does not fit"),
        ("yes", FieldType.BOOLEAN, "a text"),
        ("2024-13-45", FieldType.DATE, "a text that does not fit"),
        ("a\0", FieldType.TEXT, "a text that does not fit"),
        (None, FieldType.TEXT, "null"),
        ([], FieldType.TEXT, "a list"),
    ],
)
def test_a_wrong_value_is_named_by_its_kind(value: object, type: FieldType, got: str) -> None:
    with pytest.raises(LenswayError) as error:
        values.check(value, type, "where.x")
    assert str(error.value).endswith(f", got {got}")


def test_what_arrow_rows_are_in_a_debugger() -> None:
    assert repr(ArrowRows([b"abc", b"de"])) == "ArrowRows(nbytes=5)"


def test_one_lost_line_is_one_line() -> None:
    class Full(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError
            return super().write(text)

    stream = Full()
    lines = Lines(stream)
    lines.write("lost\n")
    stream.is_full = False
    lines.write("kept\n")
    assert "[1 line was lost" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.0004, "0 ms"), (0.04, "40 ms"), (0.9999, "1.0 s"), (61.26, "61.3 s")])
def test_durations_on_the_command_line(seconds: float, text: str) -> None:
    assert report.duration_of(seconds) == text


def test_clients_and_streams_in_a_debugger_show_no_key_and_no_values() -> None:
    with lensway.connect("http://127.0.0.1:1", "sk_secret") as client:
        stream = client.export("orders", where={"id": 4711}, format="csv")
        assert repr(client) == "Client('http://127.0.0.1:1')"
        assert repr(stream) == "Stream(POST /v1/query/orders/export, text/csv)"
    awaiting = lensway.connect_async("http://127.0.0.1:1", "sk_secret")
    assert repr(awaiting) == "AsyncClient('http://127.0.0.1:1')"
    assert repr(awaiting.export("orders")) == "AsyncStream(POST /v1/query/orders/export, application/x-ndjson)"
