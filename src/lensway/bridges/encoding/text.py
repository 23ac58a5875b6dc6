"""Rows as text: JSON pages, NDJSON, CSV (RFC 4180)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import msgspec

from lensway.bridges.kit.failures import row_too_large
from lensway.query.fields import FieldType, NestedColumn, PlanColumn

Document: TypeAlias = dict[str, Any]

_encoder: Final = msgspec.json.Encoder()
_QUOTED: Final = re.compile(r'[",\r\n]')


class _Documents:
    """Rows as objects by field, rows of relations inside them; what JSON cannot say of floats is spelled."""

    def __init__(self, columns: Sequence[PlanColumn | NestedColumn]) -> None:
        self._names = [column.name for column in columns]
        self._floats = [
            column.name for column in columns if isinstance(column, PlanColumn) and column.type is FieldType.NUMBER
        ]
        self._nested = [
            (column.name, column.is_list, _Documents(column.columns))
            for column in columns
            if isinstance(column, NestedColumn)
        ]

    def documents(self, rows: Sequence[Sequence[Any]]) -> list[Document]:
        names = self._names
        documents = [dict(zip(names, row, strict=False)) for row in rows]
        for name in self._floats:
            for document in documents:
                value = document[name]
                if type(value) is float:
                    if not math.isfinite(value):
                        document[name] = _spelled(value)
                elif type(value) is list:
                    document[name] = _spelled_list(value)
        for name, is_list, inner in self._nested:
            for document in documents:
                if (value := document[name]) is not None:
                    found = inner.documents(value if is_list else [value])
                    document[name] = found if is_list else found[0]
        return documents


class JsonPage(_Documents):
    """The inside of a JSON array."""

    def __init__(self, columns: Sequence[PlanColumn | NestedColumn]) -> None:
        super().__init__(columns)
        self._has_rows = False

    def rows(self, rows: Sequence[Sequence[Any]], row_bytes_max: int) -> bytes:
        """The objects of these rows, with commas between them and before them. Raises LenswayError ROW_TOO_LARGE."""
        documents = self.documents(rows)
        chunk = _encoder.encode(documents)
        if len(chunk) > row_bytes_max:
            _check_rows(documents, row_bytes_max)
        separator = b"," if self._has_rows else b""
        self._has_rows = True
        return separator + chunk[1:-1]

    def end(self) -> bytes:
        """Nothing."""
        return b""


class JsonLines(_Documents):
    """One object on each line."""

    def rows(self, rows: Sequence[Sequence[Any]], row_bytes_max: int) -> bytes:
        """A line for each row. Raises LenswayError ROW_TOO_LARGE."""
        documents = self.documents(rows)
        chunk = _encoder.encode_lines(documents)
        if len(chunk) > row_bytes_max:
            _check_rows(documents, row_bytes_max)
        return chunk

    def end(self) -> bytes:
        """Nothing."""
        return b""


class CsvLines(_Documents):
    """A header and a line for each row. NULL is an empty cell, an empty text is ``""``."""

    def __init__(self, columns: Sequence[PlanColumn | NestedColumn]) -> None:
        super().__init__(columns)
        self._header = csv_header(self._names)

    def rows(self, rows: Sequence[Sequence[Any]], row_bytes_max: int) -> bytes:
        """A line for each row. Raises LenswayError ROW_TOO_LARGE."""
        lines = [_csv_line([_csv_cell(value) for value in each.values()]) for each in self.documents(rows)]
        chunk = "".join(lines).encode()
        if len(chunk) > row_bytes_max and any(len(line.encode()) - 2 > row_bytes_max for line in lines):
            raise row_too_large(row_bytes_max)
        return self._take_header() + chunk

    def end(self) -> bytes:
        """The header, when there was no row."""
        return self._take_header()

    def _take_header(self) -> bytes:
        header, self._header = self._header, b""
        return header


def csv_header(names: Sequence[str]) -> bytes:
    """The first line."""
    return _csv_line([_csv_text(name) for name in names]).encode()


def _check_rows(documents: Sequence[Document], row_bytes_max: int) -> None:
    for document in documents:
        if len(_encoder.encode(document)) > row_bytes_max:
            raise row_too_large(row_bytes_max)


def _spelled_list(values: list[Any]) -> list[Any]:
    return [
        _spelled_list(each)
        if type(each) is list
        else _spelled(each)
        if type(each) is float and not math.isfinite(each)
        else each
        for each in values
    ]


def _spelled(value: float) -> str:
    # JSON has no NaN and no infinities; callers are given them as texts.
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _csv_line(cells: list[str]) -> str:
    # A line with nothing on it is no record for many readers: a lone NULL is written as an empty text.
    return (",".join(cells) or '""') + "\r\n"


def _csv_cell(value: Any) -> str:
    """NULL is empty; what has no plain text is as it is in JSON."""
    match value:
        case None:
            return ""
        case str():
            return _csv_text(value)
        case bytes():
            return _encoder.encode(value).decode()[1:-1] or '""'
        case bool() | int() | float():
            return _encoder.encode(value).decode()
        case _:
            return _csv_text(_encoder.encode(value).decode())


def _csv_text(text: str) -> str:
    if text and not _QUOTED.search(text):
        return text
    return '"' + text.replace('"', '""') + '"'
