"""`make check`: every check of the house, side by side; the output of those that fail, and a line for each."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tools import docs, english, locks, rooms

_BIN: Final = pathlib.Path(sys.executable).parent
_CODE: Final = ("src", "tests", "tools", "demo", "benchmarks", "proofs")
_PRIVATE_PATH: Final = re.compile(rf"/(?:root|home/\w+|Users/\w+)/|(?<![\w.]){re.escape(str(pathlib.Path.cwd()))}/")
"""Homes, and wherever this checkout lies."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What one check said; no lines is a pass."""

    lines: tuple[str, ...]


def main() -> int:
    """0 when every check passes."""
    code = [path for path in _CODE if pathlib.Path(path).is_dir()]
    checks: dict[str, Callable[[], Outcome]] = {
        "types": lambda: _program("mypy"),
        "format": lambda: _program("ruff", "format", "--check", "--quiet", *code),
        "lint": lambda: _program("ruff", "check", "--quiet", *code),
        "rooms, purity, sizes": lambda: Outcome(tuple(rooms.violations())),
        "import contracts": _import_contracts,
        "spelling": lambda: _program("codespell", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", *code),
        "dead code": lambda: _program("vulture"),
        "lock in step": lambda: Outcome(
            tuple(locks.problems(tomllib.loads(pathlib.Path("pyproject.toml").read_text())))
        ),
        "private paths": lambda: Outcome(tuple(_private_paths())),
        "docs": lambda: Outcome(tuple(docs.problems())),
        "reference": _reference_problems,
        "english": lambda: Outcome(tuple(english.problems_of_pages())),
    }
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = {name: pool.submit(_timed, check) for name, check in checks.items()}
        for name, future in running.items():
            outcome, seconds = future.result()
            print(f"{'FAILED' if outcome.lines else 'ok':<7} {name} ({seconds:.1f} s)", flush=True)
            for line in outcome.lines:
                print(f"    {line}")
            failed += bool(outcome.lines)
    print(f"{len(checks) - failed} checks passed, {failed} failed")
    return 1 if failed else 0


def _reference_problems() -> Outcome:
    # In a process of its own, because it imports the whole program.
    command = [sys.executable, "-m", "tools.reference", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        Outcome(()) if done.returncode == 0 else Outcome(tuple((done.stdout + done.stderr).strip().splitlines()[-20:]))
    )


def _timed(check: Callable[[], Outcome]) -> tuple[Outcome, float]:
    started = time.monotonic()
    return check(), time.monotonic() - started


def _program(name: str, *arguments: str) -> Outcome:
    done = subprocess.run([str(_BIN / name), *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Outcome(())
    return Outcome(tuple((done.stdout + done.stderr).strip().splitlines()[-60:]) or (f"exit {done.returncode}",))


def _import_contracts() -> Outcome:
    # import-linter sees chains of imports that a look at single modules cannot; its contract is made from the same table.
    existing = {path.name.removesuffix(".py") for path in rooms.SOURCE.iterdir()}
    layers = [" | ".join(room for room in line if room in existing) for line in rooms.LAYERS]
    lines = [
        "[importlinter]",
        "root_package = lensway",
        "",
        "[importlinter:contract:rooms]",
        "name = rooms",
        "type = layers",
    ]
    lines += ["containers = lensway", "layers =", *(f"    {layer}" for layer in layers if layer)]
    if "testing" in existing:
        inner = [room for line in rooms.LAYERS for room in line if room in existing]
        lines += ["", "[importlinter:contract:testing]", "name = nobody imports testing", "type = forbidden"]
        lines += [
            "source_modules =",
            *(f"    lensway.{room}" for room in inner),
            "forbidden_modules =",
            "    lensway.testing",
        ]
    config = pathlib.Path(".cache/importlinter.ini")
    config.parent.mkdir(exist_ok=True)
    config.write_text("\n".join(lines) + "\n")
    return _program("lint-imports", "--config", str(config), "--no-cache")


def _tracked() -> Sequence[pathlib.Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False).stdout
    return [pathlib.Path(name) for name in listed.split("\0") if name]


def _private_paths() -> Iterator[str]:
    for path in _tracked():
        if path.name == "LICENSE" or path.suffix in (".lock", ".png", ".ico", ".woff2") or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if _PRIVATE_PATH.search(line) and "_PRIVATE_PATH" not in line:
                yield f"{path}:{number}: names a path of one machine"


if __name__ == "__main__":
    sys.exit(main())
