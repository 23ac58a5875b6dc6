"""What a click changes: assignments that are tried before they switch, connection tests, the end of a drain."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway import limits
from lensway.auth import decisions
from lensway.clock import Clock
from lensway.console import views
from lensway.console.answers import ask, done, part
from lensway.console.forms import read_form
from lensway.console.fragments import Templates
from lensway.console.visits import Visit
from lensway.errors import LenswayError
from lensway.usecases.fleet_pages import FleetPages
from lensway.usecases.runners import Runners
from lensway.usecases.sources import Sources

_STAGE_WORDS: Final = {"dns": "DNS", "tcp": "TCP", "tls": "TLS"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Trial:
    """What a connection test before an assignment said: the source, and why it failed."""

    source: str
    why: str


class Changes:
    """The endpoints that change something. Every one of them acts in the environment of its address."""

    def __init__(
        self, fleet: FleetPages, runners: Runners, sources: Sources, templates: Templates, clock: Clock
    ) -> None:
        self._fleet = fleet
        self._runners = runners
        self._sources = sources
        self._templates = templates
        self._clock = clock
        self._trials: set[asyncio.Task[dict[str, Any]]] = set()

    async def assign(self, visit: Visit) -> Response:
        """Add sources to a runner or remove them. Unconfirmed, a change with new warnings or a failed test asks first."""
        decisions.require_operate(visit.caller.identity)
        form = await read_form(visit.request)
        runner, sources = form.one("runner"), form.all("source") or [""]
        is_adding = form.one("action") != "remove"
        coming = self._fleet.consequences(visit.caller, runner, sources, is_assigning=is_adding)
        if form.one("confirm") != "yes":
            failed = await self._try_out(visit, runner, sources) if is_adding else []
            if failed or coming["causes"]:
                return self._question(runner, sources, is_adding, coming, failed)
        for source in sources:
            if is_adding:
                await self._runners.assign(visit.caller, runner, source)
            else:
                await self._runners.unassign(visit.caller, runner, source)
        return done()

    async def resume(self, visit: Visit) -> Response:
        """End a drain."""
        decisions.require_operate(visit.caller.identity)
        form = await read_form(visit.request)
        await self._runners.resume(visit.caller, form.one("runner"))
        return done()

    async def test(self, visit: Visit) -> Response:
        """Test the connection of a source from every place that executes it."""
        decisions.require_operate(visit.caller.identity)
        form = await read_form(visit.request)
        source = form.one("source")
        answer = await self._sources.test(visit.caller, source, runner=form.one("runner") or None)
        html = self._templates.render(
            "test.html", source=source, results=answer["results"], at=self._clock.wall().isoformat(timespec="seconds")
        )
        return part(html)

    async def choices(self, visit: Visit) -> Response:
        """The sources that a runner may be given, by part of their names."""
        values = visit.request.query_params
        found = self._fleet.free_sources(
            visit.caller, values.get("runner", ""), values.get("q", ""), limit=limits.CONSOLE_CHOICES_MAX
        )
        return part(self._templates.render("choices.html", **found))

    def _question(
        self, runner: str, sources: Sequence[str], is_adding: bool, coming: Mapping[str, Any], failed: Sequence[_Trial]
    ) -> Response:
        html = self._templates.render(
            "question.html",
            runner=runner,
            sources=sources,
            is_adding=is_adding,
            warnings=views.causes_of(coming["causes"]),
            moves=coming["moves"],
            lenses=coming["lenses"],
            failed=failed,
        )
        return ask(html)

    def _forget(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._trials.discard(task)
        if not task.cancelled():
            task.exception()  # retrieve it: the dialog of a late trial is answered already

    async def _try_out(self, visit: Visit, runner: str, sources: Sequence[str]) -> list[_Trial]:
        """The tests that failed, or did not end in time."""
        tasks = [
            asyncio.create_task(self._sources.test(visit.caller, source, runner=runner), name="trial of a connection")
            for source in sources
        ]
        self._trials.update(tasks)
        for task in tasks:
            task.add_done_callback(self._forget)
        # One that takes longer ends by itself: it has a deadline of its own, and its result is an event.
        await asyncio.wait(tasks, timeout=limits.CONSOLE_TRIAL_SECONDS)
        found = []
        for source, task in zip(sources, tasks, strict=True):
            why = _why_failed(task)
            if why:
                found.append(_Trial(source, why))
        return found


def _why_failed(task: asyncio.Task[dict[str, Any]]) -> str:
    """Why a trial failed; empty when it passed."""
    if not task.done():
        return f"no answer within {limits.CONSOLE_TRIAL_SECONDS:.0f} s"
    error = task.exception()
    if isinstance(error, LenswayError):
        return f"{error}. {error.failure.hint or ''}".rstrip()
    if error is not None:
        raise error
    for result in task.result()["results"]:
        for stage in result["stages"]:
            if stage["ok"] is False:
                return _stage_failure(stage)
    return ""


def _stage_failure(stage: Mapping[str, Any]) -> str:
    name, error, hint = stage["stage"], str(stage.get("error") or "failed").replace("_", " "), stage.get("hint")
    if name == "runner":
        return str(hint or error)
    word = _STAGE_WORDS.get(name, name.replace("_", " "))
    return f"{word}: {error}" + (f". {hint}" if hint else "")
