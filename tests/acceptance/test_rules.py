"""The rules R1 to R13, each by its name, against real processes and a real PostgreSQL. (R12 stands with the browser tests.)"""

from __future__ import annotations

import concurrent.futures
import threading
import time

import pytest

from lensway.testing.deployment import wait_until

pytestmark = pytest.mark.acceptance


def via(answer) -> str:
    assert answer.status_code == 200, answer.text
    route = answer.json()["meta"]["route"]
    return route["runner"] or route["via"]


def error(answer) -> dict:
    return answer.json()["error"]


def test_r2_zero_assignments_are_executed_inline_and_two_kinds_cannot_be(stage) -> None:
    assert via(stage.query()) == "inline"
    for name, body in (
        ("local", {"credentials": "runner-local"}),
        ("required", {"execution": "runner_required", "config": {"url": stage.database.reader_url}}),
    ):
        source = f"{stage.source}-{name}"
        assert stage.client.post("/v1/sources", json={"name": source, "bridge": "postgres", **body}).status_code == 201
        fields = {"id": {"type": "integer", "primaryKey": True}}
        stage.client.put(f"/v1/lenses/{source}", json={"source": source, "table": "public.orders", "fields": fields})
        answer = stage.query(lens=source)
        assert (answer.status_code, error(answer)["code"]) == (503, "source_requires_runner")
        assert source in error(answer)["message"]


def test_r3_an_assigned_source_is_dispatched_to_a_live_runner_with_the_same_rows(stage) -> None:
    inline = stage.query({"limit": 20, "where": {"note": None}})
    stage.runner("alpha")
    stage.assign("alpha")
    dispatched = stage.query({"limit": 20, "where": {"note": None}})
    assert via(dispatched) == stage.name("alpha")
    # I11: the same bytes, and a cursor that is good either way.
    assert dispatched.content.split(b'"meta"')[0] == inline.content.split(b'"meta"')[0]
    assert dispatched.json()["meta"]["nextCursor"] == inline.json()["meta"]["nextCursor"]


def test_r4_no_live_runner_is_a_prompt_503_and_never_inline(stage) -> None:
    process = stage.runner("alpha")
    stage.runner("beta", start=False)
    stage.assign("alpha")
    stage.assign("beta")
    process.kill()
    wait_until(lambda: stage.status_of("alpha")["status"] == "offline", seconds=5, what="offline")
    deadline = time.monotonic() + 2.1
    while time.monotonic() < deadline:
        answer = stage.query()
        assert (answer.status_code, error(answer)["code"]) == (503, "no_runners_online"), answer.text
    started = time.monotonic()
    answer = stage.query()
    took = time.monotonic() - started
    assert error(answer)["code"] == "no_runners_online"
    assert int(answer.headers["Retry-After"]) >= 1
    assert stage.name("alpha") in error(answer)["message"]
    assert "never connected" in error(answer)["message"]
    assert took < 0.25, "without anybody to wait for, the answer comes at once"
    back = stage.start("alpha")
    back.wait_line("assigned sources")
    assert wait_until(lambda: stage.query().status_code == 200, seconds=5, what="an answer") <= 1.0


def test_r5_assigning_is_the_switch_without_a_restart_of_anything(stage) -> None:
    process = stage.runner("alpha")
    server = stage.deployment.server
    pids = (server.pid, process.pid)
    assert via(stage.query()) == "inline"
    stage.assign("alpha")
    assert via(stage.query()) == stage.name("alpha")
    stage.unassign("alpha")
    assert via(stage.query()) == "inline"
    assert (server.pid, process.pid) == pids
    assert server.is_running
    assert process.is_running
    again = stage.unassign("alpha")
    assert again["revision"] == stage.unassign("alpha")["revision"], "a change that changes nothing bumps nothing"


def test_r6_either_of_a_redundant_pair_may_be_killed_and_callers_do_not_notice(stage) -> None:
    running = {}
    for name in ("alpha", "beta"):
        running[name] = stage.runner(name)
        stage.assign(name)
    failures: list[str] = []
    sent = [0]
    over = threading.Event()

    def ask(number: int) -> None:
        with_key = stage.deployment.client()
        # 20 callers × 10 a second.
        while not over.wait(0.1):
            number = (number * 7 + 13) % 5000
            answer = stage.query({"where": {"id": number + 1}, "limit": 1}, client=with_key)
            sent[0] += 1
            if answer.status_code != 200 or answer.json()["rows"][0]["id"] != number + 1:
                failures.append(answer.text)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        for number in range(20):
            pool.submit(ask, number)
        try:
            for kill in range(20):
                name = ("alpha", "beta")[kill % 2]
                running[name].kill()
                running[name] = stage.start(name)
                wait_until(
                    lambda name=name: any(
                        each["revision"] == each["wantedRevision"] for each in stage.status_of(name)["instances"]
                    ),
                    seconds=10,
                    what=f"{name} in force",
                )
        finally:
            over.set()
    assert failures == []
    assert sent[0] > 1000


