"""`lensway runner doctor`: from the settings to each assigned source, one finding after the other, each with what to do.

It goes the runner's way, by the runner's code: the same proxy, certificates and token. It opens a session, reads the sources that
are assigned, and leaves before the set is in force, so that no query is sent to it.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final

import msgspec

import lensway
from lensway import limits
from lensway.auth.sealing import InstanceKeys
from lensway.bridges.contract import ConnectionReport, Execution
from lensway.bridges.kit import lookups
from lensway.bridges.library import encode_probes
from lensway.clock import SystemClock
from lensway.errors import LenswayError
from lensway.ids import new_instance_id
from lensway.protocol.frames import AssignedSource, CloseReason, Hello, Welcome
from lensway.protocol.transport import Transport, TransportClosedError
from lensway.protocol.version import FEATURES, VERSIONS_SPOKEN
from lensway.query.plan import FEATURES as PLAN_FEATURES
from lensway.query.result import ARROW_FORMATS, ResultLimits, RowFormat
from lensway.runner.credentials import LocalCredentials
from lensway.runner.dial import Dialer, DialError
from lensway.runner.library import Library
from lensway.runner.policy import PolicyInForce
from lensway.runner.session import Session, SessionParts
from lensway.runner.settings import RunnerSettings
from lensway.runner.sources import READY, AssignedSources, Opener, ServedSource
from lensway.ways.causes import CLOCK_SKEW_SECONDS, Cause, Stage, Way
from lensway.ways.looking import peer_clock

_ENOUGH: Final = "enough"
_DIALLED: Final = (Stage.PROXY, Stage.DNS, Stage.TCP, Stage.TLS, Stage.ANSWER, Stage.TOKEN)
"""The stages of a dial, in their order; the proxy comes first where there is one."""
_STATES: Final[Mapping[str, str]] = {
    "no_bridge": "Install its driver on this machine (`pip install 'lensway[…]'`) and restart the runner.",
    "no_credentials": "Set LENSWAY_SOURCE_<NAME>_URL here, or give the source a managed config.",
    "credentials_ambiguous": "Two assigned sources read the same variables here: rename one of them.",
    "refused": "The local policy does not allow it: change LENSWAY_RUNNER_POLICY, or unassign the source.",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report. ``ok`` None is a remark; ``cause`` the code of a failure."""

    check: str
    ok: bool | None
    detail: str
    hint: str = ""
    cause: str = ""


async def examine(
    settings: RunnerSettings,
    environment: Mapping[str, str],
    dialer: Dialer,
    library: Library,
    policy: PolicyInForce,
) -> AsyncIterator[Finding]:
    """The findings, in the order in which a connection is made."""
    local = LocalCredentials(environment)
    for finding in _of_configuration(settings, local):
        yield finding
    for finding in _of_bridges(library):
        yield finding
    try:
        way = dialer.way()
    except LenswayError as error:
        yield Finding(check="proxy", ok=False, detail=str(error), hint=error.failure.hint or "", cause="proxy_setting")
        return
    visit = _Visit()
    sources = _Assigned(library, local, policy)
    try:
        transport = await dialer()
    except DialError as error:
        for finding in await _of_failed_dial(way, error):
            yield finding
        return
    async for finding in _of_session(way, transport, visit, _parts(settings, sources, library, policy, visit)):
        yield finding
    for source in sources.served():
        yield await _of_source(source, library)
    await library.close()


# --- this machine ---------------------------------------------------------------------------------------------------------------


def _of_configuration(settings: RunnerSettings, local: LocalCredentials) -> Iterator[Finding]:
    yield Finding(check="configuration", ok=True, detail=f"runner {settings.runner}, gateway {settings.gateway_url}")
    problems = local.problems()
    for problem in problems:
        hint = "Correct the variable, or the file that it names."
        yield Finding(check="credentials", ok=False, detail=problem, hint=hint, cause="invalid_settings")
    if not problems:
        count = local.count
        detail = f"{count} LENSWAY_SOURCE_… variables" if count else "none on this machine"
        yield Finding(check="credentials", ok=None, detail=detail)
    yield Finding(
        check="policy",
        ok=None if settings.policy_file is None else True,
        detail="none: every assigned source" if settings.policy_file is None else str(settings.policy_file),
    )


def _of_bridges(library: Library) -> Iterator[Finding]:
    installed, encodings = library.installed(), library.encodings()
    drivers = ", ".join(f"{kind} ({version})" for kind, version in sorted(installed.items()))
    yield Finding(
        check="bridges",
        ok=bool(installed),
        detail=drivers or "none",
        hint="" if installed else "pip install 'lensway[postgres]'",
        cause="" if installed else "no_bridge",
    )
    has_arrow = not ARROW_FORMATS.isdisjoint(encodings)
    yield Finding(
        check="encodings",
        ok=None,
        detail=", ".join(each for each in encodings if each != RowFormat.DOCUMENT),
        hint="" if has_arrow else "Arrow and Parquet: pip install 'lensway[arrow]'",
    )


