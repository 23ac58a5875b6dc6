"""A query as text means the same in a shell, on the command line and in Python, whatever its names and values contain."""

from __future__ import annotations

import ast
import decimal
import json
import shlex
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lensway.api import numbers
from lensway.api.shapes import QueryRequest
from lensway.console.snippets import snippets

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text("a'\"\\$`!\n {}é☃%", max_size=12)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("a$'\"b", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
WHERES = st.dictionaries(st.text("ab'$", min_size=1, max_size=5), VALUES, min_size=1, max_size=3)


def asked(where: dict[str, Any]) -> QueryRequest:
    order: Any = [{"field": "placed", "dir": "desc"}, {"field": "id"}]
    return QueryRequest(where=where, order_by=order, select=["id", "total"], limit=7)


@given(WHERES)
def test_the_shell_hands_over_exactly_the_query(where: dict[str, Any]) -> None:
    texts = snippets("https://lensway.example.org", "staging", "orders", asked(where))
    words = shlex.split(texts.curl)
    body = json.loads(words[words.index("-d") + 1], parse_float=decimal.Decimal)
    assert body == {
        "where": json.loads(numbers.encode(where), parse_float=decimal.Decimal),
        "orderBy": [{"field": "placed", "dir": "desc"}, {"field": "id", "dir": "asc"}],
        "select": ["id", "total"],
        "limit": 7,
    }
    assert "X-Environment: staging" in words
    words = shlex.split(texts.command)
    assert json.loads(words[words.index("--where") + 1], parse_float=decimal.Decimal) == body["where"]
    assert words[words.index("--order-by") + 1] == "placed:desc,id"
    assert words[words.index("--select") + 1] == "id,total"


@given(WHERES)
def test_python_reads_the_same_values(where: dict[str, Any]) -> None:
    text = snippets("https://lensway.example.org", "staging", "orders", asked(where)).python
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    [query] = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "query"]
    found = {each.arg: each.value for each in query.keywords}
    names = {"decimal": decimal, "__builtins__": {}}
    given_where = eval(ast.unparse(found["where"]), names)
    assert json.loads(numbers.encode(given_where), parse_float=decimal.Decimal) == json.loads(
        numbers.encode(where), parse_float=decimal.Decimal
    )
    assert ast.literal_eval(found["order_by"]) == ["placed:desc", "id:asc"]
    assert ("import decimal" in text) is ("decimal.Decimal(" in ast.unparse(found["where"]))


def test_a_query_for_everything_is_short() -> None:
    texts = snippets("http://127.0.0.1:8080", "default", "orders", QueryRequest())
    assert shlex.split(texts.curl)[-1] == "{}"
    assert texts.command.split() == [
        "LENSWAY_URL=http://127.0.0.1:8080",
        "lensway",
        "query",
        "orders",
        "\\",
        "--env",
        "default",
    ]
