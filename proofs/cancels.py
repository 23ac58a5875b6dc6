"""Callers who hang up: their statement is gone from the database at once, and nobody else's ever is."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time

import asyncpg

from lensway.testing.chaos.callers import KINDS, Callers
from lensway.testing.chaos.history import Call
from lensway.testing.chaos.site import DATABASE, SOURCE, Site
from lensway.testing.chaos.statements import StatementLog
from proofs.jobs import stage
from proofs.report import Report, percentile

_NAP = dataclasses.replace(KINDS[2], name="nap", lens="nap")
_HANGING_UP = 16
_OTHERS = 6


def cancels(report: Report, *, timed: int = 200, count: int = 10_000) -> None:
    """How soon statements end, then many hang-ups at random moments beside callers who stay."""
    report.title("cancels", f"{timed} timed hang-ups, then {count:,} at random moments beside callers who stay")
    with stage(is_witnessed=True) as site:
        for name in ("alpha", "beta"):
            site.add_runner(name)
        view = "CREATE VIEW nap AS SELECT o.* FROM orders o, (SELECT pg_sleep(0.4)) s"
        site.run_sql(view, "GRANT SELECT ON nap TO PUBLIC")
        site.declare_lens("nap", table="public.nap")
        gone = asyncio.run(_timed(site, timed * 3 // 4))
        for name in ("alpha", "beta"):
            site.deployment.unassign(name, SOURCE)
        gone_inline = asyncio.run(_timed(site, timed // 4))
        for name in ("alpha", "beta"):
            site.deployment.assign(name, SOURCE)
            site.wait_well(name)
        log = StatementLog(site.cluster.log_path)
        list(log.read())
        log.cancelled.clear()
        stayed = asyncio.run(_at_random(site, count))
        list(log.read())
    report.at_most("gone from the database, p99, runners", percentile(gone, 0.99) * 1000, 250, "ms", f" of {len(gone)}")
    report.at_most("gone, p99, inline", percentile(gone_inline, 0.99) * 1000, 250, "ms", f" of {len(gone_inline)}")
    wrong = [each for each in stayed if not (each.is_whole and each.is_right)]
    answered = {each.id for each in stayed}
    report.none("callers who stayed and got no rows", len(wrong), len(stayed))
    report.details([f"{each.status} {each.code}" for each in wrong])
    reached = len(log.cancelled)
    report.add("hang-ups that met a statement at work", f"{reached:,} of {count:,}", "≥ 10 %", reached >= count / 10)
    hit = sum(id in answered for id in log.cancelled)
    report.none("cancelled statements of callers who stayed", hit, reached)


async def _hang_up(site: Site, lens: str, moment: asyncio.Future[None] | float) -> float:
    """Ask, hang up at the moment, and give back when that was."""
    body = b'{"where":{"id":7}}'
    _, writer = await asyncio.open_connection("127.0.0.1", site.deployment.http_port)
    head = (
        f"POST /v1/query/{lens} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {site.deployment.admin_key}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    if isinstance(moment, float):
        await asyncio.sleep(moment)
    else:
        await moment
    at = time.monotonic()
    writer.transport.abort()
    return at


async def _timed(site: Site, count: int) -> list[float]:
    looking = await asyncpg.connect(site.cluster.superuser_dsn(DATABASE))
    found: list[float] = []

    async def running() -> int:
        return await looking.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%slow%' AND pid <> pg_backend_pid()"
        )

    try:
        for _ in range(count):
            moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asked = asyncio.ensure_future(_hang_up(site, "slow", moment))
            while not await running():
                await asyncio.sleep(0.002)
            moment.set_result(None)
            at = await asked
            while await running():
                await asyncio.sleep(0.002)
            found.append(time.monotonic() - at)
    finally:
        await looking.close()
    return found


async def _at_random(site: Site, count: int) -> list[Call]:
    stayed: list[Call] = []
    callers = Callers(site.deployment.http_port, site.deployment.admin_key, stayed.append)
    left = iter(range(count))
    rng = random.Random(3)

    async def hang_up_for_ever() -> None:
        for _ in left:
            await _hang_up(site, "nap", rng.uniform(0.0, 0.45))

    staying = asyncio.ensure_future(callers.run([(_NAP, _OTHERS)]))
    await asyncio.gather(*(hang_up_for_ever() for _ in range(_HANGING_UP)))
    callers.stop()
    await staying
    return stayed
