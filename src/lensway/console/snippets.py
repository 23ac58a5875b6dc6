"""One query in the three ways that a user would write it: curl, command line, Python. Plain texts."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lensway.api import numbers
from lensway.api.shapes import QueryRequest

_KEY: Final = "LENSWAY_API_KEY"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snippets:
    """The texts. Each reads the key from the variable LENSWAY_API_KEY."""

    curl: str
    command: str
    python: str


def snippets(url: str, environment: str, lens: str, question: QueryRequest) -> Snippets:
    """The same query three times. The names and values of the query are quoted for their language."""
    body: dict[str, Any] = {}
    if question.where:
        body["where"] = question.where
    if terms := _terms(question):
        body["orderBy"] = [{"field": field, "dir": direction} for field, direction in terms]
    if question.select:
        body["select"] = question.select
    if question.limit is not None:
        body["limit"] = question.limit
    return Snippets(
        curl=_curl(url, environment, lens, body),
        command=_command(url, environment, lens, body, terms),
        python=_python(url, environment, lens, body, terms),
    )


def _terms(question: QueryRequest) -> list[tuple[str, str]]:
    order: Any = question.order_by or []
    return [(term["field"], term.get("dir", "asc")) for term in order]


def _curl(url: str, environment: str, lens: str, body: Mapping[str, Any]) -> str:
    return (
        f"curl -sS --fail-with-body {shlex.quote(f'{url}/v1/query/{lens}')} \\\n"
        f'  -H "Authorization: Bearer ${_KEY}" \\\n'
        f"  -H {shlex.quote(f'X-Environment: {environment}')} \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(numbers.encode(body).decode())}"
    )


def _command(url: str, environment: str, lens: str, body: Mapping[str, Any], terms: Sequence[tuple[str, str]]) -> str:
    words = [f"LENSWAY_URL={shlex.quote(url)} lensway query {shlex.quote(lens)}", f"--env {shlex.quote(environment)}"]
    if "where" in body:
        words.append(f"--where {shlex.quote(numbers.encode(body['where']).decode())}")
    if terms:
        written = ",".join(field if direction == "asc" else f"{field}:{direction}" for field, direction in terms)
        words.append(f"--order-by {shlex.quote(written)}")
    if "select" in body:
        words.append(f"--select {shlex.quote(','.join(body['select']))}")
    if "limit" in body:
        words.append(f"--limit {body['limit']}")
    return " \\\n  ".join(words)


def _python(url: str, environment: str, lens: str, body: Mapping[str, Any], terms: Sequence[tuple[str, str]]) -> str:
    given = [repr(lens)]
    if "where" in body:
        given.append(f"where={_literal(body['where'])}")
    if terms:
        given.append(f"order_by={[f'{field}:{direction}' for field, direction in terms]!r}")
    if "select" in body:
        given.append(f"select={body['select']!r}")
    if "limit" in body:
        given.append(f"limit={body['limit']}")
    arguments = ",\n        ".join(given)
    return (
        ("import decimal\n" if "decimal.Decimal(" in arguments else "") + "import os\n\nimport lensway\n\n"
        f'with lensway.connect({url!r}, os.environ["{_KEY}"], environment={environment!r}) as client:\n'
        f"    page = client.query(\n        {arguments},\n    )\n"
        "    for row in page:\n        print(row)"
    )


def _literal(value: object) -> str:
    """A JSON value as Python writes it; a number that is not whole is a float with the same digits, or a Decimal."""
    match value:
        case dict():
            return "{" + ", ".join(f"{key!r}: {_literal(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_literal, value)) + "]"
        case None | bool() | int() | str():
            return repr(value)
        case _:
            text = numbers.encode(value).decode()
            return text if repr(float(text)) == text else f'decimal.Decimal("{text}")'
