"""The OpenAPI document is made from the table of routes; a fuzzer tries the server against it."""

from __future__ import annotations

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import response_schema_conformance

from lensway.api import openapi
from lensway.api.routes import ROUTES, Access
from lensway.testing.deployment import Deployment

DOCUMENT = openapi.document("test")
FUZZED = [
    route
    for route in ROUTES
    # Streams that never end, and what takes the key or the objects of the others away, are not fuzzed.
    if route.name not in ("events", "delete_key", "metrics")
]

REAL = {"lens": "orders", "source": "main", "runner": "alpha", "environment": "default"}


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == {(route.method, route.path) for route in ROUTES}
    names = [route.name for route in ROUTES]
    assert len(names) == len(set(names))
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert ("security" in operation) == (route.access is not Access.OPEN)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """A server with one of everything; sources point nowhere."""
    with Deployment(tmp_path_factory.mktemp("fuzzed")) as deployment:
        client = deployment.client()
        source = {"name": "main", "bridge": "postgres", "config": {"url": "postgresql://a:b@127.0.0.1:1/c"}}
        client.post("/v1/sources", json=source)
        fields = {"id": {"type": "integer", "primaryKey": True}, "name": {"type": "text"}}
        client.put("/v1/lenses/orders", json={"source": "main", "table": "orders", "fields": fields})
        client.post("/v1/runners", json={"name": "alpha"})
        yield deployment


@pytest.mark.parametrize("route", FUZZED, ids=lambda route: route.name)
def test_no_request_makes_the_server_fail_and_answers_are_as_documented(route, fuzzed) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation = schema[route.path][route.method]
    headers = {"Authorization": f"Bearer {fuzzed.admin_key}"}

    with requests.Session() as session:
        session.trust_env = False

        @settings(
            max_examples=30,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(operation.as_strategy(), st.booleans())
        def run(case, is_real) -> None:
            if is_real and route.method != "DELETE":
                # What exists is where a wrong body gets furthest.
                case.path_parameters = {name: REAL.get(name, value) for name, value in case.path_parameters.items()}
            answer = case.call(base_url=fuzzed.url, headers=headers, session=session)
            assert answer.status_code != 500, answer.text
            case.validate_response(answer, checks=[response_schema_conformance])

        run()
