"""The server, wired: store, dispatch, gateway, HTTP, Console; started in order, stopped the other way round."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.routing import BaseRoute, Mount, Route

from lensway import limits
from lensway.auth.address import Network
from lensway.auth.derive import derive
from lensway.auth.limiter import FailureLimiter
from lensway.auth.secret import Secret
from lensway.bridges.contract import AddressPolicy
from lensway.bridges.library import ExecutionLibrary
from lensway.clock import SystemClock
from lensway.compose.accepting import accept
from lensway.compose.certificates import Certificates
from lensway.compose.doors import TlsDoor
from lensway.compose.notify import READY, STOPPING, notify
from lensway.compose.process import calm_collector
from lensway.compose.websocket import WebSocketTransport
from lensway.console.pages import Console
from lensway.console.prefix import Prefixed
from lensway.dispatch.routes import SnapshotRoutes
from lensway.dispatch.shell import Dispatcher
from lensway.errors import ErrorCode, LenswayError
from lensway.gateway.listener import Listener
from lensway.inline.executor import InlineExecutor
from lensway.kinds import BUILT_IN, Kinds
from lensway.observe.metrics import Metrics
from lensway.observe.refusals import Refusals
from lensway.observe.trace import Tracer
from lensway.observe.tracing import tracer_of
from lensway.service.app import Operations, build_app
from lensway.service.connection import http_shares
from lensway.service.control_plane import ControlPlane
from lensway.service.data_plane import DataPlane
from lensway.service.http import Endpoint
from lensway.service.listening import MetricsListener, bound, http_server
from lensway.store.bootstrap import DataDirectory, admin_key_notice, check_master_keys, first_admin_key
from lensway.store.sqlite import SqliteStore
from lensway.usecases.audit import Audit, AuditRetention
from lensway.usecases.bundle import UseCases
from lensway.usecases.connection_tests import ConnectionTests
from lensway.usecases.desk import Desk
from lensway.usecases.endings import KeyEndings
from lensway.usecases.environments import Environments
from lensway.usecases.events import EventHub
from lensway.usecases.explain import Explanations
from lensway.usecases.fleet_details import FleetDetails
from lensway.usecases.fleet_pages import FleetPages
from lensway.usecases.keys import Keys
from lensway.usecases.lenses import Lenses
from lensway.usecases.measuring import recorder, watch
from lensway.usecases.overview import Overview
from lensway.usecases.pages import pages_of
from lensway.usecases.push import Declarations
from lensway.usecases.query import Queries
from lensway.usecases.remedies import Remedies
from lensway.usecases.requests import RequestRing, Requests
from lensway.usecases.runners import Runners
from lensway.usecases.scaffold import Scaffolds
from lensway.usecases.sign_ins import SignIns
from lensway.usecases.sources import Sources
from lensway.usecases.statuses import Statuses, recall_sightings
from lensway.usecases.tally import AuditTally

_log = structlog.get_logger("lensway.server")

_GENERATION_BITS: Final = 32
"""Sessions of one start of the server; with two million starts their ids stay below 2**53."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What `lensway serve` was told."""

    data_dir: pathlib.Path
    http_host: str
    http_port: int
    gateway_host: str
    gateway_port: int
    public_url: str
    gateway_url: str
    tls_cert: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    trusted_proxies: tuple[Network, ...] = ()
    source_dirs: tuple[pathlib.Path, ...] = ()
    deny_private_sources: bool = False
    allows_sockets: bool = False
    """May inline sources be reached over Unix sockets of this machine."""
    admin_key: Secret | None = None
    master_key: str | None = None
    previous_master_keys: str | None = None
    """Still decrypt; separated by commas."""
    drain_seconds: float = limits.DRAIN_SECONDS
    stall_seconds: float = limits.STALL_TIMEOUT_SECONDS
    metrics_address: tuple[str, int] | None = None
    """Where metrics are served without a key; None: nowhere."""
    lame_duck_seconds: float = 0.0
    """Time between readiness off and the first refused connection, for load balancers to notice."""
    audit_days: int = limits.AUDIT_DAYS_DEFAULT
    """Rows of the audit are kept for so long; 0: for ever."""
    is_losing_pushes: bool = False
    """For the proof that reconciliation works: assignment sets are pushed by heartbeats only."""

    def check_addresses(self) -> None:
        """Raises LenswayError INVALID_REQUEST when two listeners were given one address."""
        taken = {(self.http_host, self.http_port): "--http"}
        others = {"--gateway": (self.gateway_host, self.gateway_port), "--metrics": self.metrics_address}
        for option, address in others.items():
            if address is None:
                continue
            if (first := taken.setdefault(address, option)) != option:
                raise LenswayError(
                    ErrorCode.INVALID_REQUEST,
                    f"{first} and {option} are the same address, {address[0]}:{address[1]}",
                    hint=f"Choose another port with {option} HOST:PORT.",
                )

    def policy(self) -> AddressPolicy:
        """Where inline sources may point."""
        forbidden = ("/proc", "/sys", "/dev", str(self.data_dir.resolve()))
        dirs = tuple(str(each.resolve()) for each in self.source_dirs)
        return AddressPolicy(
            deny_private=self.deny_private_sources,
            source_dirs=dirs,
            forbidden_dirs=forbidden,
            allows_sockets=self.allows_sockets,
        )

    def certificates(self) -> Certificates | None:
        """The certificate of both listeners. Raises LenswayError INVALID_REQUEST."""
        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise LenswayError(ErrorCode.INVALID_REQUEST, "--tls-cert and --tls-key belong together")
        return Certificates(self.tls_cert, self.tls_key)

    @property
    def path_prefix(self) -> str:
        """The path below which a reverse proxy serves the API and the Console; "" for the root."""
        return urlsplit(self.public_url).path.rstrip("/")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Sockets:
    """The listening sockets of one server."""

    http: socket.socket
    gateway: socket.socket
    metrics: socket.socket | None

    @classmethod
    def bound(cls, settings: ServerSettings, stack: contextlib.ExitStack) -> _Sockets:
        """Bind all of them; `stack` closes them. Raises LenswayError naming the option whose address is not available."""
        http = stack.enter_context(bound(settings.http_host, settings.http_port, "--http"))
        gateway = stack.enter_context(bound(settings.gateway_host, settings.gateway_port, "--gateway"))
        metrics = None
        if settings.metrics_address is not None:
            metrics = stack.enter_context(bound(*settings.metrics_address, "--metrics"))
        return cls(http=http, gateway=gateway, metrics=metrics)


