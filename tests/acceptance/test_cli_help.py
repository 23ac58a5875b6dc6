"""Help that reads like a manual and comes at once, and completion that knows what the server has."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from lensway.cli import manual
from lensway.cli.main import run
from lensway.cli.program import app
from lensway.testing.deployment import clean_environment

pytestmark = pytest.mark.acceptance

COMPLETE = """
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p lensway | sed -E 's/.*-F ([^ ]+).*/\\1/')
"$function" lensway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_the_page_names_every_command_and_every_way_to_end() -> None:
    page = manual.page()
    for name in app:
        if not name.startswith("-"):
            assert re.search(rf"^    {name} +[A-Z]", page, re.MULTILINE), name
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES"):
        assert f"\n{heading}" in f"\n{page}"
    assert max(map(len, page.splitlines())) <= 80


def test_the_page_needs_none_of_the_libraries_of_commands() -> None:
    program = (
        "import sys; from lensway.cli import main; main.run(['--help']);"
        "slow = {'cyclopts', 'rich', 'httpx2', 'msgspec', 'asyncio', 'importlib.metadata'} & set(sys.modules);"
        "print(sorted(slow), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == manual.page()
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("runners", "--help"), ("keys", "create", "-h")])
def test_help_exits_0_and_is_plain_in_a_pipe(capsys: pytest.CaptureFixture, arguments: tuple[str, ...]) -> None:
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "╭" not in shown
    assert "Traceback" not in shown


def test_completion_knows_the_names_of_the_server(stage, tmp_path: pathlib.Path) -> None:
    stage.runner("alpha", start=False)
    script = tmp_path / "lensway.bash"
    script.write_text(app.generate_completion(shell="bash"))
    (tmp_path / "lensway").write_text(f'#!/bin/sh\nexec {sys.executable} -m lensway.cli.main "$@"\n')
    (tmp_path / "lensway").chmod(0o755)
    environment = clean_environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"LENSWAY_URL": stage.deployment.url, "LENSWAY_API_KEY": stage.deployment.admin_key}

    def completed(*words: str, **changed: str) -> list[str]:
        command = ["bash", "-c", COMPLETE, "bash", str(script), "lensway", *words]
        done = subprocess.run(
            command, env=environment | changed, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("query", stage.lens) == [stage.lens]
    assert completed("runners", "assign", stage.name("alpha"), stage.source) == [stage.source]
    assert completed("sources", "test", stage.source, "--runner", stage.source) == [stage.name("alpha")]
    assert completed("runners", "unas") == ["unassign"]
    assert completed("query", stage.lens, LENSWAY_API_KEY="ak_" + "w" * 43) == [], "a failure completes nothing"
    assert completed("query", stage.lens, LENSWAY_URL="http://127.0.0.1:1") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_asks_the_program(shell: str) -> None:
    assert "__complete" in app.generate_completion(shell=shell)
