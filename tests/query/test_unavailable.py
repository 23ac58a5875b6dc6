"""What other query languages have and this version does not: refused by its name, with another way, and never suggested."""

from __future__ import annotations

import pytest

from lensway.api.shapes import CountRequest, ExportRequest, QueryRequest
from lensway.catalog.definitions import read_lens
from lensway.dialects.registry import capabilities_of
from lensway.errors import ErrorCode, LenswayError
from lensway.query import unavailable
from lensway.query.fields import Field, FieldType, LensDefinition
from lensway.query.planner import plan_rows
from lensway.query.where import operators_of, parse
from lensway.service.decoding import read_request

FIELDS = {
    name: Field(name=name, column=name, type=FieldType(name), primary_key=name == "integer")
    for name in ("text", "integer", "number", "decimal", "boolean", "timestamp", "uuid", "bytes", "json")
} | {"tags": Field(name="tags", column="tags", type=FieldType.TEXT, is_list=True)}
LENS = LensDefinition(name="lens", table="t", fields=FIELDS)
EXAMPLES = {"text": "a", "integer": 1, "number": 1, "decimal": "1", "boolean": True, "bytes": "YQ=="} | {
    "timestamp": "2024-01-01T00:00:00Z",
    "uuid": "00000000-0000-0000-0000-000000000000",
}


@pytest.fixture(params=["postgres", "sqlite"])
def capabilities(request):
    return capabilities_of(request.param)


def refused(where: object, capabilities) -> LenswayError:
    with pytest.raises(LenswayError) as error:
        parse(where, LENS, capabilities)
    assert error.value.code is ErrorCode.UNSUPPORTED_OPERATOR
    return error.value


@pytest.mark.parametrize("operator", sorted(unavailable.OPERATORS))
@pytest.mark.parametrize("field", sorted(FIELDS))
def test_an_operator_of_another_language_leads_to_another_way(operator: str, field: str, capabilities) -> None:
    for where in ({field: {operator: "x"}}, {"$and": [{"$not": {field: {operator: "x"}}}]}):
        failure = refused(where, capabilities).failure
        assert repr(operator) in failure.message
        assert "nearest" not in failure.details
        assert failure.hint == unavailable.OPERATORS[operator]
    assert refused({operator: "x"}, capabilities).failure.hint == unavailable.OPERATORS[operator]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_what_is_suggested_for_a_field_works_for_it(field: str, capabilities) -> None:
    for misspelt in ("$eqq", "$gtt", "$contain", "$startWith", "$existss", "$inn", "$what", "eq", "a"):
        failure = refused({field: {misspelt: "x"}}, capabilities).failure
        told = f"{failure.hint} {failure.details.get('nearest', '')}"
        for operator in ("$eq", "$in", "$gt", "$like", "$contains", "$startsWith", "$exists"):
            if operator in told.replace(",", " ").replace("'", " ").split():
                assert operator in operators_of(FIELDS[field]), (field, misspelt, failure.hint)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_operator_that_is_listed_is_taken(field: str, capabilities) -> None:
    for operator in operators_of(FIELDS[field], capabilities.operators):
        value: object = EXAMPLES.get(field)
        if operator in ("$in", "$nin"):
            value = [value]
        parse({field: {operator: True if operator == "$exists" else value}}, LENS, capabilities)


@pytest.mark.parametrize(
    "where", [{"json": {"a": 1}}, {"json": 1}, {"json": {"$eq": "x"}}, {"tags": ["x"]}, {"tags": "x"}]
)
def test_members_of_documents_and_lists_lead_to_a_view(where: object, capabilities) -> None:
    failure = refused(where, capabilities).failure
    assert "only $exists" in failure.message
    assert "view" in (failure.hint or "")


def test_an_order_by_a_document_leads_to_a_view(capabilities) -> None:
    for field in ("json", "tags"):
        with pytest.raises(LenswayError) as error:
            plan_rows(
                LENS, QueryRequest(order_by={"field": field}), capabilities, cursor_key=b"k" * 32, environment="e"
            )
        assert "view" in (error.value.failure.hint or "")


@pytest.mark.parametrize("key", ["groupBy", "measures", "having", "include"])
@pytest.mark.parametrize("kind", [QueryRequest, ExportRequest, CountRequest])
def test_a_key_that_is_not_available_is_refused_by_name(key: str, kind) -> None:
    if (key, kind) == ("include", QueryRequest):
        return  # the use case refuses it: see the acceptance test
    with pytest.raises(LenswayError) as error:
        read_request(kind, {key: {}})
    failure = error.value.failure
    assert (failure.code, failure.details) == (ErrorCode.INVALID_REQUEST, {"path": key})
    assert repr(key) in failure.message
    assert "view" in (failure.hint or "")


@pytest.mark.parametrize("key", ["includes", "inclusion", "groupby", "group_by", "measure"])
def test_it_is_never_suggested_and_never_listed(key: str) -> None:
    with pytest.raises(LenswayError) as error:
        read_request(QueryRequest, {key: {}})
    failure = error.value.failure
    told = f"{failure.message.partition('known keys')[2]} {failure.hint}"
    assert not [each for each in unavailable.KEYS if each in told]


def test_relations_of_a_lens_are_refused_by_name_and_never_suggested() -> None:
    document = {"source": "s", "table": "t", "fields": {"id": {"type": "integer"}}}
    relation = {"customer": {"lens": "customers", "on": {"id": "id"}}}
    for relations in (relation, {"x": {}}):
        with pytest.raises(LenswayError) as error:
            read_lens("lens", document | {"relations": relations})
        assert error.value.failure.details == {"path": "relations"}
        assert "view" in (error.value.failure.hint or "")
    assert read_lens("lens", document | {"relations": {}}).name == "lens"
    with pytest.raises(LenswayError) as error:
        read_lens("lens", document | {"relation": relation})
    assert "relations" not in f"{error.value.failure.message} {error.value.failure.hint}"
