"""Lensway: one safe query API over databases behind other people's firewalls.

``lensway.connect(url, key)`` and ``lensway.connect_async(url, key)`` give clients; see `lensway.client`.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lensway.client import AsyncClient as AsyncClient
    from lensway.client import Client as Client
    from lensway.client import connect as connect
    from lensway.client import connect_async as connect_async
    from lensway.errors import LenswayError as LenswayError

    __version__: str

_PUBLIC: Final = {
    "AsyncClient": "lensway.client",
    "Client": "lensway.client",
    "LenswayError": "lensway.errors",
    "connect": "lensway.client",
    "connect_async": "lensway.client",
}


def __getattr__(name: str) -> Any:
    # Found when first asked for: a runner has no HTTP client and must not need one, and `lensway --help` needs no version.
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("lensway")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lensway' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_PUBLIC]
