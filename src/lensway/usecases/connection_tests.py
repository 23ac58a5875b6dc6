"""Connection tests: the same jobs that queries are, pinned to each place that would execute the source."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final, TypeVar

import msgspec

from lensway import limits
from lensway.auth.caller import Caller
from lensway.bridges.contract import ConnectionReport, Stage
from lensway.bridges.library import encode_probes
from lensway.catalog.records import Runner, Source
from lensway.catalog.snapshot import Snapshot
from lensway.dispatch.core.events import Asker, JobRequest, Release
from lensway.errors import ErrorCode, LenswayError
from lensway.fleet import Session
from lensway.ids import RequestId, RunnerId, SessionId, new_request_id
from lensway.query.plan import ROWS_AND_COUNTS
from lensway.query.planner import plan_probe
from lensway.query.result import RowFormat, unbelievable
from lensway.usecases.desk import Desk
from lensway.usecases.fleet_view import status_of

Document = TypeVar("Document")
_WARNING_KEYS: Final = frozenset({"code", "message", "hint"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DocumentJob:
    """A job whose result is one JSON document: a test, a list of tables, a table."""

    kind: str
    source: Source
    payload: bytes = b""
    timeout_seconds: float = limits.TEST_TIMEOUT_SECONDS
    runner: RunnerId | None = None
    session: SessionId | None = None
    unassigned: bool = False
    owner: str = ""
    asker: Asker | None = None
    needs: frozenset[str] = frozenset()


def asker_of(caller: Caller) -> Asker:
    """Who asks, for a job that is on no lens."""
    return Asker(caller.identity.key, caller.identity.name, caller.environment.name)


async def run_document_job(
    desk: Desk, job: DocumentJob, answer: type[Document], *, request_id: str | None = None
) -> Document:
    """The decoded document. Raises LenswayError with the job's own failure; for another document
    RUNNER_FAILED, or INTERNAL where no runner made it."""
    bytes_max = limits.TEST_REPORT_BYTES_MAX if job.kind == "test" else limits.TABLES_BYTES_MAX
    request = JobRequest(
        request=RequestId(request_id or new_request_id()),
        environment=job.source.environment,
        source=job.source.id,
        kind=job.kind,
        payload=job.payload,
        format=RowFormat.DOCUMENT.value,
        deadline=desk.clock.monotonic() + job.timeout_seconds,
        release=Release.AT_END,
        rows_max=1,
        bytes_max=bytes_max,
        row_bytes_max=bytes_max,
        page_bytes_max=bytes_max,
        runner=job.runner,
        session=job.session,
        unassigned=job.unassigned,
        owner=job.owner,
        asker=job.asker,
        needs=job.needs,
    )
    page = await desk.dispatcher.submit(request).page()
    try:
        return msgspec.json.decode(b"".join(page.chunks), type=answer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise unbelievable("the document", by_runner=page.record.is_by_runner) from None


class ConnectionTests:
    """The use case behind every Test connection button."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def test(self, caller: Caller, source: Source, *, runner: Runner | None = None) -> list[dict[str, Any]]:
        """One result per connected instance of the assigned runners (or of ``runner``, assigned or not), and a failed one for
        each of them that has no instance, drains or is revoked; one with runner None when the service executes the source itself.

        Raises:
            LenswayError: SOURCE_REQUIRES_RUNNER.
        """
        self._desk.endings.require_good(caller)
        snapshot = self._desk.snapshot()
        environment = source.environment
        assigned = snapshot.runners_of(environment, source.id)
        payload = encode_probes(
            [plan_probe(lens.definition).encode() for lens in snapshot.lenses_of(environment, source.id)]
        )
        if runner is None and not assigned:
            result = await self._one(caller, source, payload, None)
            results = [{"runner": None, **result}]
        else:
            ids = (runner.id,) if runner is not None else assigned
            runners = [found for found in map(snapshot.runner_by_id, ids) if found is not None]
            tests = (self._from_runner(caller, snapshot, source, payload, each) for each in runners)
            results = [result for found in await asyncio.gather(*tests) for result in found]
        ok = all(result["ok"] for result in results)
        data = {"source": source.name, "ok": ok, "by": caller.identity.actor, "results": results}
        self._desk.hub.publish(environment, "test", data)
        return results

    async def _from_runner(
        self, caller: Caller, snapshot: Snapshot, source: Source, payload: bytes, runner: Runner
    ) -> list[dict[str, Any]]:
        """One result per instance of a runner; a failed one with the reason when it cannot test."""
        is_out = runner.is_revoked or runner.is_draining
        sessions = [] if is_out else list(self._desk.dispatcher.fleet.sessions_of(runner.id))
        if not sessions:
            return [{**self._absent(snapshot, runner), "runner": runner.name}]
        assigned = snapshot.runners_of(source.environment, source.id)
        found = await asyncio.gather(
            *(self._one(caller, source, payload, each, assigned=assigned) for each in sessions)
        )
        return [
            {**result, "runner": runner.name, "instance": session.facts.instance}
            for session, result in zip(sessions, found, strict=True)
        ]

    def _absent(self, snapshot: Snapshot, runner: Runner) -> dict[str, Any]:
        status = status_of(snapshot, runner, self._desk.dispatcher, self._desk.clock.monotonic())
        state = status.state.value
        words = state.replace("_", " ")
        why = words if status.cause.replace("_", " ") == words else f"{words} ({status.cause.replace('_', ' ')})"
        verb = "has " if state == "never_connected" else "is "
        said = f"Runner '{runner.name}' {verb}{why}"
        return _failed_at_runner(state, f"{said}. {status.hint}".rstrip())

    async def _one(
        self,
        caller: Caller,
        source: Source,
        payload: bytes,
        session: Session | None,
        *,
        assigned: tuple[RunnerId, ...] = (),
    ) -> dict[str, Any]:
        job = DocumentJob(
            kind="test",
            source=source,
            payload=payload,
            owner=caller.identity.key,
            asker=asker_of(caller),
            needs=ROWS_AND_COUNTS,
        )
        if session is not None:
            job = dataclasses.replace(
                job,
                runner=session.facts.runner,
                session=session.id,
                unassigned=session.facts.runner not in assigned,
            )
        try:
            found = _clipped(await run_document_job(self._desk, job, ConnectionReport))
            if [each.stage for each in found.stages] != list(Stage):
                raise unbelievable("the stages of the test", by_runner=session is not None)
        except LenswayError as error:
            if error.code is ErrorCode.UNAUTHENTICATED:
                raise  # the key that asked is no more
            if session is None and error.code in (ErrorCode.SOURCE_REQUIRES_RUNNER, ErrorCode.NO_RUNNERS_ONLINE):
                raise
            if session is not None and error.code is ErrorCode.NO_RUNNERS_ONLINE:
                state, name = session.shown_state, session.facts.runner_name
                return _failed_at_runner(
                    state, f"Runner '{name}' is {state} and did not run the test. Check the runner and its log."
                )
            return _failed_at_runner(_class_of(error), error.failure.hint or str(error))
        document: dict[str, Any] = msgspec.to_builtins(found)
        # A failed stage makes the test fail, even when the report calls itself ok.
        is_ok = found.ok and all(each.ok is not False for each in found.stages)
        return {**document, "ok": is_ok, "warnings": document.get("warnings", [])}


