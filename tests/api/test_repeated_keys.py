"""A key that stands twice in one object is refused by name, wherever it stands, and nothing else is."""

from __future__ import annotations

import json

import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from lensway.api.repeated_keys import require_single_keys
from lensway.errors import LenswayError

TEXTS = strategies.text(alphabet='a":\\ é,{}', max_size=6)
DOCUMENTS = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-9, 9) | TEXTS,
    lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@hypothesis.given(DOCUMENTS, strategies.sampled_from([None, 1]), strategies.booleans())
def test_no_document_with_each_key_once_is_refused(document, indent, is_ascii) -> None:
    data = json.dumps(document, indent=indent, ensure_ascii=is_ascii).encode()
    require_single_keys(data, msgspec.json.decode(data))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"where":{"total":{"$gt":100},"total":{"$lt":200}}}', "total"),
        ('{"where":{"a":1},"where":{}}', "where"),
        ('{"a" : 1 , "\\u0061"\n:2}', "a"),
        ('[{"x":{"y":[{"z":1,"z":1}]}}]', "z"),
        ('{"a":"\\":","a":"\\":"}', "a"),
        ('{"":1,"":2}', ""),
    ],
)
def test_a_key_that_stands_twice_is_named(text: str, key: str) -> None:
    data = text.encode()
    with pytest.raises(LenswayError) as refused:
        require_single_keys(data, msgspec.json.decode(data))
    assert refused.value.failure.details["key"] == key


@hypothesis.given(strategies.lists(strategies.tuples(TEXTS, TEXTS), min_size=1, max_size=5), strategies.data())
def test_one_key_more_is_noticed(pairs, data) -> None:
    first = dict(pairs)
    again = data.draw(strategies.sampled_from(sorted(first)))
    members = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in first.items()]
    at = data.draw(strategies.integers(0, len(members)))
    members.insert(at, f"{json.dumps(again)}:{json.dumps(data.draw(TEXTS))}")
    text = ("{" + ",".join(members) + "}").encode()
    with pytest.raises(LenswayError):
        require_single_keys(text, msgspec.json.decode(text))
