"""The bridge: it reads the settings of a shelf and hands the file to the bridge of SQLite."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from lensway.bridges.contract import AddressPolicy, OpenSource
from lensway.bridges.kit.failures import invalid_setting
from lensway.bridges.sqlite.bridge import SqliteBridge


class ShelfBridge:
    """Implements `lensway.bridges.contract.Bridge`."""

    kind = "shelf"

    def __init__(self) -> None:
        self._files = SqliteBridge()

    def driver_version(self) -> str | None:
        """The version of SQLite."""
        return self._files.driver_version()

    def check_config(self, config: Mapping[str, object], *, policy: AddressPolicy) -> None:
        """Refuse unknown settings, and files that the policy forbids."""
        self._files.check_config(_file(config), policy=policy)

    async def open(self, config: Mapping[str, object], *, policy: AddressPolicy) -> OpenSource:
        """The book as a source."""
        return await self._files.open(_file(config), policy=policy)


def _file(config: Mapping[str, object]) -> dict[str, object]:
    for key in config:
        if key not in ("shelf", "book"):
            raise invalid_setting(str(key)[:63], "unknown setting of a shelf", hint="Known: shelf, book.")
    shelf, book = config.get("shelf"), config.get("book")
    if not isinstance(shelf, str) or not isinstance(book, str) or "/" in book:
        raise invalid_setting("book", "must be the name of a file on the shelf, without its ending")
    return {"path": str(pathlib.Path(shelf) / f"{book}.db")}
