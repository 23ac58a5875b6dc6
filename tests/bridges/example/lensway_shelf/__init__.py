"""A bridge in a package of its own: folders ("shelves") of SQLite files ("books"). The declaration imports no driver."""

from __future__ import annotations

from typing import Final

from lensway.kinds import Kind

KIND: Final = Kind(
    name="shelf",
    adapter="lensway_shelf.bridge:ShelfBridge",
    dialects=("sqlite",),
    drivers=("sqlite3",),
    system="sqlite",
    address_keys=frozenset({"shelf", "book"}),
)
