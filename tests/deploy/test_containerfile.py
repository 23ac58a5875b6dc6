"""What the Containerfile promises, as far as its text tells; the page on containers says what was built with it."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of those it builds on."""
    found: list[tuple[str, str]] = []
    base = name
    for each in reversed(re.split(r"^(?=FROM )", TEXT, flags=re.MULTILINE)[1:]):
        header, *lines = [line for line in each.splitlines() if line.strip() and not line.startswith("#")]
        matched = re.fullmatch(r"FROM (\S+) AS (\S+)", header)
        assert matched, header
        if matched[2] == base:
            base = matched[1]
            found = [tuple(line.split(maxsplit=1)) for line in lines] + found  # type: ignore[misc]
    assert base == "${BASE}"
    return found


@pytest.mark.parametrize("name", ["runner", "server"])
def test_the_image_runs_the_program_itself_as_a_number_that_is_not_root(name: str) -> None:
    instructions = stage(name)
    last = dict(instructions)
    user = last["USER"].split(":")[0]
    assert user.isdecimal()
    assert int(user) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["lensway"], "a shell would be process 1 and keep SIGTERM"
    assert json.loads(last["CMD"])[0] == {"runner": "runner", "server": "serve"}[name]
    assert "HEALTHCHECK" not in last, "images in the OCI format have none; compose and the chart check"
    copied = [text for word, text in instructions if word == "COPY"]
    assert copied == [f"--from=build-{name} /opt/lensway /opt/lensway"], "neither sources nor build tools"


def test_everything_is_installed_by_hash() -> None:
    for line in re.findall(r"pip install ([^&\n]+)", TEXT):
        assert "--require-hashes" in line or line.split()[-1] == "dist/*.whl", line
    for lock in re.findall(r"-r (\S+)", TEXT):
        assert (ROOT / lock).exists()
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert ignored[0] == "*", "only what is named reaches the build"
    assert not {"!demo", "!tests", "!.git", "!."} & set(ignored)