def test_r7_migration_there_and_back_under_load_without_one_failed_query(stage) -> None:
    # The runner reaches the database by another address than the service: its own word on the host wins.
    variable = f"LENSWAY_SOURCE_{stage.source.upper()}_HOST"
    config = {"host": "127.0.0.1", "port": stage.database.cluster.port, "user": "orders_reader", "database": "orders"}
    changed = stage.client.patch(
        f"/v1/sources/{stage.source}", json={"config": {**config, "password": stage.database.reader_password}}
    )
    assert changed.status_code == 200, changed.text
    stage.runner("alpha", environment={variable: "localhost"})
    failures: list[str] = []
    places: dict[str, int] = {}
    lock = threading.Lock()
    over = threading.Event()

    def note(answer, right: bool) -> None:
        with lock:
            if answer.status_code != 200 or not right:
                failures.append(answer.text[:300])
            else:
                place = via(answer)
                places[place] = places.get(place, 0) + 1

    def points(number: int) -> None:
        client = stage.deployment.client()
        while not over.is_set():
            number = (number * 31 + 7) % 5000
            answer = stage.query({"where": {"id": number + 1}}, client=client)
            note(
                answer, answer.status_code == 200 and answer.json()["rows"][0]["total"] == f"{(number + 1) * 1.25:.2f}"
            )

    def pages(_: int) -> None:
        client = stage.deployment.client()
        while not over.is_set():
            cursor, seen = None, 0
            for _page in range(5):
                answer = stage.query({"limit": 40, **({"cursor": cursor} if cursor else {})}, client=client)
                ids = [row["id"] for row in answer.json().get("rows", ())]
                note(answer, ids == list(range(seen + 1, seen + 41)))
                seen += 40
                cursor = answer.json().get("meta", {}).get("nextCursor")

    def slow(_: int) -> None:
        client = stage.deployment.client()
        while not over.is_set():
            note(stage.query({"where": {"id": 7}}, lens=stage.slow_lens, client=client), True)

    with concurrent.futures.ThreadPoolExecutor(18) as pool:
        tasks = [points] * 12 + [pages] * 2 + [slow] * 4
        futures = [pool.submit(task, number) for number, task in enumerate(tasks)]
        try:
            for _flip in range(50):
                for change, place in ((stage.assign, stage.name("alpha")), (stage.unassign, "inline")):
                    change("alpha")
                    before = places.get(place, 0)
                    wait_until(lambda p=place, b=before: failures or places.get(p, 0) >= b + 40, seconds=20, what=place)
        finally:
            over.set()
        for future in futures:
            future.result()
    total = sum(places.values())
    assert failures == []
    assert total > 2_000
    for place in ("inline", stage.name("alpha")):
        assert places[place] >= total // 5, places