# --- the way --------------------------------------------------------------------------------------------------------------------


async def _of_failed_dial(way: Way, error: DialError) -> list[Finding]:
    named = error.named or Cause(code=error.cause, stage=Stage.ANSWER, line=error.cause, remedy=error.hint)
    found = [_failed(named)]
    if named.stage is Stage.CLOCK or named.stage is Stage.CONFIG:
        return found
    reached = list(_DIALLED[: _DIALLED.index(named.stage)])
    passed = [await _passed(way, stage) for stage in reached]
    if named.stage in (Stage.ANSWER, Stage.TOKEN):
        passed.append(await _clock_of_peer(way))
    return [each for each in passed if each is not None] + found


def _failed(cause: Cause) -> Finding:
    check = "configuration" if cause.stage is Stage.CONFIG else cause.stage.value
    return Finding(check=check, ok=False, detail=cause.line, hint=cause.remedy, cause=cause.code)


async def _passed(way: Way, stage: Stage) -> Finding | None:
    """What is said of a stage that the dial has passed."""
    match stage:
        case Stage.PROXY:
            detail = "none" if way.proxy is None else f"{way.proxy.shown} ({way.proxy.variable})"
            return Finding(check="proxy", ok=None if way.proxy is None else True, detail=detail)
        case Stage.DNS if way.proxy is not None:
            return Finding(check="dns", ok=None, detail=f"the proxy looks {way.host} up")
        case Stage.DNS:
            try:
                found = await lookups.PROCESS.addresses(way.host, way.port)
            except (OSError, ValueError):
                return None
            return Finding(check="dns", ok=True, detail=f"{way.host} is {', '.join(found[:4])}")
        case Stage.TCP:
            return Finding(check="tcp", ok=True, detail=f"connected to {way.place}")
        case Stage.TLS:
            detail = "the certificate is trusted" if way.is_tls else "none: clear text"
            return Finding(check="tls", ok=True if way.is_tls else None, detail=detail)
    return None


async def _clock_of_peer(way: Way) -> Finding:
    return _clock(await asyncio.to_thread(peer_clock, way))


def _clock(peer: datetime.datetime | None) -> Finding:
    if peer is None:
        return Finding(check="clock", ok=None, detail="the peer does not say its time")
    skew = (datetime.datetime.now(datetime.UTC) - peer).total_seconds()
    if abs(skew) > CLOCK_SKEW_SECONDS:
        detail = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the peer's"
        return Finding(
            check="clock", ok=False, detail=detail, hint="Set the clock; NTP keeps it right.", cause="clock_off"
        )
    return Finding(check="clock", ok=True, detail=f"within {max(1.0, abs(skew)):.0f} s of the peer's")


# --- the session ----------------------------------------------------------------------------------------------------------------


class _Visit:
    """What the gateway says of itself. Implements `lensway.runner.session.Observer`."""

    def __init__(self) -> None:
        self.welcome: Welcome | None = None
        self.welcomed_at = 0.0

    def welcomed(self, welcome: Welcome) -> None:
        """The session is open."""
        self.welcome, self.welcomed_at = welcome, time.time()

    def set_applied(self, revision: int, sources: AssignedSources) -> None:
        """Never: the session is left before."""

    def drained(self, reason: str, after_ms: int) -> None:
        """The gateway gives no new work, which this asks for none of."""

    def resumed(self) -> None:
        """As before."""


class _Assigned(AssignedSources):
    """Resolves the set as the runner does, and leaves before it is in force."""

    async def apply(self, sources: Sequence[AssignedSource], opener: Opener) -> list[object]:
        """Keep the set. Raises TransportClosedError, which ends the session."""
        await super().apply(sources, opener)
        raise TransportClosedError(_ENOUGH)


def _parts(
    settings: RunnerSettings, sources: AssignedSources, library: Library, policy: PolicyInForce, visit: _Visit
) -> SessionParts:
    keys = InstanceKeys.generate()
    clock = SystemClock()
    return SessionParts(
        library=library,
        sources=sources,
        policy=policy,
        keys=keys,
        hello=Hello(
            runner=settings.runner,
            instance=new_instance_id(),
            versions=VERSIONS_SPOKEN,
            software=f"lensway {lensway.__version__} python {platform.python_version()} doctor",
            public_key=keys.public_bytes,
            bridges=dict(library.installed()),
            capacity=1,
            features=(*FEATURES, *sorted(PLAN_FEATURES)),
            hostname=platform.node()[:255],
            started_at=clock.wall().isoformat(timespec="seconds"),
            encodings=tuple(library.encodings()),
        ),
        clock=clock,
        observer=visit,
        loop_lag=lambda: 0.0,
        stood_still=lambda: False,
        forget=lambda _key: None,
    )


