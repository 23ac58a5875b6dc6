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
from lensway.api.shapes import KeyAnswer, KeyRequest
from lensway.cli import names, output, report, target
from lensway.cli.given import secret_given
from lensway.cli.tables import Column
from lensway.client import Client, segment
from lensway.errors import ErrorCode, LenswayError

keys = App(name="keys", help="API keys: ak_ admin, sk_ service, pk_ publishable.")

_To = target.Target
_FIELDS: Final = tuple(field for field in output.fields_of(KeyAnswer) if field != "key")
_COLUMNS: Final = (
    Column("ID", "id", rank=0),
    Column("KIND", "kind", rank=1),
    Column("NAME", "name", rank=0, is_text=True),
    Column("ROLE", "role", rank=2),
    Column("EXPIRES", lambda key: report.moment_of(key.get("expiresAt")), rank=4),
    Column("LAST USED", lambda key: report.ago_of(key.get("lastUsedAt")), rank=3),
    Column("CREATED", lambda key: report.moment_of(key.get("createdAt")), rank=5),
    Column("ENVIRONMENT", lambda key: key.get("environment") or "all", rank=6),
    Column("LIMITS", lambda key: key.get("limits") or "", rank=8, is_text=True),
    Column("ORIGINS", lambda key: key.get("origins") or "", rank=7, is_text=True),
)
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
    if to.asked not in (None, "table"):
        output.write_one(to.form, created, lambda: None)
    else:
        report.write_line(created["key"])
        report.write_note(f"key {name} created ({created['id']}). It is shown once.")


@keys.command(name="list")
def list_(*, to: _To = target.DEFAULT) -> None:
    """List every key, without its secret."""
    with to.client() as client:
        found = client.call("GET", "/v1/keys")["keys"]
    output.write_list(to.form, found, _COLUMNS, empty="no keys", fields=_FIELDS)


@keys.command
def delete(
    key: Annotated[str, Parameter(completer=names.keys, help="Its id, or its name if no other key has it.")],
    *,
    to: _To = target.DEFAULT,
) -> None:
    """Delete a key by its id or its name; it is invalid at once."""
    with to.client() as client:
        id = _id_of(client, key)
        client.call("DELETE", f"/v1/keys/{segment(id)}")
    named = key if id == key else f"{key} ({id})"
    output.write_done(to.asked, {"id": id, "deleted": True}, f"key {named} deleted")


def _id_of(client: Client, key: str) -> str:
    """The id itself, or the id of the one key that has this name."""
    found = client.call("GET", "/v1/keys")["keys"]
    if any(each["id"] == key for each in found):
        return key
    named = [each for each in found if each["name"] == key]
    if len(named) == 1:
        return str(named[0]["id"])
    if not named:
        raise LenswayError(
            ErrorCode.NOT_FOUND, f"no key has the id or the name {key!r}", hint="`lensway keys list` shows them."
        )
    raise LenswayError(
        ErrorCode.CONFLICT,
        f"{len(named)} keys have the name {key!r}: {', '.join(str(each['id']) for each in named)}",
        hint="Delete the one you mean by its id; `lensway keys list` shows when each was created and last used.",
    )


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
    """A duration as the moment it leads to; a date or a moment as it is, for the server to read."""
    found = _DURATION.fullmatch(expires)
    if found is None:
        try:
            datetime.datetime.fromisoformat(expires)
        except ValueError:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                f"--expires {expires!r} is not a duration above zero, a date or a time",
                hint="Write 90d (a number with s, m, h, d or w), 2027-01-31, or 2027-01-31T12:00:00Z. "
                "Omit it for a key that never expires.",
            ) from None
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
