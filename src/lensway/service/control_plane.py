"""Handlers of the control plane: HTTP in, use case, HTTP out. Nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from lensway import limits
from lensway.api.shapes import ScaffoldRequest
from lensway.auth.caller import Caller
from lensway.catalog.names import invalid
from lensway.service.decoding import read_request
from lensway.service.http import Call, json_response
from lensway.usecases.bundle import UseCases
from lensway.usecases.desk import Desk
from lensway.usecases.endings import KeyEndings
from lensway.usecases.events import HubEvent

_KEEP_ALIVE_SECONDS = 15.0
_LIST_MAX = limits.REQUESTS_LISTED_MAX


class ControlPlane:
    """One handler for each route; its name is the route's."""

    def __init__(self, use: UseCases, desk: Desk) -> None:
        self._use = use
        self._desk = desk

    # environments, keys

    async def create_environment(self, call: Call) -> Response:
        """A new environment."""
        return json_response(await self._use.environments.create(call.by, await call.body()), status=201)

    async def list_environments(self, call: Call) -> Response:
        """The environments this key may see."""
        return json_response(self._use.environments.list(call.by))

    async def delete_environment(self, call: Call) -> Response:
        """An empty environment goes."""
        await self._use.environments.delete(call.by, call.path("environment"))
        return _nothing()

    async def create_key(self, call: Call) -> Response:
        """A new key, shown once."""
        return json_response(await self._use.keys.create(call.by, await call.body()), status=201)

    async def list_keys(self, call: Call) -> Response:
        """The keys, without their secrets."""
        return json_response(self._use.keys.list(call.by))

    async def delete_key(self, call: Call) -> Response:
        """The key opens nothing any more."""
        await self._use.keys.delete(call.by, call.path("id"))
        return _nothing()

    async def list_sign_ins(self, call: Call) -> Response:
        """Who is signed in to the Console."""
        return json_response(self._use.sign_ins.list(call.by))

    async def end_sign_ins(self, call: Call) -> Response:
        """End every sign-in to the Console."""
        return json_response(await self._use.sign_ins.end_all(call.by))

    async def end_sign_in(self, call: Call) -> Response:
        """End one sign-in to the Console."""
        await self._use.sign_ins.end(call.by, call.path("id"))
        return _nothing()

    # sources, lenses

    async def create_source(self, call: Call) -> Response:
        """A new source."""
        return json_response(await self._use.sources.create(call.by, await call.body()), status=201)

    async def list_sources(self, call: Call) -> Response:
        """The sources."""
        return json_response(self._use.sources.list(call.by))

    async def show_source(self, call: Call) -> Response:
        """One source."""
        return json_response(self._use.sources.show(call.by, call.path("source")))

    async def patch_source(self, call: Call) -> Response:
        """The source with some parts changed."""
        return json_response(await self._use.sources.patch(call.by, call.path("source"), await call.body()))

    async def delete_source(self, call: Call) -> Response:
        """The source goes."""
        await self._use.sources.delete(call.by, call.path("source"))
        return _nothing()

    async def test_source(self, call: Call) -> Response:
        """Test the connection."""
        runner = call.request.query_params.get("runner")
        work = self._use.sources.test(call.by, call.path("source"), runner=runner)
        return json_response(await work)

    async def list_tables(self, call: Call) -> Response:
        """The tables that the source's login can read."""
        return json_response(await self._use.sources.tables(call.by, call.path("source")))

    async def show_table(self, call: Call) -> Response:
        """One table's columns."""
        return json_response(await self._use.sources.table(call.by, call.path("source"), call.path("table")))

    async def scaffold_source(self, call: Call) -> Response:
        """Declarations of lenses for the source's tables."""
        request = read_request(ScaffoldRequest, await call.body())
        return json_response(await self._use.scaffolds.scaffold(call.by, call.path("source"), request))

    async def check_lens(self, call: Call) -> Response:
        """How a lens differs from its table."""
        return json_response(await self._use.scaffolds.check(call.by, call.path("lens")))

    async def put_lens(self, call: Call) -> Response:
        """Declare a lens."""
        return json_response(await self._use.lenses.put(call.by, call.path("lens"), await call.body()))

    async def delete_lens(self, call: Call) -> Response:
        """The lens goes."""
        await self._use.lenses.delete(call.by, call.path("lens"))
        return _nothing()

    # runners

    async def create_runner(self, call: Call) -> Response:
        """Register a runner."""
        return json_response(await self._use.runners.create(call.by, await call.body()), status=201)

    async def list_runners(self, call: Call) -> Response:
        """Every runner with its state."""
        return json_response(self._use.runners.list(call.by))

    async def show_runner(self, call: Call) -> Response:
        """One runner."""
        return json_response(self._use.runners.show(call.by, call.path("runner")))

    async def patch_runner(self, call: Call) -> Response:
        """Another network label."""
        return json_response(await self._use.runners.patch(call.by, call.path("runner"), await call.body()))

    async def delete_runner(self, call: Call) -> Response:
        """The runner goes."""
        force = call.flag("force")
        return json_response(await self._use.runners.delete(call.by, call.path("runner"), force=force))

    async def rotate_runner(self, call: Call) -> Response:
        """A new token."""
        return json_response(await self._use.runners.rotate(call.by, call.path("runner")))

    async def revoke_runner(self, call: Call) -> Response:
        """End its tokens and sessions."""
        return json_response(await self._use.runners.revoke(call.by, call.path("runner")))

    async def drain_runner(self, call: Call) -> Response:
        """Give it no new work."""
        return json_response(await self._use.runners.drain(call.by, call.path("runner")))

    async def resume_runner(self, call: Call) -> Response:
        """End a drain."""
        return json_response(await self._use.runners.resume(call.by, call.path("runner")))

    async def list_runner_sources(self, call: Call) -> Response:
        """What a runner is assigned."""
        return json_response(self._use.runners.sources(call.by, call.path("runner")))

    async def assign(self, call: Call) -> Response:
        """The runner serves the source, from now on."""
        verify = call.flag("verify")
        answer = await self._use.runners.assign(call.by, call.path("runner"), call.path("source"), verify=verify)
        return json_response(answer)

    async def unassign(self, call: Call) -> Response:
        """The runner serves the source no more."""
        return json_response(await self._use.runners.unassign(call.by, call.path("runner"), call.path("source")))

    async def list_assignments(self, call: Call) -> Response:
        """The whole set."""
        return json_response(self._use.runners.assignments(call.by))

    # declarations, records

    async def push(self, call: Call) -> Response:
        """Apply a declaration."""
        body = await call.body()
        answer = await self._use.declarations.push(call.by, body, prune=call.flag("prune"), dry_run=call.flag("dryRun"))
        return json_response(answer)

    async def config(self, call: Call) -> Response:
        """The environment as a declaration."""
        return json_response(self._use.declarations.export(call.by))

    async def audit(self, call: Call) -> Response:
        """Who did what."""
        limit = call.number("limit", 100, _LIST_MAX) or 100
        before = call.number("before", None, 2**53)
        return json_response(await self._use.audit.list(call.by, limit=limit, before=before))

    async def verify_audit(self, call: Call) -> Response:
        """Whether the audit is as it was written."""
        return json_response(await self._use.audit.verify(call.by, call.request.query_params.get("head")))

    async def export_audit(self, call: Call) -> Response:
        """Every row, with its chain."""
        after = call.number("after", None, 2**53) or 0
        lines = _while_good(call, await self._use.audit.export(call.by, after=after))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def list_requests(self, call: Call) -> Response:
        """Recent requests with their attempts."""
        limit = call.number("limit", 100, _LIST_MAX) or 100
        return json_response(self._use.requests.list(call.by, limit=limit))

    async def events(self, call: Call) -> Response:
        """What happens, live."""
        last = call.request.headers.get("last-event-id")
        if last is not None and not (last.isascii() and last.isdecimal() and len(last) < 16):
            raise invalid("Last-Event-ID", "must be the id of an event")
        key, after = call.by.identity.key, None if last is None else int(last)
        watch = self._desk.hub.watch(call.by.environment.id, key, after=after)
        stream = event_stream(watch, self._desk.endings, call.by)
        # The first line is taken here, so that a refusal is an answer and not a cut stream.
        first = await anext(stream)
        return StreamingResponse(_chained(first, stream), media_type="text/event-stream")


