"""The one table of rooms, from high to low, and the contracts that follow from it.

A room imports only what stands below it; rooms on one line do not import each other.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator
from typing import Final

from lensway.kinds import BUILT_IN, DIALECTS, Kind

SOURCE: Final = pathlib.Path("src/lensway")

LAYERS: Final[tuple[tuple[str, ...], ...]] = (
    ("__main__",),
    ("cli",),
    ("compose",),
    ("service", "console", "gateway", "runner"),
    ("usecases", "inline", "peers"),
    ("client", "store", "dispatch"),
    ("auth", "fleet"),
    ("catalog", "bridges"),
    ("dialects",),
    ("query", "protocol", "observe"),
    ("api",),
    ("ids", "ways"),
    ("kinds", "errors", "clock", "hosts", "limits", "transitions"),
)
APART: Final[dict[str, frozenset[str]]] = {"usecases": frozenset({"store", "client"})}
"""Rooms below that a room must not import all the same: use cases know the ports of the catalog, not the store."""
ASIDE: Final = frozenset({"testing"})
"""May import every room; no room imports it."""

PURE: Final = (
    "protocol",
    "query",
    "dialects",
    "kinds",
    "transitions",
    "api",
    "catalog",
    "fleet",
    "dispatch/core",
    "client/core",
)
"""Path prefixes below the package that hold neither waiting nor time nor chance nor I/O."""
IMPURE_IMPORTS: Final = frozenset(
    {
        "asyncio",
        "threading",
        "time",
        "random",
        "secrets",
        "logging",
        "structlog",
        "os",
        "socket",
        "subprocess",
        "tempfile",
        "shutil",
        "select",
        "ssl",
        "sqlite3",
        "asyncpg",
        "httpx2",
        "websockets",
        "sqlalchemy",
        "concurrent",
        "multiprocessing",
    }
)

DRIVERS: Final[dict[str, tuple[str, ...]]] = {
    "pyarrow": ("bridges/encoding/", "client/arrow"),
    "sqlite3": ("store/",),
    "sqlalchemy": ("store/",),
    "alembic": ("store/",),
    "starlette": ("service/", "console/", "compose/"),
    "uvicorn": ("service/", "console/", "compose/"),
    "jinja2": ("console/",),
    "websockets": ("gateway/", "runner/", "compose/"),
    "httpx2": ("client/",),
    "nanoarrow": ("client/arrow",),
    "pandas": ("client/arrow",),
    "polars": ("client/arrow",),
    "prometheus_client": ("observe/",),
    "sqlglot": ("dialects/",),
    "joserfc": ("auth/", "store/"),
}
"""Which paths below the package may import a library that belongs to one room. Drivers follow from the declarations of kinds."""

_KINDS_MAY_BE_NAMED: Final = ("kinds.py", "store/", "testing/")
"""Besides the packages of a kind's bridge and dialect."""


def _homes(kind: Kind) -> tuple[str, ...]:
    """The paths below the package that belong to one kind: its bridge, and the modules of its dialects."""
    bridge = (kind.adapter or "").partition(":")[0].removeprefix("lensway.").rpartition(".")[0].replace(".", "/")
    dialects = tuple(DIALECTS[name].removeprefix("lensway.").replace(".", "/") for name in kind.dialects)
    return (*((bridge + "/",) if bridge else ()), *dialects)


def owners(library: str) -> tuple[str, ...] | None:
    """The paths below the package that may import this library; None for one that every room may import."""
    kinds = [kind for kind in BUILT_IN if library in kind.drivers or library in kind.accelerators]
    rooms = DRIVERS.get(library, ())
    if not kinds and library not in DRIVERS:
        return None
    return (*rooms, "testing/", *(home for kind in kinds for home in _homes(kind)))


MODULE_LINES_MAX: Final = 600
FUNCTION_CODE_LINES_MAX: Final = 60


