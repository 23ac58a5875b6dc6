"""Follows an install page as a reader would: its blocks in order, one shell, with a second terminal for what keeps running."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from lensway.testing.deployment import Process, clean_environment

ROOT: Final = pathlib.Path(__file__).resolve().parents[1]
_BLOCK: Final = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_SECONDS: Final = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    language: str
    text: str


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, all or those of one language."""
    found = [Block(*each) for each in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]
    return [each for each in found if language in (None, each.language)]


class Reader:
    """Somebody at a shell in ``directory``; ``changes`` are the words that a reader replaces by their own."""

    def __init__(self, directory: pathlib.Path, changes: Mapping[str, str]) -> None:
        self.directory = directory
        self.changes = dict(changes)
        self.started: list[Process] = []
        self._environment = directory / "shell.env"
        self._environment.write_text("")

    def type(self, text: str) -> str:
        """Run the lines in the shell, which keeps its variables; what they print. Raises AssertionError when one fails."""
        script = f"set -e\n. {self._environment}\nset -a\n{self.changed(text)}\nexport -p > {self._environment}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self._clean(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def keep_running(self, text: str, until: str) -> Process:
        """Run the lines in another terminal, with the variables of this one, and wait for a line of their output."""
        script = f"set -e\n. {self._environment}\n{self.changed(text)}"
        process = Process("page", ["-c", script], self._clean(), directory=self.directory, program=["bash"])
        self.started.append(process)
        process.wait_line(until)
        return process

    def changed(self, text: str) -> str:
        """The text with the reader's own words."""
        for old, new in self.changes.items():
            text = text.replace(old, new)
        return text

    def close(self) -> None:
        """End what keeps running."""
        for process in reversed(self.started):
            if process.is_running:
                process.kill()

    def _clean(self) -> dict[str, str]:
        found = {
            name: value for name, value in clean_environment().items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")
        }
        # Every program of the page runs once or twice: compiling whole environments costs more than it saves.
        return found | {"PIP_NO_COMPILE": "1"}


def only(found: Sequence[Block], words: str) -> str:
    """The text of the one block that has these words."""
    (block,) = [each for each in found if words in each.text]
    return block.text
