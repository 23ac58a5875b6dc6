"""The sources that a runner serves: those of the newest set, and nothing of an older one."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from lensway.auth.sealing import InstanceKeys
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import ExecutionLibrary
from lensway.protocol.frames import AssignedSource, RefuseReason
from lensway.runner.credentials import LocalCredentials
from lensway.runner.policy import LocalPolicy, PolicyInForce
from lensway.runner.sources import READY, UNREACHABLE, AssignedSources, Opener
from lensway.testing.simulation.database import FakeLibrary


def assigned(name: str, *, version: int = 0, bridge: str = "postgres") -> AssignedSource:
    return AssignedSource(source=f"src_{name}", name=name, bridge=bridge, config_version=version)


@pytest.fixture
def opener() -> Opener:
    return Opener(keys=InstanceKeys.generate(), environment="env", runner="run", wall_ms=lambda: 0)


def sources(**settings: str) -> AssignedSources:
    library = FakeLibrary("here", None, {})
    return AssignedSources(library, LocalCredentials(settings), PolicyInForce(LocalPolicy()))


def test_a_source_that_is_not_in_the_newest_set_is_not_served_and_its_connections_close(opener: Opener) -> None:
    served = sources(LENSWAY_SOURCE_MAIN_HOST="x", LENSWAY_SOURCE_SIDE_HOST="y")
    assert asyncio.run(served.apply([assigned("main"), assigned("side")], opener)) == []
    key = served.get("src_side").key
    assert asyncio.run(served.apply([assigned("main")], opener)) == [key]
    assert served.get("src_side") is None
    assert [each.source for each in served.states()] == ["src_main"]


def test_what_is_known_of_a_source_outlives_a_set_that_does_not_change_it(opener: Opener) -> None:
    served = sources(LENSWAY_SOURCE_MAIN_HOST="x")
    asyncio.run(served.apply([assigned("main")], opener))
    served.note("src_main", UNREACHABLE, "tcp refused")
    asyncio.run(served.apply([assigned("main")], opener))
    assert served.get("src_main").state == UNREACHABLE
    asyncio.run(served.apply([assigned("main", version=1)], opener))
    assert served.get("src_main").state == READY, "other settings: nothing is known of them"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (assigned("other"), RefuseReason.NO_CREDENTIALS),
        (assigned("main", bridge="oracle"), RefuseReason.NO_BRIDGE),
        (assigned("main"), None),
    ],
)
def test_what_cannot_be_served_says_why(source: AssignedSource, reason: RefuseReason | None, opener: Opener) -> None:
    served = sources(LENSWAY_SOURCE_MAIN_HOST="x")
    asyncio.run(served.apply([source], opener))
    assert served.get(source.source).refusal is reason


def test_files_are_read_again_when_a_login_fails_and_at_once_when_they_name_another_place(
    opener: Opener, tmp_path: pathlib.Path
) -> None:
    url, password = tmp_path / "url", tmp_path / "password"
    url.write_text("postgresql://u:one@h/d")
    password.write_text("one")
    served = sources(LENSWAY_SOURCE_MAIN_URL_FILE=str(url), LENSWAY_SOURCE_SIDE_PASSWORD_FILE=str(password))
    asyncio.run(served.apply([assigned("main"), assigned("side")], opener))
    main, side = served.get("src_main"), served.get("src_side")
    url.write_text("postgresql://u:two@h/d")
    password.write_text("two")
    assert served.refresh(has_failed=False) == [], "what works is left as it is"
    assert set(served.refresh(has_failed=True)) == {main.key, side.key}
    assert served.get("src_main").config["url"] == "postgresql://u:two@h/d"
    assert served.get("src_side").config["password"] == "two"
    # Another login or place, half written, empty, gone.
    url.write_text("postgresql://v:two@h/d")
    assert served.refresh(has_failed=False)
    assert served.get("src_main").config["url"] == "postgresql://v:two@h/d"
    for change in (lambda: url.write_text(""), url.unlink):
        change()
        assert served.refresh(has_failed=True) == []
        assert served.get("src_main").config["url"] == "postgresql://v:two@h/d"
    assert {state.source for state in served.take_changes()} == {"src_main", "src_side"}
    # A source that is not reachable takes what there is.
    password.write_text("three")
    served.note("src_side", UNREACHABLE, "login password")
    assert served.refresh(has_failed=False)
    assert served.get("src_side").state == READY


def test_a_source_in_a_dialect_that_the_bridge_does_not_speak_is_not_served(opener: Opener) -> None:
    async def run() -> None:
        library = ExecutionLibrary(AddressPolicy())
        local = LocalCredentials(
            {"LENSWAY_SOURCE_MAIN_URL": "postgresql://u@h/d", "LENSWAY_SOURCE_SIDE_URL": "postgresql://u@h/d"}
        )
        served = AssignedSources(library, local, PolicyInForce(LocalPolicy()))
        spoken = AssignedSource(source="src_main", name="main", bridge="postgres", config_version=0, dialect="postgres")
        other = AssignedSource(source="src_side", name="side", bridge="postgres", config_version=0, dialect="mariadb")
        await served.apply([spoken, other], opener)
        assert served.get("src_main").state == READY
        assert served.get("src_side").refusal is RefuseReason.NO_BRIDGE
        assert served.get("src_side").cause == "postgres without dialect mariadb"
        await library.close()

    asyncio.run(run())
