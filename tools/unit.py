"""`make unit`: every test that needs no process, no database server, no browser and no installed package, in less than 20 s.

A plugin for pytest. `TESTS` names folders and files; in them a test that starts a process or uses the network fails, so that none
gets in by mistake. A test that has to is marked `outside` and left out.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import pytest

TESTS: Final = (
    "tests/api/test_negotiation.py",
    "tests/auth",
    "tests/bridges/test_addresses.py",
    "tests/bridges/test_nested_rows.py",
    "tests/catalog/test_declaration.py",
    "tests/catalog/test_warnings.py",
    "tests/cli",
    "tests/client/test_core.py",
    "tests/compose/test_wall_clock.py",
    "tests/console",
    "tests/dialects/test_compile.py",
    "tests/dialects/test_keyset.py",
    "tests/dispatch/test_failover.py",
    "tests/dispatch/test_overflow.py",
    "tests/dispatch/test_right_of_way.py",
    "tests/dispatch/test_ways_back.py",
    "tests/docs",
    "tests/fleet/test_features.py",
    "tests/fleet/test_recall.py",
    "tests/fleet/test_selection.py",
    "tests/fleet/test_status.py",
    "tests/house/test_small_texts.py",
    "tests/observe/test_lines.py",
    "tests/observe/test_log.py",
    "tests/observe/test_metrics.py",
    "tests/protocol",
    "tests/query",
    "tests/runner/test_agent.py",
    "tests/runner/test_backoff.py",
    "tests/runner/test_credentials.py",
    "tests/runner/test_hidden_tables.py",
    "tests/runner/test_probes.py",
    "tests/runner/test_settings.py",
    "tests/runner/test_sources.py",
    "tests/runner/test_told.py",
    "tests/service/test_believing.py",
    "tests/service/test_compression.py",
    "tests/service/test_hub.py",
    "tests/service/test_inline.py",
    "tests/service/test_ring.py",
    "tests/service/test_tally.py",
)
_FORBIDDEN: Final = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "socket.connect"})
_guard: Final = {"is_on": False}


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if _guard["is_on"] and event in _FORBIDDEN:
        _guard["is_on"] = False
        pytest.fail(f"a unit test used {event}: mark it `outside`, or leave its file out of tools/unit.py")


def pytest_configure(config: pytest.Config) -> None:
    """Run `TESTS` unless paths are given."""
    sys.addaudithook(_audit)
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = TESTS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs something outside, and what takes long."""
    kept = [item for item in items if not any(map(item.get_closest_marker, ("outside", "slow")))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Any:
    """Watch while a test runs with its fixtures."""
    _guard["is_on"] = True
    try:
        return (yield)
    finally:
        _guard["is_on"] = False