class Server:
    """One server process."""

    def __init__(
        self,
        settings: ServerSettings,
        announce: Callable[[str], None],
        kinds: Kinds = BUILT_IN,
        *,
        warnings: Sequence[str] = (),
    ) -> None:
        self._settings = settings
        self._warnings = warnings
        self._kinds = kinds
        self._announce = announce
        self._stopping = asyncio.Event()
        self._tracer: Tracer | None = None
        self._certificates: Certificates | None = None
        self._first_session = 1

    def stop(self) -> None:
        """Finish what runs, then end. Asked a second time, end at once: the store survives that at any moment."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped.

        Raises:
            LenswayError: for settings, ports or a data directory that cannot be used.
        """
        settings = self._settings
        settings.check_addresses()
        check_master_keys(settings.master_key, settings.previous_master_keys)
        self._certificates = settings.certificates()
        tls = None if self._certificates is None else self._certificates.context
        clock = SystemClock()
        tracer = self._tracer = tracer_of("lensway-server", os.environ, clock)
        with contextlib.ExitStack() as open_sockets:
            # Before anything is written: a start that fails on an address leaves no data directory and no key behind.
            sockets = _Sockets.bound(settings, open_sockets)
            await self._run(sockets, clock, tls, tracer)

    async def _run(
        self, sockets: _Sockets, clock: SystemClock, tls: ssl.SSLContext | None, tracer: Tracer | None
    ) -> None:
        settings = self._settings
        directory = DataDirectory.open(settings.data_dir)
        try:
            master = directory.master_key(settings.master_key)
            previous = directory.previous_keys(settings.previous_master_keys)
            store = SqliteStore.open(directory.database, master_key=master, clock=clock, previous_keys=previous)
        except BaseException:
            directory.close()
            raise
        try:
            self._first_session = directory.next_generation() << _GENERATION_BITS
            await self._serve(store, (master, *previous), clock, tls, sockets)
        finally:
            if tracer is not None:
                tracer.close()
            store.close()
            directory.close()

    async def _serve(
        self,
        store: SqliteStore,
        masters: Sequence[bytes],
        clock: SystemClock,
        tls: ssl.SSLContext | None,
        sockets: _Sockets,
    ) -> None:
        settings = self._settings
        metrics, hub, ring, tally = Metrics(), EventHub(clock), RequestRing(), AuditTally(store, clock)
        library = ExecutionLibrary(settings.policy(), self._kinds)
        executor = InlineExecutor(store, library, tracer=self._tracer)
        statuses = Statuses(store, hub, clock, tally.note)
        # Session ids grow over restarts too, whatever the wall clock says: an epoch of before is never valid again.
        dispatcher = Dispatcher(
            SnapshotRoutes(store),
            executor,
            clock,
            on_status=statuses.changed,
            on_record=recorder(metrics, ring),
            first_session=self._first_session,
        )
        statuses.look_at(dispatcher.fleet)
        executor.connect(dispatcher.handle)
        await recall_sightings(store, dispatcher.fleet, clock)
        listener = self._gateway(store, dispatcher, clock, tally)
        store.subscribe(lambda _snapshot, _changes: dispatcher.catalog_changed())
        endings = KeyEndings(store, dispatcher, clock, tally.note)
        desk = Desk(
            store=store,
            dispatcher=dispatcher,
            hub=hub,
            clock=clock,
            endings=endings,
            tally=tally,
            gateway_url=settings.gateway_url,
            public_url=settings.public_url,
            kinds=self._kinds,
        )
        watch(metrics, store, dispatcher, lambda: library.connections)
        queries = self._queries(desk, ring, masters)
        operations, use = Operations(desk, metrics), _use_cases(desk, library, executor, queries, ring, store)
        endpoint = self._endpoint(desk, metrics)
        pages = self._console(use, desk, masters[0]).routes()
        console = [_below(route, settings.path_prefix) for route in pages] if settings.path_prefix else pages
        planes = (DataPlane(use), ControlPlane(use, desk), operations)
        app = build_app(endpoint, planes, mounts=console)
        scraped = None if sockets.metrics is None else MetricsListener(sockets.metrics, metrics)
        if scraped is not None:
            scraped.start()
        endings.start()
        retention = AuditRetention(desk, settings.audit_days)
        retention.start()
        if self._certificates is not None:
            self._certificates.start()
        try:
            await self._listen(app, listener, desk, executor, operations, statuses, tls, sockets)
        finally:
            for part in (scraped, retention, statuses, endings, tally, self._certificates):
                if part is not None:
                    await part.close()

    def _gateway(self, store: SqliteStore, dispatcher: Dispatcher, clock: SystemClock, tally: AuditTally) -> Listener:
        settings = self._settings
        return Listener(
            store,
            dispatcher,
            clock,
            transport_of=WebSocketTransport,
            door_of=TlsDoor,
            accept=accept,
            limiter=FailureLimiter(),
            trusted_proxies=settings.trusted_proxies,
            push_is_lost=lambda: settings.is_losing_pushes,
            note=tally.note,
        )

    def _queries(self, desk: Desk, ring: RequestRing, masters: Sequence[bytes]) -> Queries:
        cursor_key, *previous = [derive(each, "cursor") for each in masters]
        stall = self._settings.stall_seconds
        return Queries(desk, ring, cursor_key, stall_seconds=stall, previous_cursor_keys=previous)

    def _endpoint(self, desk: Desk, metrics: Metrics) -> Endpoint:
        return Endpoint(
            snapshots=desk.store,
            limiter=FailureLimiter(),
            metrics=metrics,
            clock=desk.clock,
            endings=desk.endings,
            note=desk.tally.note,
            trusted_proxies=self._settings.trusted_proxies,
            tracer=self._tracer,
        )

    def _console(self, use: UseCases, desk: Desk, master: bytes) -> Console:
        return Console(
            use,
            snapshots=desk.store,
            clock=desk.clock,
            signing_key=derive(master, "sign-in"),
            is_secure=self._settings.public_url.startswith("https://"),
            trusted_proxies=self._settings.trusted_proxies,
            on_use=desk.endings.used,
            note=desk.tally.note,
        )

    async def _listen(
        self,
        app: object,
        listener: Listener,
        desk: Desk,
        executor: InlineExecutor,
        operations: Operations,
        statuses: Statuses,
        tls: ssl.SSLContext | None,
        sockets: _Sockets,
    ) -> None:
        settings, refusals = self._settings, Refusals("http")
        http = http_server(
            app,
            settings.http_host,
            settings.http_port,
            shares=http_shares(settings.trusted_proxies, refusals.note),
            door=None if tls is None else functools.partial(TlsDoor, tls=tls),
            accept=accept,
            is_tls=settings.public_url.startswith("https://"),
            stall_seconds=settings.stall_seconds,
            drain_seconds=settings.drain_seconds,
        )
        await listener.start(sockets.gateway, tls=tls)
        # Last: from here on the server serves, and prints the key that it has just stored.
        minted = await self._first_key(desk)
        serving = asyncio.create_task(http.serve(sockets=[sockets.http]), name="http")
        self._install_signals()
        stopping = asyncio.create_task(self._stopping.wait(), name="wait for the end")
        calm_collector()
        operations.is_ready = True
        self._greet(minted)
        notify(READY)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        # Readiness first, so that a load balancer turns away before anything is refused. Then no new connections, and what was
        # begun is finished; runners serve it to the end. Only then are they told to go, and when to come back.
        operations.is_ready = False
        notify(STOPPING)
        self._announce("stopping: finishing what runs")
        await asyncio.sleep(settings.lame_duck_seconds)
        http.should_exit = True
        desk.hub.close()
        await asyncio.wait({serving})
        statuses.stop()
        await listener.drain(limits.COME_BACK_MS)
        await desk.dispatcher.stop(limits.CANCEL_SECONDS)
        await listener.close()
        await executor.close()
        desk.dispatcher.close()
        serving.result()

    async def _first_key(self, desk: Desk) -> Secret | None:
        """A new admin key if the deployment has none; the notice about a given one is printed."""
        given = self._settings.admin_key
        minted = await first_admin_key(desk.store, given, desk.clock)
        notice = admin_key_notice(desk.store.current(), given, desk.clock)
        if notice is not None:
            self._announce(notice)
        return minted

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _reload(self) -> None:
        """SIGHUP: read again what stands in files."""
        if self._certificates is not None:
            self._certificates.reload()

    def _greet(self, minted: Secret | None) -> None:
        settings = self._settings
        self._announce(f"Lensway serves {settings.public_url}")
        self._announce(f"  Console   {settings.public_url}/console/")
        self._announce(f"  runners   {settings.gateway_url or 'at this gateway; set --gateway-url to name it'}")
        self._announce(f"  data      {settings.data_dir}")
        for warning in self._warnings:
            self._announce(f"warning: {warning}")
        if minted is not None:
            self._announce(f"  admin key {minted.reveal()}   (shown once)")


