"""I10: one environment never sees, names or affects another's objects.

A matrix made from the table of routes: every endpoint, for every object that its path or its parameters name, with every kind
of key of another environment; that object alone is foreign, all others are the caller's own. The answer is `not_found`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import httpx2
import pytest

from lensway.api.routes import ROUTES, Access, Route

pytestmark = pytest.mark.acceptance

FIELDS = {"id": {"type": "integer", "primaryKey": True}}
BODIES = {
    "patch_source": {"execution": "auto"},
    "put_lens": {"source": "here", "table": "public.orders", "fields": FIELDS},
    "patch_runner": {"network": "x"},
    "show_table": None,
}
DATA = ("query", "export", "explain", "count", "show_lens", "show_request", "cancel_request")
"""Routes for service and publishable keys too."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One cell of the matrix: a route, and which of the objects it names is foreign."""

    route: Route
    parameter: str

    def __str__(self) -> str:
        return f"{self.route.name}-{self.parameter}"


def cases() -> Iterator[Case]:
    """Every route with every object that it names; the parameter `runner` of a test too."""
    for route in ROUTES:
        if route.access is Access.OPEN:
            continue
        for parameter in (*re.findall(r"\{(\w+)\}", route.path), *(each.name for each in route.params)):
            # A table belongs to no environment, only its source does; a lens of the same name is another lens.
            if parameter in ("lens", "source", "runner", "id", "environment") and route.name != "put_lens":
                yield Case(route, parameter)


class Two:
    """Objects in the default environment ("theirs"), and keys and objects of another one ("ours")."""

    def __init__(self, stage) -> None:
        self.stage = stage
        stage.runner("alpha", start=False)
        request = stage.query().headers["X-Request-Id"]
        made = stage.client.post("/v1/keys", json={"kind": "sk", "name": "theirs"}).json()
        self.theirs = {
            "lens": [stage.lens],
            "source": [stage.source, stage.client.get(f"/v1/sources/{stage.source}").json()["id"]],
            "runner": [stage.name("alpha"), stage.identities["alpha"].id],
            "id": [request, made["id"]],
            "environment": ["default"],
        }
        self.other = f"other-{stage.source}"
        assert stage.client.post("/v1/environments", json={"name": self.other}).status_code == 201
        self.chosen = stage.deployment.client(environment=self.other)
        keys = {
            kind: self.chosen.post("/v1/keys", json={"kind": kind, "name": f"our {kind}"}).json()["key"]
            for kind in ("ak", "sk", "pk")
        }
        self.clients = {kind: stage.deployment.client(key) for kind, key in keys.items()} | {"chosen": self.chosen}
        config = {"url": stage.database.reader_url}
        assert (
            self.chosen.post("/v1/sources", json={"name": "here", "bridge": "postgres", "config": config}).status_code
            == 201
        )
        lens = BODIES["put_lens"] | {"grants": {"query": "public"}}
        assert self.chosen.put("/v1/lenses/here", json=lens).status_code == 200
        assert self.chosen.post("/v1/runners", json={"name": "here"}).status_code == 201
        self.here = {"lens": "here", "source": "here", "runner": "here", "table": "public.orders"}

    def ask(self, client: httpx2.Client, case: Case, name: str) -> httpx2.Response:
        """The request of this cell: the one object foreign, the others our own."""
        values = self.here | {case.parameter: name}
        path = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], case.route.path)
        params = {case.parameter: name} if "{" + case.parameter + "}" not in case.route.path else {}
        body = BODIES.get(case.route.name, {} if case.route.method == "POST" else None)
        return client.request(case.route.method, path, params=params, json=body)

    def may_ask(self, who: str, route: Route) -> bool:
        """True where a key of this kind gets as far as looking for the object."""
        return who in ("ak", "chosen") or route.name in DATA


@pytest.fixture(scope="module")
def two(module_stage) -> Two:
    return Two(module_stage)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_i10_another_environments_object_is_not_found(case: Case, two: Two) -> None:
    asked = 0
    before = two.stage.client.get("/v1/assignments").json()
    for who, client in two.clients.items():
        if not two.may_ask(who, case.route):
            continue
        for name in two.theirs[case.parameter]:
            answer = two.ask(client, case, name)
            asked += 1
            if case.route.name == "delete_environment":
                # Environments are what instance-wide keys choose between: they see them, others do not.
                assert answer.status_code == (409 if who == "chosen" else 403), (who, answer.text)
                continue
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), (who, name, answer.text)
            assert "nearest" not in answer.json()["error"]["details"], "a suggestion would name what is there"
            # Exactly as what never existed, but for the name.
            never = two.ask(client, case, "never-was")
            assert never.json()["error"] | {"requestId": "", "message": "", "details": {}} == answer.json()["error"] | {
                "requestId": "",
                "message": "",
                "details": {},
            }
    assert asked
    assert two.stage.client.get("/v1/assignments").json() == before


