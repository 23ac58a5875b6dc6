"""`lensway push` and `pull`: the declaration of an environment as a file."""

from __future__ import annotations

import json
import os
import pathlib
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from lensway.api.shapes import PushChange
from lensway.cli import output, report, target, toml
from lensway.errors import ErrorCode, LenswayError

_VARIABLE: Final = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{")
_MARK: Final = {"created": "+", "changed": "~", "removed": "-", "unchanged": "="}

_To = target.Target
_DIFFERS_EXIT: Final = 3
"""`--exit-code`: the file and the server differ. 1 and 2 stay what they are everywhere: a failure, and a wrong use."""


def push(
    file: pathlib.Path,
    *,
    dry_run: Annotated[bool, Parameter(negative=(), help="Show the difference without changing anything.")] = False,
    prune: Annotated[bool, Parameter(negative=(), help="Remove objects that the file does not name.")] = False,
    exit_code: Annotated[
        bool, Parameter(negative=(), help="Exit with 3 when something differs, applied or not.")
    ] = False,
    to: _To = target.DEFAULT,
) -> int:
    """Apply a declaration in one transaction: TOML, or the output of `pull`. ${VAR} comes from this environment; $$ is $."""
    document = read_declaration(file, os.environ)
    params = {name: "true" for name, is_set in (("dryRun", dry_run), ("prune", prune)) if is_set}
    with to.client() as client:
        answer = client.call("POST", "/v1/push", document, params=params)
    changed = sum(change["action"] != "unchanged" for change in answer["changes"])
    code = _DIFFERS_EXIT if exit_code and changed else 0
    if to.form == "json":
        report.write_json(answer)
        return code
    if to.form != "table":
        output.write_data(to.form, answer["changes"], fields=output.fields_of(PushChange))
        return code
    for change in answer["changes"]:
        if change["action"] != "unchanged":
            note = f" ({change['details']})" if change.get("details") else ""
            report.write_line(f"{_MARK[change['action']]} {change['kind']} {change['name']}{note}")
    report.write_line(
        f"{changed} changed, {len(answer['changes']) - changed} unchanged" + (" (dry run)" if dry_run else "")
    )
    report.write_warnings(answer.get("warnings", ()))
    return code


def pull(*, to: _To = target.DEFAULT) -> None:
    """Print the server's declaration, without any config."""
    if to.asked not in (None, "json", "table"):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"a declaration has no form {to.asked}", hint="`lensway pull` prints JSON."
        )
    with to.client() as client:
        report.write_json(_unexpanded(client.call("GET", "/v1/config")))


def read_declaration(file: pathlib.Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The file as the server takes it, variables expanded.

    Raises:
        LenswayError: INVALID_REQUEST with the line of a syntax error, or naming every unset variable.
    """
    try:
        text = file.read_text(encoding="utf-8")
        # What `pull` prints is JSON; it can be pushed as it is. No TOML begins with a brace.
        document = _json(text, file) if text.lstrip().startswith("{") else tomllib.loads(text)
    except OSError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{file}: {error}") from None
    if not document:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{file} declares nothing: it is empty, or holds only comments",
            hint="Declare sources and lenses in it; `lensway pull` prints what the server has.",
        )
    unset: list[str] = []
    expanded = _expand(document, environment, unset)
    if unset:
        names = ", ".join(dict.fromkeys(unset))
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{file} needs variables that are not set: {names}",
            hint="Nothing was sent. Export them and push again ($$ stands for a literal $).",
        )
    assert isinstance(expanded, dict)
    return expanded


def _json(text: str, file: pathlib.Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{file}: {error}") from None


def _expand(value: object, environment: Mapping[str, str], unset: list[str]) -> object:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _replacement(match, environment, unset), value)
    if isinstance(value, dict):
        return {key: _expand(item, environment, unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, environment, unset) for item in value]
    return value


def _unexpanded(value: object) -> object:
    """The value with every text in the form that pushing it expands to what it is."""
    if isinstance(value, str):
        return toml.unexpanded(value)
    if isinstance(value, dict):
        return {key: _unexpanded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unexpanded(item) for item in value]
    return value


def _replacement(match: re.Match[str], environment: Mapping[str, str], unset: list[str]) -> str:
    if match[0] == "$$":
        return "$"
    name = match[1] or ""
    if name not in environment:
        unset.append(name or "${ without a closing brace")
        return ""
    return environment[name]
