"""I10: every endpoint with a name in its path, with another environment's object, is `not_found`; and lists do not show it."""

from __future__ import annotations

import re

import pytest

from lensway.api.routes import ROUTES, Access

pytestmark = pytest.mark.acceptance

BODIES = {
    "patch_source": {"execution": "auto"},
    "put_lens": None,
    "patch_runner": {"network": "x"},
}
NAMED = [route for route in ROUTES if "{" in route.path and route.access is not Access.OPEN]


@pytest.fixture
def two(stage):
    """Objects in the default environment, and an admin key of another one."""
    stage.runner("alpha", start=False)
    stage.query()
    request = stage.query().headers["X-Request-Id"]
    key = stage.client.post("/v1/keys", json={"kind": "sk", "name": "theirs"}).json()["id"]
    other = f"other-{stage.source}"
    assert stage.client.post("/v1/environments", json={"name": other}).status_code == 201
    instance_wide = stage.deployment.client(environment=other)
    bound = instance_wide.post("/v1/keys", json={"kind": "ak", "name": "bound"}).json()["key"]
    names = {
        "lens": [stage.lens],
        "source": [stage.source, stage.client.get(f"/v1/sources/{stage.source}").json()["id"]],
        "runner": [stage.name("alpha"), stage.identities["alpha"].id],
        "id": [request, key],
        "table": ["public.orders"],
        "environment": ["default"],
    }
    return names, {"bound key": stage.deployment.client(bound), "chosen": instance_wide}, stage


@pytest.mark.parametrize("route", NAMED, ids=lambda route: route.name)
def test_i10_another_environments_object_is_not_found(route, two) -> None:
    names, clients, stage = two
    parameter = re.search(r"\{(\w+)\}", route.path)[1]
    for who, client in clients.items():
        for name in names[parameter]:
            path = route.path.replace("{" + parameter + "}", name)
            path = path.replace("{source}", stage.source).replace("{table}", "public.orders")
            body = BODIES.get(route.name, {} if route.method == "POST" else None)
            if route.name == "put_lens":
                # A new lens on their source: the source does not exist here.
                body = {"source": stage.source, "table": "t", "fields": {"id": {"type": "integer"}}}
            answer = (
                client.request(route.method, path, json=body)
                if body is not None
                else client.request(route.method, path)
            )
            expected = {404}
            if route.name == "delete_environment":
                expected = {403} if who == "bound key" else {409}
            assert answer.status_code in expected, (who, route.name, answer.text)
            if answer.status_code == 404:
                assert answer.json()["error"]["code"] == "not_found"
                assert "nearest" not in answer.json()["error"]["details"], "suggestions would name what is there"


def test_i10_lists_show_the_own_environment_only(two) -> None:
    names, clients, stage = two
    theirs = [*names["source"], *names["runner"], *names["lens"], names["id"][1]]
    for client in clients.values():
        for path in (
            "/v1/sources",
            "/v1/runners",
            "/v1/lenses",
            "/v1/keys",
            "/v1/assignments",
            "/v1/requests",
            "/v1/config",
            "/v1/audit",
        ):
            text = client.get(path).text
            assert not [name for name in theirs if f'"{name}"' in text], path
    assert stage.source in stage.client.get("/v1/sources").text


def test_i10_a_bound_key_cannot_choose_another_environment(two) -> None:
    _, clients, _ = two
    answer = clients["bound key"].get("/v1/sources", headers={"X-Environment": "default"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
