"""Bad input gets the typed error that names the offender and the nearest valid name; nothing is half applied."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        ({"where": {"custmer": 1}}, "unknown_field", "customer"),
        ({"where": {"id": {"$gtt": 1}}}, "unsupported_operator", "$gt"),
        ({"where": {"id": "one"}}, "invalid_request", "where.id"),
        ({"where": {"note": "x" * 70_000}}, "invalid_request", "where.note"),
        ({"where": []}, "invalid_request", "where"),
        ({"limit": 0}, "invalid_request", "limit"),
        ({"limit": 10_001}, "invalid_request", "limit"),
        ({"limt": 1}, "invalid_request", "limit"),
        ({"select": ["id", "nope"]}, "unknown_field", "nope"),
        ({"orderBy": {"field": "id", "dir": "up"}}, "invalid_request", "orderBy"),
        ({"cursor": "AAAA"}, "invalid_cursor", "cursor"),
        ({"timeoutMs": -5}, "invalid_request", "timeoutMs"),
        ({"include": {"x": {}}}, "invalid_request", "include"),
        ({"total": "yes"}, "invalid_request", "total"),
    ],
)
def test_a_wrong_query_names_the_offender(stage, body: dict, code: str, named: str) -> None:
    answer = stage.query(body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert named in error["message"] + str(error.get("hint")) + str(error["details"])
    assert error["requestId"] == answer.headers["X-Request-Id"]


def test_a_foreign_or_altered_cursor_is_refused(stage) -> None:
    cursor = stage.query({"limit": 2}).json()["meta"]["nextCursor"]
    assert stage.query({"limit": 2, "cursor": cursor}).json()["rows"][0]["id"] == 3
    for body, lens in (
        ({"cursor": cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")}, None),
        ({"cursor": cursor, "where": {"id": {"$gt": 1}}}, None),
        ({"cursor": cursor, "orderBy": {"field": "customer"}}, None),
        ({"cursor": cursor}, stage.slow_lens),
        ({"cursor": cursor, "offset": 1}, None),
    ):
        answer = stage.query({"limit": 2, **body}, lens=lens)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


def test_bodies_that_are_no_json_or_too_large(stage) -> None:
    url = f"/v1/query/{stage.lens}"
    headers = {"Content-Type": "application/json"}
    for content, code in ((b"{", 400), (b"[1]", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b'{"where":NaN}', 400)):
        assert stage.client.post(url, content=content, headers=headers).status_code == code
    assert stage.client.post(url, content=b" " * 2_000_000, headers=headers).status_code == 413
    wrong = stage.client.post(url, content=b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert wrong.json()["error"]["code"] == "unsupported_media_type"
    assert stage.client.get(url).json()["error"]["code"] == "method_not_allowed"
    assert stage.client.post(url, json={}, headers={"Accept": "image/png"}).json()["error"]["code"] == "not_acceptable"
    for media in ("application/x-ndjson; end=records", "application/vnd.apache.arrow.stream; codec=lz4"):
        error = stage.client.post(url, json={}, headers={"Accept": media}).json()["error"]
        assert error["code"] == "not_acceptable"
        assert "Supported: " in error["hint"]
    for media in ("text/csv; charset=utf-8", "text/csv; =x", "application/json; end=records"):
        assert stage.client.post(url, json={}, headers={"Accept": media}).status_code == 200


def test_a_key_that_stands_twice_is_refused_in_every_body(stage) -> None:
    headers = {"Content-Type": "application/json"}
    for method, path, content, key in (
        ("POST", f"/v1/query/{stage.lens}", '{"where":{"id":{"$gt":1},"id":{"$lt":9}}}', "id"),
        ("POST", f"/v1/count/{stage.lens}", '{"where":{"id":1},"where":{}}', "where"),
        ("POST", f"/v1/query/{stage.lens}", '{"where":{"id":{"$gt":1,"$gt":2}}}', "$gt"),
        ("POST", f"/v1/query/{stage.lens}/explain", '{"limit":1,"limit":2}', "limit"),
        ("POST", "/v1/keys", '{"kind":"sk","name":"a","name":"b"}', "name"),
    ):
        answer = stage.client.request(method, path, content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), path
        assert answer.json()["error"]["details"]["key"] == key


def test_unknown_objects_suggest_the_nearest(stage) -> None:
    answer = stage.query(lens=stage.lens + "x")
    assert answer.status_code == 404
    assert stage.lens in answer.json()["error"]["hint"]
    for path in (f"/v1/sources/{stage.source}x", f"/v1/runners/{stage.source}-nobody"):
        assert stage.client.get(path).json()["error"]["code"] == "not_found"
    assert stage.client.get("/v1/sorces").status_code == 404


def test_a_wrong_declaration_is_refused_whole(stage) -> None:
    fresh = f"{stage.source}-fresh"
    document = {
        "sources": {fresh: {"bridge": "postgres", "config": {"url": stage.database.reader_url}}},
        "lenses": {"broken": {"source": fresh, "table": "t", "fields": {"id": {"type": "integr"}}}},
    }
    answer = stage.client.post("/v1/push", json=document)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert "lenses.broken.fields.id.type" in error["message"]
    assert "integer" in str(error)
    assert stage.client.get(f"/v1/sources/{fresh}").status_code == 404, "nothing was half applied"
    unset = {"sources": {fresh: {"bridge": "postgres", "config": {"url": "${NOT_SET}"}}}}
    assert "${" in stage.client.post("/v1/push", json=unset).json()["error"]["message"]
    wrong = {"sources": {fresh: {"bridge": "postgres", "config": {"hots": "x", "user": "y"}}}}
    error = stage.client.post("/v1/push", json=wrong).json()["error"]
    assert f"sources.{fresh}.config.hots" in str(error)
    assert "host" in error["hint"]


def test_keys_open_what_they_are_for(stage) -> None:
    public = stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "pk", "name": "web"}).json()["key"])
    viewer = stage.deployment.client(
        stage.client.post("/v1/keys", json={"kind": "ak", "name": "eyes", "role": "viewer"}).json()["key"]
    )
    assert stage.query(client=public).status_code == 404, "a lens that is not granted does not exist for it"
    assert viewer.get("/v1/runners").status_code == 200
    assert viewer.post("/v1/keys", json={"kind": "sk", "name": "x"}).status_code == 403
    assert stage.query(client=viewer).status_code == 403
    assert public.get("/v1/sources").status_code == 403
    fields = {"id": {"type": "integer", "primaryKey": True}}
    lens = {"source": stage.source, "table": "public.orders", "fields": fields, "grants": {"query": "public"}}
    stage.client.put(f"/v1/lenses/{stage.lens}", json=lens)
    stage.runner("alpha")
    stage.assign("alpha")
    answer = stage.query(client=public)
    assert answer.status_code == 200
    assert stage.name("alpha") not in answer.text, "a publishable key learns no names of runners"
    nobody = stage.deployment.client("sk_" + "x" * 43)
    assert stage.query(client=nobody).status_code == 401


def test_a_publishable_key_learns_no_names_of_runners_from_failures_either(stage) -> None:
    public = stage.deployment.client(stage.client.post("/v1/keys", json={"kind": "pk", "name": "web"}).json()["key"])
    fields = {"id": {"type": "integer", "primaryKey": True}}
    for source, url in (
        (stage.source, stage.database.reader_url),
        (f"{stage.source}-off", "postgresql://a:b@127.0.0.1:1/c"),
    ):
        stage.client.post("/v1/sources", json={"name": source, "bridge": "postgres", "config": {"url": url}})
        lens = {"source": source, "table": "public.orders", "fields": fields, "grants": {"query": "public"}}
        assert stage.client.put(f"/v1/lenses/{source}", json=lens).status_code == 200
    stage.runner("alpha", start=False)
    name = stage.name("alpha")
    for source in (stage.source, f"{stage.source}-off"):
        stage.deployment.assign(name, source)
    secret = (name, stage.identities["alpha"].id, "127.0.0.1", "ins_")
    offline = stage.query(client=public, lens=stage.source)
    assert (offline.status_code, offline.json()["error"]["code"]) == (503, "no_runners_online")
    stage.start("alpha")
    unreachable = stage.query(client=public, lens=f"{stage.source}-off")
    assert (unreachable.status_code, unreachable.json()["error"]["code"]) == (502, "SOURCE_UNREACHABLE")
    explained = public.post(f"/v1/query/{stage.source}/explain", json={})
    kept = public.get(f"/v1/requests/{offline.headers['X-Request-Id']}")
    assert (explained.status_code, kept.status_code) == (200, 200)
    for answer in (offline, unreachable, explained, kept):
        assert not [each for each in secret if each in answer.text], answer.text