def _failed_at_runner(error: str, hint: str) -> dict[str, Any]:
    """A result whose test never reached the database."""
    stage = {"stage": "runner", "ok": False, "ms": 0.0, "error": error, "hint": hint}
    return {"ok": False, "stages": [stage, *_skipped()], "warnings": []}


def _clipped(report: ConnectionReport) -> ConnectionReport:
    """The report with its texts cut to what is kept and shown."""
    return ConnectionReport(
        ok=report.ok,
        stages=[
            msgspec.structs.replace(
                each,
                error=_cut(each.error, limits.RUNNER_TEXT_CHARACTERS_MAX),
                hint=_cut(each.hint, limits.RUNNER_HINT_CHARACTERS_MAX),
            )
            for each in report.stages[: len(Stage) + 1]
        ],
        warnings=[
            {name: text[: limits.RUNNER_HINT_CHARACTERS_MAX] for name, text in warning.items() if name in _WARNING_KEYS}
            for warning in report.warnings[: limits.TEST_WARNINGS_MAX]
        ],
        server_version=_cut(report.server_version, limits.RUNNER_TEXT_CHARACTERS_MAX),
    )


def _cut(text: str | None, characters_max: int) -> str | None:
    return None if text is None else text[:characters_max]


def _class_of(error: LenswayError) -> str:
    return str(error.failure.details.get("class", error.code.value))


def _skipped() -> list[dict[str, Any]]:
    return [
        {"stage": stage, "ok": None, "ms": 0.0}
        for stage in ("dns", "tcp", "tls", "login", "query", "read_only", "lenses")
    ]