async def _of_session(way: Way, transport: Transport, visit: _Visit, parts: SessionParts) -> AsyncIterator[Finding]:
    started = time.monotonic()
    session = Session(transport, parts)
    try:
        async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_SECONDS * 2):
            cause = await session.serve()
    except TimeoutError:
        transport.abort()
        cause = "timeout"
    milliseconds = (time.monotonic() - started) * 1000
    for stage in (Stage.PROXY, Stage.DNS, Stage.TCP, Stage.TLS):
        if (passed := await _passed(way, stage)) is not None:
            yield passed
    if visit.welcome is not None:
        wall = visit.welcome.wall_ms / 1000
        peer = datetime.datetime.fromtimestamp(wall, datetime.UTC) if wall else None
        yield _clock(peer)
    if session.close is not None and session.close.reason in _REFUSALS:
        check, hint = _REFUSALS[session.close.reason]
        yield Finding(
            check=check, ok=False, detail=f"the gateway ends the session: {session.close.reason.value}", hint=hint,
            cause=session.close.reason.value,
        )  # fmt: skip
        return
    yield Finding(check="token", ok=True, detail="accepted by the gateway")
    if cause == _ENOUGH and visit.welcome is not None:
        detail = f"version {visit.welcome.version}, assignments received in {milliseconds:.0f} ms"
        yield Finding(check="protocol", ok=True, detail=detail)
        return
    hint = "Look into the server's log; a proxy that cuts connections, or a server that stops, looks like this too."
    yield Finding(check="protocol", ok=False, detail=f"the session ends: {cause}", hint=hint, cause=cause)


_REFUSALS: Final[Mapping[CloseReason, tuple[str, str]]] = {
    CloseReason.REVOKED: ("token", "An operator revoked or deleted this runner; rotate its token to use it again."),
    CloseReason.UNAUTHENTICATED: ("token", "The token does not belong to LENSWAY_RUNNER_ID: use both of one block."),
    CloseReason.VERSION: ("protocol", "Upgrade the older of runner and server."),
}


# --- sources --------------------------------------------------------------------------------------------------------------------


async def _of_source(source: ServedSource, library: Library) -> Finding:
    check = f"source {source.name}"
    if source.state != READY:
        state, what = source.state, source.cause
        if what.startswith("invalid_settings"):
            what = what.removeprefix("invalid_settings").lstrip(": ")
            hint = "Correct the variable, or the file that it names."
            return Finding(check=check, ok=False, detail=what, hint=hint, cause="invalid_settings")
        detail = f"{state} {what}".strip()
        cause = "refused_by_runner" if state == "refused" else state
        return Finding(check=check, ok=False, detail=detail, hint=_STATES.get(state, ""), cause=cause)
    try:
        report = await _tested(source, library)
    except LenswayError as error:
        facts = error.failure.details
        cause = str(facts.get("class") or error.code.value)
        return Finding(check=check, ok=False, detail=str(error), hint=error.failure.hint or "", cause=cause)
    bad = next((stage for stage in report.stages if stage.ok is False), None)
    if bad is not None:
        detail = f"{bad.stage.value}: {bad.error or 'fails'}"
        return Finding(check=check, ok=False, detail=detail, hint=bad.hint or "", cause=bad.error or "")
    passed = " ".join(stage.stage.value for stage in report.stages if stage.ok)
    warned = "; ".join(each.get("message", "") for each in report.warnings)
    return Finding(check=check, ok=report.ok, detail=passed, hint=warned)


async def _tested(source: ServedSource, library: Library) -> ConnectionReport:
    chunks: list[bytes] = []

    class Sink:
        async def write(self, chunk: bytes) -> None:
            chunks.append(bytes(chunk))

    execution = Execution(
        deadline=time.monotonic() + limits.TEST_TIMEOUT_SECONDS,
        format=RowFormat.DOCUMENT,
        limits=ResultLimits(rows_max=1, bytes_max=limits.MIB, row_bytes_max=limits.MIB),
        tag="doctor",
    )
    await library.perform(
        source.key,
        source.bridge,
        source.config,
        kind="test",
        payload=encode_probes([]),
        execution=execution,
        sink=Sink(),
    )
    return msgspec.json.decode(b"".join(chunks), type=ConnectionReport)
