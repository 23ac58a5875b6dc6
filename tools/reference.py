"""`python -m tools.reference`: writes the generated parts of the reference pages. A test compares them with the code."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from lensway import limits
from lensway.api.routes import ROUTES
from lensway.bridges.kit.failures import HINTS
from lensway.bridges.postgres.states import CLASSES, STATES
from lensway.catalog.warnings import WarningCode
from lensway.dispatch.core.jobs import ATTEMPT_TABLE, JOB_TABLE
from lensway.errors import CODES, Retry
from lensway.fleet import SESSION_TABLE, RunnerState
from lensway.ways.remedies import TEXTS
from tools import client_reference, commands, declarations, exceptions, settings_reference, type_table

_LIMITS_FILE: Final = pathlib.Path(limits.__file__)
_RETRY_WORDS: Final = {Retry.NEVER: "no", Retry.LATER: "later", Retry.SAFE: "at once"}
_WARNINGS: Final = {
    WarningCode.SINGLE_RUNNER: "One instance serves a source alone. Assign a second runner, or start a second instance.",
    WarningCode.REPLICAS_DIFFER: "Runners that should serve the same sources do not. Assign the missing sources.",
    WarningCode.RUNNER_OFFLINE: "An assigned runner is not online. Start it, or see why: `lensway runner doctor`.",
    WarningCode.RUNNER_UNREACHABLE: "A runner cannot reach a database. Test the connection: it names the stage.",
    WarningCode.BRIDGE_MISSING: "A runner lacks the driver of a source. Install it on the runner's machine.",
    WarningCode.CREDENTIALS_MISSING: "A runner has no settings for a source. Set `LENSWAY_SOURCE_<NAME>_URL` in the runner's "
    "environment.",
    WarningCode.NO_LIVE_RUNNER_LEFT: "No runner of a source is online: its queries fail until one comes online.",
    WarningCode.GOES_INLINE: "A source lost its last runner: the service itself now executes its queries.",
}
_STATES: Final = {
    RunnerState.NEVER_CONNECTED: "The runner has never connected.",
    RunnerState.CONNECTING: "The runner is connected, and its assignments take effect in a moment.",
    RunnerState.HEALTHY: "The runner is connected, its assignments are in force, and every source is usable.",
    RunnerState.DEGRADED: "The runner serves, but a source, an instance or its assignments have a problem; the cause names it.",
    RunnerState.SUSPECT: "The runner does not answer. It gets work only if no other runner can do it, and is lost if it "
    "stays silent.",
    RunnerState.DRAINING: "The runner takes no new work: an operator drained it, or it is stopping.",
    RunnerState.OFFLINE: "The runner is not connected; its status shows since when and why.",
    RunnerState.REVOKED: "Its tokens are invalid. Rotate the token to reactivate it.",
}


def errors() -> Iterator[str]:
    """The table of codes."""
    yield "| code | status | repeat | exit code | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for code, facts in CODES.items():
        repeat = _RETRY_WORDS[facts.retry]
        yield f"| `{code.value}` | {facts.status} | {repeat} | {facts.exit_code} | {facts.meaning} |"


def classes() -> Iterator[str]:
    """The classes of SOURCE_UNREACHABLE."""
    yield "| class | what to do |"
    yield "| --- | --- |"
    for name, hint in HINTS.items():
        yield f"| `{name}` | {hint} |"


def states_of_postgres() -> Iterator[str]:
    """What each SQLSTATE of PostgreSQL means."""
    yield "| SQLSTATE | code | class | meaning | what to do | repeatable |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for names in (STATES, {f"{prefix}…": state for prefix, state in CLASSES.items()}):
        for sqlstate, state in names.items():
            repeat = "yes" if state.is_repeatable else "no"
            what = f"{state.message}. | {state.hint or ''}"
            yield f"| `{sqlstate}` | `{state.code.value}` | `{state.cause}` | {what} | {repeat} |"


def bounds() -> Iterator[str]:
    """Every bound with its value and reason."""
    tree = ast.parse(_LIMITS_FILE.read_text(encoding="utf-8"))
    yield "| bound | value | |"
    yield "| --- | --- | --- |"
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        reason = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            reason = " ".join(str(following.value.value).split())
        yield f"| `{node.target.id}` | {_shown(node.target.id)} | {reason} |"


def _shown(name: str) -> str:
    value = getattr(limits, name)
    if "BYTES" in name or name in ("KIB", "MIB", "GIB"):
        for size, unit in ((limits.GIB, "GiB"), (limits.MIB, "MiB"), (limits.KIB, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size:,} {unit}"
    if "SECONDS" in name:
        return f"{value:g} s"
    if "_MS" in name:
        return f"{value:,} ms"
    return f"{value:,}"


def routes() -> Iterator[str]:
    """The table of routes."""
    yield "| method | path | who | what | parameters |"
    yield "| --- | --- | --- | --- | --- |"
    for route in ROUTES:
        params = "; ".join(f"`{param.name}` {param.description}" for param in route.params)
        yield f"| {route.method} | `{route.path}` | {route.access.value} | {route.summary} | {params} |"


def warnings() -> Iterator[str]:
    """The warning codes."""
    yield "| warning | meaning, and what to do |"
    yield "| --- | --- |"
    for code in WarningCode:
        yield f"| `{code.value}` | {_WARNINGS[code]} |"


def states() -> Iterator[str]:
    """The states of a runner."""
    yield "| status | meaning |"
    yield "| --- | --- |"
    for state in RunnerState:
        yield f"| `{state.value}` | {_STATES[state]} |"


def causes() -> Iterator[str]:
    """The causes of a failed dial."""
    what = {
        "what": "gateway", "place": "HOST:PORT", "host": "HOST", "setting": "the URL",
        "scheme": "one scheme", "other": "the other",
        "proxy": "PROXY", "variable": "its variable", "cas": "that is trusted here", "status": "N", "now": "one time",
        "peer_date": "another", "since": " on DAY", "from": " before DAY", "via": "", "port": "PORT",
        "add_ca": "Set `LENSWAY_CA_FILE` (`ca_file` in Python) to the CA that signed it, or correct that file",
    }  # fmt: skip
    yield "| code | what is wrong | what to do |"
    yield "| --- | --- | --- |"
    for code, (line, remedy) in TEXTS.items():
        yield f"| `{code}` | {line.format_map(what)} | {remedy.format_map(what)} |"


def machines() -> Iterator[str]:
    """The state machines of dispatch."""
    for table in (JOB_TABLE, ATTEMPT_TABLE, SESSION_TABLE):
        yield f"### {table.name}"
        yield ""
        yield "```mermaid"
        yield table.mermaid().rstrip()
        yield "```"
        yield ""


PARTS: Final[Mapping[str, tuple[str, Callable[[], Iterator[str]]]]] = {
    "commands": ("docs/reference/commands.md", commands.commands),
    "errors": ("docs/reference/errors.md", errors),
    "client": ("docs/reference/client.md", client_reference.methods),
    "exceptions": ("docs/reference/client.md", exceptions.table),
    "states-of-postgres": ("docs/reference/errors.md", states_of_postgres),
    "classes": ("docs/reference/errors.md", classes),
    "limits": ("docs/reference/limits.md", bounds),
    "routes": ("docs/reference/http.md", routes),
    "warnings": ("docs/how-to/operations.md", warnings),
    "states": ("docs/how-to/operations.md", states),
    "settings-server": ("docs/reference/settings.md", settings_reference.server),
    "settings-secrets": ("docs/reference/settings.md", settings_reference.secrets),
    "settings-runner": ("docs/reference/settings.md", settings_reference.runner),
    "settings-client": ("docs/reference/settings.md", settings_reference.client),
    "settings-network": ("docs/reference/settings.md", settings_reference.network),
    "causes": ("docs/how-to/troubleshooting.md", causes),
    "machines": ("docs/explanation/dispatch.md", machines),
    "types": ("docs/reference/types.md", type_table.rows),
    **{
        name: ("docs/reference/declarations.md", functools.partial(declarations.table, name))
        for name in declarations.TABLES
    },
}


def written(page: str, name: str, lines: Iterator[str]) -> str:
    """The page's text with this part made new. Raises ValueError when its marks are missing."""
    start, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no marks for {name}")
    part = "\n".join((start, "", *lines, "", end))
    return pattern.sub(lambda _match: part, page)


def problems() -> Iterator[str]:
    """The parts that are not what the code says, and the commands that the page of commands lacks."""
    for name, (path, make) in PARTS.items():
        page = pathlib.Path(path).read_text(encoding="utf-8")
        if written(page, name, make()) != page:
            yield f"{path}: the part {name!r} is not what the code says; run python -m tools.reference"
    if exceptions.TARGET.read_text(encoding="utf-8") != exceptions.source():
        yield f"{exceptions.TARGET} is not what the table of codes says; run python -m tools.reference"
    path, _ = PARTS["commands"]
    for command in commands.missing(pathlib.Path(path).read_text(encoding="utf-8")):
        yield f"{path}: no section for `{command}`"


def main() -> int:
    """Write every part; with `--check`, only compare."""
    if "--check" in sys.argv:
        found = list(problems())
        print("\n".join(found))
        return 1 if found else 0
    for name, (path, make) in PARTS.items():
        page = pathlib.Path(path)
        page.write_text(written(page.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
    exceptions.TARGET.write_text(exceptions.source(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
