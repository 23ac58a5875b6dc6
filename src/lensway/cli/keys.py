"""`lensway keys`: API keys, shown once."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from lensway.cli import report, target
from lensway.client import segment

keys = App(name="keys", help="API keys: ak_ admin, sk_ service, pk_ publishable.")

_To = target.Target


@keys.command
def create(
    kind: Literal["ak", "sk", "pk"],
    name: str,
    *,
    role: Annotated[Literal["admin", "operator", "viewer"] | None, Parameter(help="For admin keys.")] = None,
    instance_wide: Annotated[
        bool, Parameter(negative=(), help="An admin key of every environment, which --env chooses between.")
    ] = False,
    max_rows: Annotated[int | None, Parameter(help="Rows of one answer.")] = None,
    max_bytes: Annotated[int | None, Parameter(help="Bytes of one answer.")] = None,
    max_row_bytes: Annotated[int | None, Parameter(help="Bytes of one row.")] = None,
    timeout_ms: Annotated[int | None, Parameter(help="Longest time of one request.")] = None,
    requests_per_minute: Annotated[int | None, Parameter(help="Requests in a minute.")] = None,
    concurrent_requests: Annotated[int | None, Parameter(help="Requests at once.")] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Mint a key and print it once: `ak` administers, `sk` is for programs, `pk` for web pages. Its limits hold beside those of
    lenses; the stricter one counts."""
    body: dict[str, object] = {"kind": kind, "name": name}
    if role:
        body["role"] = role
    if instance_wide:
        body["instanceWide"] = True
    limits = {
        "maxRows": max_rows,
        "maxBytes": max_bytes,
        "maxRowBytes": max_row_bytes,
        "timeoutMs": timeout_ms,
        "requestsPerMinute": requests_per_minute,
        "concurrentRequests": concurrent_requests,
    }
    if given := {limit: value for limit, value in limits.items() if value is not None}:
        body["limits"] = given
    with to.client() as client:
        created = client.call("POST", "/v1/keys", body)
    if to.json:
        report.write_json(created)
    else:
        report.write_line(created["key"])
        report.write_note(f"key {name} created ({created['id']}). It is shown once.")


@keys.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """Every key, without its secret."""
    with to.client() as client:
        found = client.call("GET", "/v1/keys")["keys"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("ID", "KIND", "NAME", "ROLE", "CREATED"),
        [
            (key["id"], key["kind"], key["name"], key.get("role"), report.moment_of(key.get("createdAt")))
            for key in found
        ],
        empty="no keys",
    )


@keys.command
def delete(key: str, *, to: _To = target.DEFAULT) -> None:
    """End a key, by its id."""
    with to.client() as client:
        client.call("DELETE", f"/v1/keys/{segment(key)}")
    report.write_note(f"key {key} deleted")
