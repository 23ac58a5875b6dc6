"""The reference of the command line, from the commands themselves. `python -m tools.reference` writes it into its page."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from cyclopts import App

from lensway.cli import forms, target
from lensway.cli.program import app

_EVERYWHERE: Final = tuple(
    (f"--{field.name}", typing.get_args(hint)[1].help)
    for shape in (target.Server, forms.Output)
    for field in dataclasses.fields(shape)
    if (hint := typing.get_type_hints(shape, include_extras=True)[field.name])
)
"""Options that the page describes once, for all commands, by name and help."""
_KINDS: Final = {"str": "TEXT", "int": "N", "float": "N", "bool": "", "Path": "PATH", "list": "TEXT …"}


def commands() -> Iterator[str]:
    """Each command with its arguments and options."""
    for words, command in leaves():
        yield from _command(words, command)


def leaves() -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that can be run, with the words that call it."""
    return _leaves(app, ("lensway",))


def _leaves(parent: App, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    for name in parent:
        if name.startswith("-"):
            continue
        command = parent[name]
        if command.default_command is not None:
            yield (*words, name), command
        # A command with a default of its own may have others below it: `audit`, and `audit verify`.
        yield from _leaves(command, (*words, name))


def missing(page: str) -> Iterator[str]:
    """Each command that the page has no section for."""
    for words, _ in leaves():
        if not re.search(rf"^### `{' '.join(words)}[` ]", page, re.MULTILINE):
            yield " ".join(words)


def _command(words: tuple[str, ...], command: App) -> Iterator[str]:
    arguments = [each for each in command.assemble_argument_collection() if each.show]
    positional = [each for each in arguments if each.required or _is_positional(each)]
    usage = [*words, *(_placeholder(each) for each in positional)]
    summary = (command.default_command.__doc__ or "").partition("\n\n")[0]
    yield f"### `{' '.join(usage)}`"
    yield ""
    yield " ".join(summary.split())
    yield ""
    rows = [each for each in arguments if each not in positional]
    rows = [each for each in rows if (each.names[0], each.parameter.help) not in _EVERYWHERE]
    for each in rows:
        text = " ".join((each.parameter.help or "").split())
        yield f"- `{_option(each)}`" + (f": {text}" if text else "") + _default(each)
    if rows:
        yield ""


def _is_positional(argument: Any) -> bool:
    return argument.field_info.kind.name != "KEYWORD_ONLY" and len(argument.keys) == 0


def _placeholder(argument: Any) -> str:
    if argument.names[0].startswith("--") and argument.field_info.kind.name == "KEYWORD_ONLY":
        return f"{argument.names[0]} {_kind(argument)}"
    name = argument.names[0].removeprefix("--").upper()
    many = "…" if _origin(argument.hint) is list else ""
    return f"{name}{many}" if argument.required else f"[{name}{many}]"


def _option(argument: Any) -> str:
    names = [name for name in argument.names if not name.startswith("--no-")] or argument.names
    return f"{', '.join(names)} {_kind(argument)}".strip()


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
    return "" if any(default is each for each in (None, False, argument.field_info.empty)) else f" Default `{default}`."
