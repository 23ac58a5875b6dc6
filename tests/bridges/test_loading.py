"""Large libraries are loaded while the event loop goes on."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
import threading

import pytest

from lensway.bridges.kit import loading

_GATE = "lensway_test_gate"
_MODULE = "lensway_test_slow_module"


class Gate:
    """What the module meets on its way."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


def test_nobody_who_asks_while_it_is_imported_stops_the_loop(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    (tmp_path / f"{_MODULE}.py").write_text(
        f"import {_GATE} as gate\ngate.reached.set()\nassert gate.opened.wait(30)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, _GATE, gate)

    async def story() -> tuple[object, object]:
        first = asyncio.create_task(loading.load(_MODULE))
        await asyncio.to_thread(gate.reached.wait)
        second = asyncio.create_task(loading.load(_MODULE))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        gate.opened.set()
        return await first, await second

    first, second = asyncio.run(story())
    assert first is second
    assert first is sys.modules.pop(_MODULE)


def test_what_is_not_installed_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        asyncio.run(loading.load("lensway_no_such_module", packages=("lensway_no_such_package",)))


_LOADED = """
import asyncio, pathlib
from lensway.bridges.kit import loading
for module in ("lensway.bridges.encoding.arrow", "lensway.bridges.postgres.bulk.source"):
    asyncio.run(loading.load(module, packages=loading.ARROW_PACKAGES))
read = {path.resolve() for package in loading.ARROW_PACKAGES for path in loading.libraries_of(package)}
mapped = {pathlib.Path(line.split()[-1]).resolve() for line in open("/proc/self/maps") if "/pyarrow" in line or "/adbc" in line}
assert mapped
print(*sorted(mapped - read))
"""


def test_every_library_that_is_loaded_was_read_before() -> None:
    found = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []
