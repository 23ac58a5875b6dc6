"""The reference of the command line, from the commands themselves. `python -m tools.reference` writes it into its page."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from cyclopts import App

from lensway.cli.main import app

_EVERYWHERE: Final = frozenset({"--env"})
"""Options that the page describes once, for all commands."""
_KINDS: Final = {"str": "TEXT", "int": "N", "float": "N", "bool": "", "Path": "PATH", "list": "TEXT …"}


def commands() -> Iterator[str]:
    """Each command with its arguments and options."""
    for words, command in _leaves(app, ("lensway",)):
        yield from _command(words, command)


def _leaves(parent: App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    for name in parent:
        if name.startswith("-"):
            continue
        command = parent[name]
        if command.default_command is None:
            yield from _leaves(command, (*words, name))
        else:
            yield (*words, name), command


def _command(words: tuple[str, ...], command: App) -> Iterator[str]:
    arguments = [each for each in command.assemble_argument_collection() if each.show]
    positional = [each for each in arguments if not each.names[0].startswith("--") or each.required]
    usage = [*words, *(_placeholder(each) for each in positional)]
    summary = (command.default_command.__doc__ or "").partition("\n\n")[0]
    yield f"### `{' '.join(usage)}`"
    yield ""
    yield " ".join(summary.split())
    yield ""
    rows = [each for each in arguments if each not in positional and not _EVERYWHERE.intersection(each.names)]
    rows = [each for each in rows if each.names != ("--json",) or each.parameter.help != _json_help()]
    for each in rows:
        text = " ".join((each.parameter.help or "").split())
        yield f"- `{_option(each)}`" + (f": {text}" if text else "") + _default(each)
    if rows:
        yield ""


def _json_help() -> str:
    return "Print JSON even on a terminal."


def _placeholder(argument: Any) -> str:
    if argument.names[0].startswith("--") and argument.field_info.kind.name == "KEYWORD_ONLY":
        return f"{argument.names[0]} {_kind(argument)}"
    name = argument.names[0].removeprefix("--").upper()
    many = "…" if _origin(argument.hint) is list else ""
    return f"{name}{many}" if argument.required else f"[{name}{many}]"


def _option(argument: Any) -> str:
    names = ", ".join(name for name in argument.names if not name.startswith("--no-"))
    return f"{names} {_kind(argument)}".strip()


def _kind(argument: Any) -> str:
    hint = argument.hint
    if isinstance(hint, types.UnionType) or _origin(hint) is typing.Union:
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if _origin(hint) is typing.Literal:
        return "|".join(map(str, typing.get_args(hint)))
    return _KINDS[(_origin(hint) or hint).__name__]


def _origin(hint: Any) -> Any:
    return typing.get_origin(hint)


def _default(argument: Any) -> str:
    default = argument.field_info.default
    return "" if default in (None, False, argument.field_info.empty) else f" Default `{default}`."