def test_i10_every_route_that_names_an_object_is_in_the_matrix() -> None:
    named = {route.name for route in ROUTES if "{" in route.path and route.access is not Access.OPEN}
    assert named - {case.route.name for case in cases()} == {"put_lens"}
    assert {str(case) for case in cases()} >= {
        "assign-runner",
        "assign-source",
        "unassign-source",
        "test_source-runner",
    }


def test_i10_bodies_cannot_name_another_environments_objects_either(two: Two) -> None:
    source, runner, lens = two.theirs["source"], two.theirs["runner"], two.theirs["lens"][0]
    for client in (two.clients["ak"], two.chosen):
        for name in source:
            body = BODIES["put_lens"] | {"source": name}
            assert client.put("/v1/lenses/thief", json=body).json()["error"]["code"] == "not_found"
            pushed = client.post("/v1/push", json={"lenses": {"thief": body}})
            assert pushed.status_code == 400, pushed.text
            pushed = client.post("/v1/push", json={"assignments": {name: ["here"]}})
            assert pushed.status_code == 400, pushed.text
        for name in runner:
            created = client.post("/v1/runners", json={"name": "thief", "like": name})
            assert created.json()["error"]["code"] == "not_found"
            pushed = client.post("/v1/push", json={"assignments": {"here": [name]}})
            assert pushed.status_code == 400, pushed.text
        # The same names are other objects here, and pruning here takes nothing there.
        made = client.put(f"/v1/lenses/{lens}", json=BODIES["put_lens"])
        assert made.status_code == 200
        assert client.post("/v1/push", params={"prune": "true", "dryRun": "true"}, json={}).status_code == 200
        assert client.delete(f"/v1/lenses/{lens}").status_code == 204
    assert two.stage.query().status_code == 200


def test_i10_lists_show_the_own_environment_only(two: Two) -> None:
    stage = two.stage
    theirs = [*two.theirs["source"], *two.theirs["runner"], *two.theirs["lens"], *two.theirs["id"]]
    for who in ("ak", "chosen"):
        for route in ROUTES:
            if route.method != "GET" or "{" in route.path or route.name in ("events", "metrics", "openapi"):
                continue
            if route.name == "export_audit" and who == "chosen":
                continue  # the whole deployment's, for those who administer it
            answer = two.clients[who].get(route.path)
            text = answer.text
            if route.name == "audit":
                # What we tried ourselves and were refused is ours to see, with the names that we tried.
                done = [entry for entry in answer.json()["entries"] if entry["outcome"] == "ok"]
                known = {"our ak", "first admin key"} | ({"server"} if who == "chosen" else set())
                assert {entry["actor"].split(" (")[0] for entry in done} <= known
                text = str([entry for entry in done if not entry["action"].startswith("lens.")])
            assert not [name for name in theirs if f'"{name}"' in text or f"'{name}'" in text], (who, route.path)
    assert stage.source in stage.client.get("/v1/sources").text


def test_i10_a_bound_key_cannot_choose_another_environment(two: Two) -> None:
    for who in ("ak", "sk", "pk"):
        for wanted in ("default", "never-was"):
            answer = two.clients[who].get("/v1/lenses", headers={"X-Environment": wanted})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_i10_events_of_another_environment_are_not_told(two: Two) -> None:
    with two.clients["ak"].stream("GET", "/v1/events") as watched:
        lines = watched.iter_lines()
        assert next(lines) == ": watching"
        two.stage.client.put(f"/v1/runners/{two.stage.name('alpha')}/sources/{two.stage.source}")
        two.stage.client.delete(f"/v1/runners/{two.stage.name('alpha')}/sources/{two.stage.source}")
        assert two.chosen.put("/v1/runners/here/sources/here").status_code == 200
        told = next(line for line in lines if line.startswith("event: assignment"))
        data = next(lines)
        assert told
        assert '"runner":"here"' in data, data
    assert two.chosen.delete("/v1/runners/here/sources/here").status_code == 200