def room_of(path: pathlib.Path) -> str:
    """The room that a module stands in."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules() -> list[pathlib.Path]:
    """Every module of the package."""
    return sorted(SOURCE.rglob("*.py"))


def violations() -> Iterator[str]:
    """Everything in the package that breaks the table or a budget, one line each."""
    for path in modules():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        yield from _import_violations(path, tree)
        yield from _purity_violations(path, tree)
        yield from _size_violations(path, tree, text)
        yield from _kind_violations(path, tree)


def _level(room: str) -> int | None:
    for number, line in enumerate(LAYERS):
        if room in line:
            return number
    return None


def _imports(tree: ast.AST, path: pathlib.Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "RELATIVE"
            elif node.module and node.module.partition(".")[0] == "lensway":
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            elif node.module:
                yield node.lineno, node.module


def _import_violations(path: pathlib.Path, tree: ast.AST) -> Iterator[str]:
    room = room_of(path)
    if room == "__init__":
        return
    level = _level(room)
    if level is None and room not in ASIDE:
        yield f"{path}: room {room!r} is not in the table (tools/rooms.py)"
        return
    inside = path.relative_to(SOURCE).as_posix()
    for line, name in _imports(tree, path):
        if name == "RELATIVE":
            yield f"{path}:{line}: relative import; rooms are imported by their full name"
        top = name.partition(".")[0]
        allowed = owners(top)
        if allowed is not None and not inside.startswith(allowed):
            yield f"{path}:{line}: {top} belongs to {', '.join(allowed)}"
        if top != "lensway" or "." not in name or room in ASIDE:
            continue
        target = name.split(".")[1]
        if target in ("__version__", room):
            if room == "compose" and _is_other_root(inside, name):
                yield f"{path}:{line}: composition roots do not import each other"
            continue
        below = _level(target)
        if target in APART.get(room, ()) or target in ASIDE or below is None or level is None or below <= level:
            yield f"{path}:{line}: {room} imports {target}, which does not stand below it"


def _is_other_root(inside: str, name: str) -> bool:
    own = inside.removeprefix("compose/").removesuffix(".py")
    return {own, name.split(".")[2] if name.count(".") >= 2 else ""} == {"server", "runner"}


def _purity_violations(path: pathlib.Path, tree: ast.AST) -> Iterator[str]:
    inside = path.relative_to(SOURCE).as_posix()
    if not any(inside.startswith(prefix + "/") or (inside.startswith(prefix) and "/core" in prefix) for prefix in PURE):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)):
            yield f"{path}:{node.lineno}: pure rooms do not wait"
    for line, name in _imports(tree, path):
        if name.partition(".")[0] in IMPURE_IMPORTS:
            yield f"{path}:{line}: pure rooms do not import {name}"


def _kind_violations(path: pathlib.Path, tree: ast.AST) -> Iterator[str]:
    """A kind of database is named in its declaration and at home, nowhere else: adding one touches no other place."""
    inside = path.relative_to(SOURCE).as_posix()
    if inside.startswith(_KINDS_MAY_BE_NAMED):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            kind = BUILT_IN.get(node.value)
            if kind is not None and not inside.startswith(_homes(kind) or ("-",)):
                yield f"{path}:{node.lineno}: names the kind {node.value!r}; ask its declaration (lensway/kinds.py) instead"


def _is_table(tree: ast.AST) -> bool:
    """A flat list of constants, such as the limits: nothing in it depends on what stands above."""
    flat = (ast.Import, ast.ImportFrom, ast.AnnAssign, ast.Expr)
    return isinstance(tree, ast.Module) and all(isinstance(node, flat) for node in tree.body)


def _size_violations(path: pathlib.Path, tree: ast.AST, text: str) -> Iterator[str]:
    lines = text.splitlines()
    if len(lines) > MODULE_LINES_MAX and not _is_table(tree):
        yield f"{path}: {len(lines)} lines; {MODULE_LINES_MAX} is the hard stop"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            count = _code_lines(node, lines)
            if count > FUNCTION_CODE_LINES_MAX:
                yield f"{path}:{node.lineno}: {node.name} has {count} code lines; {FUNCTION_CODE_LINES_MAX} is the hard stop"


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    first = node.body[0]
    is_documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    start = first.end_lineno if is_documented else node.lineno
    body = lines[(start or node.lineno) : node.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in body)
