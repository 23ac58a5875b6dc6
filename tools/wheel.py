"""An environment as a user has it: nothing but a wheel of this checkout and what its extras name."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Final

UV: Final = pathlib.Path(sys.executable).parent / "uv"


def build(folder: pathlib.Path, *, source: pathlib.Path = pathlib.Path()) -> pathlib.Path:
    """Run `make dist`'s builder on ``source`` into ``folder``; the wheel's path."""
    command = [sys.executable, "-m", "tools.dist", str(folder.resolve())]
    subprocess.run(command, cwd=source, env=_environment(), stdout=subprocess.DEVNULL, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: pathlib.Path, folder: pathlib.Path, *extras: str, python: str = sys.executable) -> pathlib.Path:
    """Make a virtual environment that holds the wheel with these extras at the pinned versions; its `bin` directory.

    Bytecode is compiled as pip does: an unprivileged user cannot write it, and would compile at every start.

    uv installs here because it takes a second where pip takes ten; the install page and its test use pip.
    """
    wanted = f"lensway[{','.join(extras)}] @ {wheel.resolve().as_uri()}" if extras else str(wheel.resolve())
    binaries = folder / "bin"
    environment = _environment()
    lock = pathlib.Path("requirements.lock").resolve()
    for command in (
        [python, "-m", "venv", "--without-pip", str(folder)],
        [
            str(UV),
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            str(binaries / "python"),
            "--constraint",
            str(lock),
            wanted,
        ],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
    return binaries


def _environment() -> dict[str, str]:
    """This process's environment without what points Python at this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
