"""`lensway runner doctor`: from the settings to the gateway, one finding after the other, each with what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping

import msgspec

from lensway import limits
from lensway.bridges.kit import lookups
from lensway.catalog.names import counted
from lensway.errors import LenswayError
from lensway.query.result import ARROW_FORMATS, RowFormat
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import Dial, DialError
from lensway.runner.settings import RunnerSettings, check_gateway_url


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. ``ok`` None is a remark."""

    check: str
    ok: bool | None
    detail: str
    hint: str = ""


async def examine(
    settings: RunnerSettings,
    environment: Mapping[str, str],
    dial: Dial,
    installed: Mapping[str, str],
    encodings: Collection[str] = (),
) -> AsyncIterator[Finding]:
    """The findings, in the order in which a connection is made. A connection is opened and closed without serving."""
    yield Finding(check="settings", ok=True, detail=f"runner {settings.runner}, gateway {settings.gateway_url}")
    local = LocalCredentials(environment)
    count = local.count
    yield Finding(
        check="credentials",
        ok=None,
        detail=counted(count, "LENSWAY_SOURCE_… variable") if count else "none on this machine",
    )
    drivers = ", ".join(f"{kind} ({version})" for kind, version in sorted(installed.items()))
    yield Finding(
        check="bridges",
        ok=bool(installed),
        detail=drivers or "none",
        hint="" if installed else "pip install 'lensway[postgres]'",
    )
    has_arrow = not ARROW_FORMATS.isdisjoint(encodings)
    yield Finding(
        check="formats",
        ok=None,
        detail=", ".join(each for each in encodings if each != RowFormat.DOCUMENT),
        hint="" if has_arrow else "Arrow and Parquet: pip install 'lensway[arrow]'",
    )
    parts = check_gateway_url(settings.gateway_url, insecure=True)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "wss" else 80)
    try:
        found = await lookups.PROCESS.addresses(host, port)
    except (OSError, ValueError):
        yield Finding(
            check="dns", ok=False, detail=f"{host} does not resolve", hint="Check LENSWAY_GATEWAY_URL and DNS."
        )
        return
    yield Finding(check="dns", ok=True, detail=f"{host} is {found[0]}")
    started = time.monotonic()
    try:
        transport = await dial()
    except (DialError, LenswayError) as error:
        hint = error.hint if isinstance(error, DialError) else (error.failure.hint or "")
        yield Finding(check="gateway", ok=False, detail=str(error), hint=hint)
        return
    milliseconds = (time.monotonic() - started) * 1000
    async with asyncio.timeout(limits.CLOSE_TIMEOUT_SECONDS + 1):
        await transport.close()
    yield Finding(check="gateway", ok=True, detail=f"connected and authenticated in {milliseconds:.1f} ms")
