"""`make mutants`: plants each bug of `tools.planted` in a copy of the tree and says which test notices it. 1 when none does."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tools.planted import PLANTED, SIMULATION, Planted

_SEEDS: Final = 600
"""Scenarios that a planted bug must not survive."""
_SECONDS_MAX: Final = 600.0
"""A test that hangs has noticed too; this is long enough for one that is only slow."""
_COPIED: Final = (
    "src",
    "tests",
    "tools",
    "proofs",
    "benchmarks",
    "demo",
    "docs",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
)


def main() -> int:
    """Plant all, or those whose name has one of the words given; 0 when every one was noticed."""
    words = sys.argv[1:]
    chosen = [each for each in PLANTED if not words or any(word in each.name for word in words)]
    survivors = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for planted, (catcher, seconds) in zip(chosen, pool.map(_try, chosen), strict=True):
            survivors += not catcher
            print(
                f"{'caught' if catcher else 'SURVIVED':<9} {planted.name:<52} {catcher} ({seconds:.0f} s)", flush=True
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} planted bugs were noticed")
    return 1 if survivors else 0


def problems() -> Iterator[str]:
    """Planted bugs that do not fit the tree any more."""
    for planted in PLANTED:
        found = pathlib.Path(planted.file).read_text().count(planted.old)
        if found != 1:
            yield f"{planted.name}: what it replaces in {planted.file} is there {found} times"
        for test in planted.caught_by:
            if test != SIMULATION and not pathlib.Path(test).exists():
                yield f"{planted.name}: {test} is not there"


def _try(planted: Planted) -> tuple[str, float]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lensway-mutant-") as directory:
        tree = pathlib.Path(directory)
        for name in _COPIED:
            source = pathlib.Path(name)
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, tree / name)
        file = tree / planted.file
        file.write_text(file.read_text().replace(planted.old, planted.new))
        catcher = next((test for test in planted.caught_by if not _passes(tree, test)), "")
    return catcher, time.monotonic() - started


def _passes(tree: pathlib.Path, test: str) -> bool:
    command: Sequence[str] = (
        [sys.executable, "-m", "lensway.testing.simulation", "0", str(_SEEDS)]
        if test == SIMULATION
        else [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "xdist",
            "-n",
            "0",
            "--hypothesis-profile=mutants",
            test,
        ]
    )
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, timeout=_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
