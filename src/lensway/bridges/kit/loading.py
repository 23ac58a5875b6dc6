"""Modules with large libraries, imported when they are first needed, while the event loop goes on."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import pathlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Final

from lensway import limits

ARROW_PACKAGES: Final = ("pyarrow", "adbc_driver_manager", "adbc_driver_postgresql")
_LIBRARY_SUFFIXES: Final = frozenset({".so", ".dylib", ".dll", ".pyd"})

_loaded: dict[str, ModuleType] = {}


async def load(module: str, *, packages: Iterable[str] = ()) -> ModuleType:
    """The module, imported in a thread; ``packages`` are those whose libraries it loads.

    The system's loader reads libraries page by page from the disk, and the interpreter's lock is held meanwhile: 126 MiB from
    a cold disk stopped the event loop for up to 1.4 s, which is longer than a runner may be silent. So they are read before,
    without the lock, and 30 ms are left. A process that never serves Arrow or an export pays nothing for it, not even memory.

    Raises:
        ImportError: when it is not installed here.
    """
    # Not by `sys.modules`: it lists a module while another thread still imports it, and a second import then waits.
    if module not in _loaded:
        _loaded[module] = await asyncio.to_thread(_import, module, tuple(packages))
    return _loaded[module]


def libraries_of(package: str) -> Iterator[pathlib.Path]:
    """The libraries that lie in an installed package, without importing it; none when it is not installed."""
    spec = importlib.util.find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        for path in pathlib.Path(location).iterdir():
            if not _LIBRARY_SUFFIXES.isdisjoint(path.suffixes):
                yield path


def _import(module: str, packages: Iterable[str]) -> ModuleType:
    buffer = bytearray(limits.LIBRARY_READ_BYTES)
    for package in packages:
        for path in libraries_of(package):
            with path.open("rb", buffering=0) as library:
                while library.readinto(buffer):
                    pass
    return importlib.import_module(module)
