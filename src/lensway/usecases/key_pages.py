"""Keys a page at a time, and what a page about the deployment itself shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import lensway
from lensway import limits
from lensway.auth.caller import Caller
from lensway.usecases.desk import Desk
from lensway.usecases.environments import Environments
from lensway.usecases.fleet_pages import Pace, has_text
from lensway.usecases.keys import Keys
from lensway.usecases.sign_ins import SignIns

EXPIRED = "expired"
UNUSED = "unused"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Keys with this text in their name or id. ``state`` is empty for all, ``expired`` or ``unused``."""

    text: str = ""
    kind: str = ""
    state: str = ""
    page: int = 1
    size: int = limits.CONSOLE_ROWS_MAX


class KeyPages:
    """The keys of one environment; with an instance-wide key also the instance-wide ones."""

    def __init__(self, desk: Desk, keys: Keys) -> None:
        self._desk = desk
        self._keys = keys

    def mark(self) -> Hashable:
        """A value that differs as soon as the catalog changed or something happened."""
        return self._desk.snapshot().revision, self._desk.hub.sequence

    async def page(self, caller: Caller, query: KeyQuery) -> dict[str, Any]:
        """One page of keys by name."""
        pace, now = Pace(self._desk.clock), self._desk.now_text()
        everything = self._keys.list(caller)["keys"]
        matching = []
        for key in everything:
            await pace.give_way()
            key["isExpired"] = "expiresAt" in key and key["expiresAt"] <= now
            key["isOwn"] = key["id"] == caller.identity.key
            if query.kind not in ("", key["kind"]) or not has_text(query.text, (key["name"], key["id"])):
                continue
            if (query.state == EXPIRED and not key["isExpired"]) or (query.state == UNUSED and "lastUsedAt" in key):
                continue
            matching.append(key)
        matching.sort(key=lambda key: (key["name"].casefold(), key["createdAt"], key["id"]))
        start = (query.page - 1) * query.size
        return {
            "keys": matching[start : start + query.size],
            "matching": len(matching),
            "total": len(everything),
            "expired": sum(key["isExpired"] for key in everything),
        }


class SettingsPage:
    """Environments, the version and the sign-ins, as far as the caller may see them."""

    def __init__(self, desk: Desk, environments: Environments, sign_ins: SignIns) -> None:
        self._desk = desk
        self._environments = environments
        self._sign_ins = sign_ins

    def mark(self) -> Hashable:
        """A value that differs as soon as the catalog changed, or a sign-in began or ended."""
        return self._desk.snapshot().revision, self._sign_ins.mark()

    async def page(self, caller: Caller, page: int) -> dict[str, Any]:
        """Everything at once; of the sign-ins one page."""
        sign_ins = self._sign_ins.list(caller)["signIns"]
        environments = self._environments.list(caller)["environments"]
        snapshot = self._desk.snapshot()
        for each in environments:
            each["isEmpty"] = not (snapshot.sources(each["id"]) or snapshot.runners(each["id"]))
            each["counts"] = {
                "sources": len(snapshot.sources(each["id"])),
                "lenses": len(snapshot.lenses(each["id"])),
                "runners": len(snapshot.runners(each["id"])),
            }
        start = (page - 1) * limits.CONSOLE_ROWS_MAX
        return {
            "environments": environments,
            "signIns": sign_ins[start : start + limits.CONSOLE_ROWS_MAX],
            "matching": len(sign_ins),
            "total": len(sign_ins),
            "version": lensway.__version__,
            "publicUrl": self._desk.public_url,
            "gatewayUrl": self._desk.gateway_url,
            "revision": snapshot.revision,
        }