def _below(route: BaseRoute, prefix: str) -> BaseRoute:
    """The route, whose pages are served below a path prefix."""
    if isinstance(route, Mount):
        return Mount(route.path, app=Prefixed(route.app, prefix))
    assert isinstance(route, Route), "the Console has routes and mounts"
    return Route(route.path, Prefixed(route.app, prefix))


def _use_cases(
    desk: Desk,
    library: ExecutionLibrary,
    executor: InlineExecutor,
    queries: Queries,
    ring: RequestRing,
    store: SqliteStore,
) -> UseCases:
    tests = ConnectionTests(desk)
    sources = Sources(desk, tests, library.check, executor.condition)
    fleet = FleetPages(desk)
    environments, keys, sign_ins = Environments(desk), Keys(desk), SignIns(desk, store)
    audit = Audit(desk, store.verify_audit)
    return UseCases(
        queries=queries,
        explanations=Explanations(desk, queries),
        requests=Requests(desk, ring),
        sources=sources,
        lenses=Lenses(desk),
        scaffolds=Scaffolds(desk),
        runners=Runners(desk, tests),
        fleet=fleet,
        details=FleetDetails(desk, fleet),
        overview=Overview(desk, fleet),
        remedies=Remedies(desk, fleet),
        environments=environments,
        keys=keys,
        declarations=Declarations(desk, sources),
        audit=audit,
        sign_ins=sign_ins,
        pages=pages_of(
            desk,
            ring=ring,
            queries=queries,
            keys=keys,
            audit=audit,
            environments=environments,
            sign_ins=sign_ins,
        ),
    )
