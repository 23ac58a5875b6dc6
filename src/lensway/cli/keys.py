"""`lensway keys`: API keys, shown once."""

from __future__ import annotations

import asyncio
import datetime
import getpass
import os
import pathlib
import re
from typing import Annotated, Final, Literal

from cyclopts import App, Parameter

from lensway.api.bodies import body_of
from lensway.api.shapes import KeyRequest
from lensway.cli import report, target
from lensway.cli.given import secret_given
from lensway.client import segment
from lensway.errors import ErrorCode, LenswayError

keys = App(name="keys", help="API keys: ak_ admin, sk_ service, pk_ publishable.")

_To = target.Target
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@keys.command
def create(
    kind: Literal["ak", "sk", "pk"],
    name: str,
    *,
    role: Annotated[Literal["admin", "operator", "viewer"] | None, Parameter(help="The role of an admin key.")] = None,
    instance_wide: Annotated[
        bool, Parameter(negative=(), help="An admin key for every environment; each command selects one with --env.")
    ] = False,
    expires: Annotated[
        str | None, Parameter(help="When the key expires: 90d (s, m, h, d, w), a date, or a moment with its zone.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        Parameter(
            negative=(), help="For pk keys: the origin of a web page that may use it (https://HOST[:PORT]); repeatable."
        ),
    ] = None,
    max_rows: Annotated[int | None, Parameter(help="Maximum rows in one answer.")] = None,
    max_bytes: Annotated[int | None, Parameter(help="Maximum bytes in one answer.")] = None,
    max_row_bytes: Annotated[int | None, Parameter(help="Maximum bytes in one row.")] = None,
    timeout_ms: Annotated[int | None, Parameter(help="Maximum time for one request.")] = None,
    requests_per_minute: Annotated[int | None, Parameter(help="Maximum requests per minute.")] = None,
    concurrent_requests: Annotated[int | None, Parameter(help="Maximum concurrent requests.")] = None,
    to: _To = target.DEFAULT,
) -> None:
    """Create a key and print it once: `ak` for administration, `sk` for programs, `pk` for web pages. Limits of keys and of
    lenses both apply; the stricter one counts."""
    limits = {
        "maxRows": max_rows,
        "maxBytes": max_bytes,
        "maxRowBytes": max_row_bytes,
        "timeoutMs": timeout_ms,
        "requestsPerMinute": requests_per_minute,
        "concurrentRequests": concurrent_requests,
    }
    request = KeyRequest(
        kind=kind,
        name=name,
        role=role,
        instance_wide=instance_wide,
        limits={limit: value for limit, value in limits.items() if value is not None},
        expires_at=None if expires is None else _moment_of(expires),
        origins=origin or [],
    )
    with to.client() as client:
        created = client.call("POST", "/v1/keys", body_of(request))
    if to.json:
        report.write_json(created)
    else:
        report.write_line(created["key"])
        report.write_note(f"key {name} created ({created['id']}). It is shown once.")


@keys.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List every key, without its secret."""
    with to.client() as client:
        found = client.call("GET", "/v1/keys")["keys"]
    if report.wants_json(to.json):
        report.write_json(found)
        return
    report.write_table(
        ("ID", "KIND", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "ORIGINS"),
        [
            (
                key["id"],
                key["kind"],
                key["name"],
                key.get("role"),
                *(report.moment_of(key.get(moment)) for moment in ("createdAt", "expiresAt", "lastUsedAt")),
                ", ".join(key.get("origins", ())),
            )
            for key in found
        ],
        empty="no keys",
    )


@keys.command
def delete(key: str, *, to: _To = target.DEFAULT) -> None:
    """Delete a key by its id; it is invalid at once."""
    with to.client() as client:
        client.call("DELETE", f"/v1/keys/{segment(key)}")
    report.write_note(f"key {key} deleted")


@keys.command
def recover(
    *,
    data_dir: Annotated[pathlib.Path, Parameter(help="The server's data directory.")] = pathlib.Path("lensway-data"),
) -> None:
    """Create a new instance-wide admin key on the server's own machine, for a deployment whose admin keys are lost or deleted.
    Stop the server first; LENSWAY_MASTER_KEY must be set as it is for the server."""
    # Imported here: the other commands must not pay for the store.
    from lensway.clock import SystemClock  # noqa: PLC0415
    from lensway.store.bootstrap import DataDirectory, recover_admin_key  # noqa: PLC0415
    from lensway.store.sqlite import SqliteStore  # noqa: PLC0415

    clock = SystemClock()
    try:
        directory = DataDirectory.open_present(data_dir)
    except LenswayError as error:
        if error.code is not ErrorCode.CONFLICT:
            raise
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"a server uses the data directory {data_dir}, so no key was created",
            hint="Stop the server, run this again, then start it.",
        ) from None
    try:
        master = directory.master_key(secret_given(os.environ, "LENSWAY_MASTER_KEY"), may_create=False)
        previous = directory.previous_keys(secret_given(os.environ, "LENSWAY_MASTER_KEY_PREVIOUS"))
        store = SqliteStore.open(directory.database, master_key=master, clock=clock, previous_keys=previous)
        try:
            minted = asyncio.run(recover_admin_key(store, clock, by=_user()))
        finally:
            store.close()
    finally:
        directory.close()
    report.write_line(minted.reveal())
    report.write_note("recovery key created. It is shown once; all other keys are unchanged.")


def _user() -> str:
    try:
        return f"{getpass.getuser()} (uid {os.getuid()})"
    except (OSError, KeyError):  # a user without a name, as containers have them
        return f"uid {os.getuid()}"


def _moment_of(expires: str) -> str:
    """A duration as the moment it leads to; anything else as it is, for the server to read."""
    found = _DURATION.fullmatch(expires)
    if found is None:
        return expires
    try:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"--expires {expires} is too far in the future",
            hint="Omit it for a key that never expires.",
        ) from None
    return moment.isoformat(timespec="milliseconds")