def test_r8_a_database_out_of_reach_is_source_unreachable_with_stage_and_class(stage, canary) -> None:
    stage.runner("alpha", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_PORT": "1"})
    config = {"host": "127.0.0.1", "port": stage.database.cluster.port, "user": "orders_reader", "password": canary}
    stage.client.patch(f"/v1/sources/{stage.source}", json={"config": {**config, "database": "orders"}})
    stage.assign("alpha")
    answer = stage.query()
    assert (answer.status_code, error(answer)["code"]) == (502, "SOURCE_UNREACHABLE")
    assert error(answer)["details"]["stage"] == "tcp"
    assert error(answer)["details"]["class"] == "refused"
    assert canary not in answer.text
    wait_until(
        lambda: stage.status_of("alpha")["sources"][0]["health"] == "unreachable",
        seconds=5,
        what="the status to say so",
    )


def test_r9_test_connection_proves_every_stage_from_every_place(stage) -> None:
    names = ["dns", "tcp", "tls", "login", "query", "read_only", "lenses"]
    inline = stage.client.post(f"/v1/sources/{stage.source}/test").json()["results"]
    assert [result["runner"] for result in inline] == [None]
    assert [each["stage"] for each in inline[0]["stages"]] == names
    assert inline[0]["ok"]
    for name in ("alpha", "beta"):
        stage.runner(name)
    before = stage.client.post(f"/v1/sources/{stage.source}/test", params={"runner": stage.name("beta")}).json()[
        "results"
    ]
    assert [(result["runner"], result["ok"]) for result in before] == [(stage.name("beta"), True)]
    assert via(stage.query()) == "inline", "a test from a runner does not assign it"
    stage.assign("alpha")
    stage.assign("beta")
    stage.start("beta")
    wait_until(lambda: len(stage.status_of("beta")["instances"]) == 2, seconds=5, what="two instances")
    results = stage.client.post(f"/v1/sources/{stage.source}/test").json()["results"]
    assert sorted(result["runner"] for result in results) == sorted([stage.name("alpha"), *[stage.name("beta")] * 2])
    assert len({result["instance"] for result in results}) == 3
    assert all(result["ok"] for result in results)
    fields = {"id": {"type": "integer", "primaryKey": True}, "ghost": {"type": "text"}}
    stage.client.put(
        f"/v1/lenses/{stage.lens}", json={"source": stage.source, "table": "public.orders", "fields": fields}
    )
    broken = stage.client.post(f"/v1/sources/{stage.source}/test").json()["results"][0]
    assert not broken["ok"]
    assert broken["stages"][-1]["error"] == "undefined_column"
    assert stage.lens in broken["stages"][-1]["hint"]


def test_r9_verify_changes_nothing_when_the_test_fails(stage) -> None:
    stage.runner("alpha", environment={f"LENSWAY_SOURCE_{stage.source.upper()}_URL": "postgresql://a:b@127.0.0.1:1/c"})
    answer = stage.client.put(f"/v1/runners/{stage.name('alpha')}/sources/{stage.source}", params={"verify": "true"})
    assert (answer.status_code, error(answer)["code"]) == (409, "conflict")
    assert error(answer)["details"]["results"][0]["stages"][1]["error"] == "refused"
    assert via(stage.query()) == "inline"


def test_r10_a_changed_set_is_in_force_at_once(stage) -> None:
    stage.runner("alpha")
    for change in (stage.assign, stage.unassign, stage.assign):
        started = time.monotonic()
        wanted = change("alpha")["revision"]
        wait_until(
            lambda wanted=wanted: stage.status_of("alpha")["instances"][0]["revision"] == wanted,
            seconds=5,
            what="in force",
        )
        assert time.monotonic() - started < 1.0


def test_r11_a_job_in_flight_finishes_where_it_was_accepted(stage) -> None:
    stage.runner("alpha")
    stage.assign("alpha")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.query, {"where": {"id": 3}}, lens=stage.slow_lens, client=stage.deployment.client())
        wait_until(
            lambda: stage.status_of("alpha")["instances"][0]["outstanding"] == 1,
            seconds=5,
            what="the job to be accepted",
        )
        stage.unassign("alpha")
        assert via(stage.query()) == "inline"
        assert via(running.result()) == stage.name("alpha")


def test_r13_bad_patterns_are_pointed_out_where_they_are_made(stage) -> None:
    def codes(answer: dict) -> set[str]:
        return {warning["code"] for warning in answer["warnings"]}

    stage.runner("alpha")
    stage.runner("beta", start=False)
    assert "single_runner" in codes(stage.assign("alpha"))
    assert "runner_offline" in codes(stage.assign("beta"))
    other = f"{stage.source}-other"
    stage.client.post(
        "/v1/sources", json={"name": other, "bridge": "postgres", "config": {"url": stage.database.reader_url}}
    )
    assert "replicas_differ" in codes(stage.deployment.assign(stage.name("alpha"), other))
    local = f"{stage.source}-local"
    stage.client.post("/v1/sources", json={"name": local, "bridge": "postgres", "credentials": "runner-local"})
    stage.deployment.assign(stage.name("alpha"), local)
    wait_until(
        lambda: "credentials_missing" in codes(stage.status_row("alpha")),
        seconds=5,
        what="missing credentials to be reported",
    )
    assert "no_live_runner_left" in codes(stage.unassign("alpha"))
    gone = stage.unassign("beta")
    assert "goes_inline" in codes(gone)
    assert next(each for each in gone["warnings"] if each["code"] == "goes_inline")["lenses"] == [
        stage.lens,
        stage.slow_lens,
    ]


def test_several_instances_of_one_runner_are_several_candidates(stage) -> None:
    first = stage.runner("alpha")
    stage.start("alpha")
    assert "single_runner" not in {warning["code"] for warning in stage.assign("alpha")["warnings"]}
    assert len(stage.status_of("alpha")["instances"]) == 2
    first.kill()
    assert via(stage.query()) == stage.name("alpha")


def test_a_runner_drains_on_sigterm_and_finishes_what_it_has(stage) -> None:
    process = stage.runner("alpha")
    stage.assign("alpha")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.query, {"where": {"id": 3}}, lens=stage.slow_lens, client=stage.deployment.client())
        wait_until(
            lambda: stage.status_of("alpha")["instances"][0]["outstanding"] == 1,
            seconds=5,
            what="the job to be accepted",
        )
        assert process.stop() == 0
        assert via(running.result()) == stage.name("alpha")


def test_a_revoked_runner_is_cut_off_at_once_and_keeps_its_assignments(stage) -> None:
    process = stage.runner("alpha")
    stage.assign("alpha")
    stage.client.post(f"/v1/runners/{stage.name('alpha')}/revoke")
    assert process.wait(10) == 1, "dialling again cannot help"
    assert stage.status_of("alpha")["status"] == "revoked"
    answer = stage.query()
    assert error(answer)["code"] == "no_runners_online", "revoking never makes a source go inline"
