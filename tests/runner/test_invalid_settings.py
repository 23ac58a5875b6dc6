"""Local settings that are there and cannot be used are told as what they are, by variable and never by value."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from lensway.bridges.library import ExecutionLibrary
from lensway.fleet.sessions import INVALID_SETTINGS
from lensway.protocol.frames import AssignedSource
from lensway.runner.credentials import LocalCredentials
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.sources import AssignedSources

SECRET = "s3cret-passw0rd"
URL = f"postgresql://reader:{SECRET}@db/shop"


class Nothing:
    def open(self, source: AssignedSource) -> dict[str, object]:
        return {}


def state_of(environment: dict[str, str]) -> tuple[str, str]:
    local = LocalCredentials(environment)
    sources = AssignedSources(ExecutionLibrary(LocalPolicy().address_policy()), local, PolicyInForce(LocalPolicy()))
    assigned = AssignedSource(source="src_a", name="main", bridge="postgres", config_version=0)
    asyncio.run(sources.apply([assigned], Nothing()))
    (state,) = sources.states()
    return state.state, state.cause


def file(directory: pathlib.Path, content: bytes) -> str:
    (directory / "url").write_bytes(content)
    return str(directory / "url")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("URL", "", "LENSWAY_SOURCE_MAIN_URL is set and empty"),
        ("URL", "   ", "LENSWAY_SOURCE_MAIN_URL is set and empty"),
        ("URL", '"' + URL, "LENSWAY_SOURCE_MAIN_URL begins with a quotation mark"),
        ("URL", "“" + URL + "”", "LENSWAY_SOURCE_MAIN_URL begins with a quotation mark"),
        ("URL", URL + " extra", "LENSWAY_SOURCE_MAIN_URL holds white space"),
        ("URL", "mysql://u@h/db", "must begin with postgresql://"),
        ("URL_FILE", "/nowhere/url", "LENSWAY_SOURCE_MAIN_URL_FILE names /nowhere/url, which does not exist"),
        ("URL_FILE", b"", "which is empty"),
        ("URL_FILE", b"\xff\xfe\x00", "which is not text in UTF-8"),
        ("URL_FILE", "/", "LENSWAY_SOURCE_MAIN_URL_FILE names /, which this user cannot read"),
        ("COLOUR", "blue", "LENSWAY_SOURCE_MAIN_COLOUR: unknown setting"),
        ("SSLMODE", "perhaps", "LENSWAY_SOURCE_MAIN_SSLMODE: must be one of"),
    ],
)
def test_what_is_wrong_is_said_with_its_variable(
    tmp_path: pathlib.Path, variable: str, value: str | bytes, said: str
) -> None:
    environment = {"LENSWAY_SOURCE_MAIN_URL": URL} if not variable.startswith("URL") else {}
    environment[f"LENSWAY_SOURCE_MAIN_{variable}"] = file(tmp_path, value) if isinstance(value, bytes) else value
    state, cause = state_of(environment)
    assert state == "no_credentials"
    assert cause.startswith(f"{INVALID_SETTINGS}: "), cause
    assert said in cause
    assert SECRET not in cause


@pytest.mark.parametrize(
    "content",
    [URL.encode() + b"\r\n", b"\xef\xbb\xbf" + URL.encode(), b'"' + URL.encode() + b'"\n', b"'" + URL.encode() + b"'"],
)
def test_what_editors_leave_around_a_value_is_taken_away(tmp_path: pathlib.Path, content: bytes) -> None:
    assert state_of({"LENSWAY_SOURCE_MAIN_URL_FILE": file(tmp_path, content)}) == ("ready", "")
    assert state_of({"LENSWAY_SOURCE_MAIN_URL": content.decode()}) == ("ready", "")


def test_nothing_at_all_is_still_no_credentials() -> None:
    assert state_of({}) == ("no_credentials", "")
