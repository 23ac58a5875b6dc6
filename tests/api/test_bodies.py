"""Bodies of requests: what was said, under the names that the server reads."""

from __future__ import annotations

import msgspec
import pytest

from lensway.api import shapes
from lensway.api.bodies import body_of
from lensway.api.numbers import encode


def test_a_body_has_what_was_said_under_the_names_of_the_wire() -> None:
    request = shapes.QueryRequest(
        where={"total": 1}, order_by=[shapes.OrderTerm(field="a", dir="desc")], timeout_ms=5, total=True
    )
    assert body_of(request) == {
        "where": {"total": 1},
        "orderBy": [{"field": "a", "dir": "desc"}],
        "timeoutMs": 5,
        "total": True,
    }
    assert body_of(shapes.QueryRequest()) == {}
    assert body_of(shapes.ExportRequest(order_by=[])) == {"orderBy": []}, (
        "an empty order says: as the database finds them"
    )
    assert body_of(shapes.KeyRequest(kind="sk", name="k", limits={})) == {"kind": "sk", "name": "k"}


def _takes_texts(shape: object) -> bool:
    """True for a request whose members that must be there are texts."""
    return (
        isinstance(shape, type)
        and issubclass(shape, shapes.Request)
        and all(not field.required or field.name in TEXTS for field in msgspec.structs.fields(shape))
    )


TEXTS = {"name": "a", "field": "a", "bridge": "postgres", "source": "a", "table": "a", "kind": "sk"}


@pytest.mark.parametrize("shape", [each for each in vars(shapes).values() if _takes_texts(each)])
def test_a_request_is_read_back_as_it_was(shape: type[shapes.Request]) -> None:
    said = {field.encode_name: TEXTS[field.name] for field in msgspec.structs.fields(shape) if field.required}
    request = msgspec.convert(said, shape)
    assert body_of(request) == said
    assert msgspec.json.decode(encode(body_of(request)), type=shape) == request
