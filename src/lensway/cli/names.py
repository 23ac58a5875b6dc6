"""Names that a shell completes: lenses, sources, tables, runners, keys and environments of the server, and stored profiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from lensway import limits
from lensway.cli import screen, target
from lensway.client import profiles, segment

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext


def _asked(
    path: str, member: str, describe: Callable[[Mapping[str, Any]], str], *, name: str = "name"
) -> Callable[[CompletionContext], dict[str, str]]:
    """A completer with the records of one list. When it fails nothing is completed: cyclopts swallows the error."""

    def complete(context: CompletionContext) -> dict[str, str]:
        return _safe({str(each[name]): describe(each) for each in _get(context, path)[member]})

    return complete


def _get(context: CompletionContext, path: str) -> Any:
    """What the server answers, with the options that stand on the line already, or soon no answer at all."""
    server = target.Server(
        env=_typed(context, "--env") or os.environ.get("LENSWAY_ENVIRONMENT"),
        profile=_typed(context, "--profile"),
        insecure=_typed(context, "--insecure") is not None or bool(os.environ.get("LENSWAY_INSECURE")),
    )
    with server.client(timeout=limits.COMPLETION_SECONDS) as client:
        return client.call("GET", path)


def _typed(context: CompletionContext, option: str) -> str | None:
    found = context.get(option)
    return None if found is None else found.raw


def _tables(context: CompletionContext) -> dict[str, str]:
    source = _typed(context, "source")
    found = _get(context, f"/v1/sources/{segment(source)}/tables")["tables"] if source else ()
    return _safe({str(each["name"]): str(each["kind"]) for each in found})


def _safe(found: Mapping[str, str]) -> dict[str, str]:
    """Without names that would drive the terminal, or that no shell can complete."""
    return {name: screen.visible(what) for name, what in found.items() if name.isprintable()}


def _profiles(context: CompletionContext) -> dict[str, str]:
    return {name: each.url for name, each in profiles.read(profiles.path(os.environ)).profiles.items()}


lenses = _asked("/v1/lenses", "lenses", lambda lens: f"{len(lens['fields'])} fields")
sources = _asked("/v1/sources", "sources", lambda source: str(source["bridge"]))
runners = _asked("/v1/runners", "runners", lambda runner: str(runner["status"]).replace("_", " "))
keys = _asked("/v1/keys", "keys", lambda key: f"{key['kind']} {key['name']}", name="id")
environments = _asked("/v1/environments", "environments", lambda environment: str(environment["id"]))
requests = _asked("/v1/requests", "requests", lambda request: f"{request['lens']} {request['outcome']}", name="id")
tables = _tables

Lens: TypeAlias = Annotated[str, Parameter(completer=lenses)]
Source: TypeAlias = Annotated[str, Parameter(completer=sources)]
Runner: TypeAlias = Annotated[str, Parameter(completer=runners)]
Environment: TypeAlias = Annotated[str, Parameter(completer=environments)]
Profile: TypeAlias = Annotated[str, Parameter(completer=_profiles)]
