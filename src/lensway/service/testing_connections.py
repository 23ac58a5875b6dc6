"""Connection tests: the same jobs that queries are, pinned to each place that would execute the source."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final, TypeVar

import msgspec

from lensway import limits
from lensway.auth.caller import Caller
from lensway.bridges.contract import ConnectionReport, Stage
from lensway.bridges.work import encode_probes
from lensway.catalog.records import Runner, Source
from lensway.dispatch.events import JobRequest, Release
from lensway.errors import ErrorCode, LenswayError
from lensway.fleet import Session
from lensway.ids import RequestId, RunnerId, SessionId, new_request_id
from lensway.query.planner import plan_probe
from lensway.query.result import RowFormat, unbelievable
from lensway.service.desk import Desk

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


async def run_document_job(
    desk: Desk, job: DocumentJob, answer: type[Document], *, request_id: str | None = None
) -> Document:
    """The decoded document. Raises LenswayError with whatever the job's one outcome was; for another document
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
        """One result per live instance of the assigned runners (or of ``runner``, assigned or not); one with runner None when
        the service executes the source itself.

        Raises:
            LenswayError: NO_RUNNERS_ONLINE, SOURCE_REQUIRES_RUNNER.
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
            runners = (runner.id,) if runner is not None else assigned
            sessions = [session for each in runners for session in self._desk.dispatcher.fleet.sessions_of(each)]
            if not sessions:
                await self._raise_absent(caller, source, payload, runner)
            tests = (self._one(caller, source, payload, session, assigned=assigned) for session in sessions)
            found = await asyncio.gather(*tests)
            results = [
                {**result, "runner": session.facts.runner_name, "instance": session.facts.instance}
                for session, result in zip(sessions, found, strict=True)
            ]
        ok = all(result["ok"] for result in results)
        data = {"source": source.name, "ok": ok, "by": caller.identity.actor, "results": results}
        self._desk.hub.publish(environment, "test", data)
        return results

    async def _one(
        self,
        caller: Caller,
        source: Source,
        payload: bytes,
        session: Session | None,
        *,
        assigned: tuple[RunnerId, ...] = (),
    ) -> dict[str, Any]:
        job = DocumentJob(kind="test", source=source, payload=payload, owner=caller.identity.key)
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
            hint = error.failure.hint
            stage = {"stage": "runner", "ok": False, "ms": 0.0, "error": _class_of(error)}
            return {
                "ok": False,
                "stages": [stage | ({"hint": hint} if hint else {"hint": str(error)}), *_skipped()],
                "warnings": [],
            }
        document: dict[str, Any] = msgspec.to_builtins(found)
        # What failed cannot be ok, whatever the report says of itself.
        is_ok = found.ok and all(each.ok is not False for each in found.stages)
        return {**document, "ok": is_ok, "warnings": document.get("warnings", [])}

    async def _raise_absent(self, caller: Caller, source: Source, payload: bytes, runner: Runner | None) -> None:
        """Nobody is there: dispatch itself says who, since when, and what to do."""
        job = DocumentJob(kind="test", source=source, payload=payload, owner=caller.identity.key)
        if runner is not None:
            job = dataclasses.replace(job, runner=runner.id, unassigned=True)
        await run_document_job(self._desk, job, ConnectionReport)


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