async def event_stream(watch: AsyncIterator[HubEvent], endings: KeyEndings, caller: Caller) -> AsyncIterator[bytes]:
    """Events as server-sent ones, with a comment now and then so that the connection is not considered dead.

    It ends as soon as the caller's key or environment does.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    next_event: asyncio.Future[Any] = asyncio.ensure_future(anext(watch, None))
    with endings.watched(lambda: _end(ended), caller.identity.key, caller.environment.id):
        try:
            await asyncio.sleep(0)
            if next_event.done() and (error := next_event.exception()) is not None:
                raise error
            endings.require_good(caller)
            yield b": watching\n\n"
            while True:
                done, _ = await asyncio.wait(
                    {next_event, ended}, timeout=_KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if ended.done():
                    return
                if not done:
                    yield b": still here\n\n"
                    continue
                event: Any = next_event.result()
                if event is None:
                    return
                yield _sse(event)
                next_event = asyncio.ensure_future(anext(watch, None))
        finally:
            ended.cancel()
            next_event.cancel()
            await asyncio.gather(next_event, return_exceptions=True)


def _end(future: asyncio.Future[None]) -> None:
    future.cancel()


def _sse(event: HubEvent) -> bytes:
    data = {"at": event.at.isoformat(timespec="milliseconds"), **event.data}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.kind.encode(), msgspec.json.encode(data))


async def _while_good(call: Call, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines, without the last ones when the key of the request ends: the end mark is missing then."""
    async for line in lines:
        if not call.endings.is_good(call.by.identity.key):
            return
        yield line


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _nothing() -> Response:
    return Response(status_code=204)
