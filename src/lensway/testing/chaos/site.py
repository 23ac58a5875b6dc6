"""The stage of chaos runs: a real PostgreSQL, a real server, and runners whose every link can be broken.

Each runner reaches the gateway and the database through proxies of its own, and logs in to the database under a name of its
own, so that the database's log says who executed what. One that is ``apart`` lives in a network namespace as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import asyncpg

from lensway.testing.chaos.callers import FIELDS, LENSES, TABLES
from lensway.testing.chaos.history import INLINE
from lensway.testing.chaos.namespace import Namespace
from lensway.testing.chaos.proxy import ChaosProxy
from lensway.testing.chaos.statements import LOG_SETTINGS
from lensway.testing.deployment import Deployment, Process, RunnerIdentity, wait_until
from lensway.testing.postgres import PostgresCluster

SOURCE: Final = "main"
DATABASE: Final = "chaos"
_LOOK_SECONDS: Final = 0.1
"""Between looks at a status: looking costs the server what callers want of it."""


@dataclasses.dataclass(slots=True, kw_only=True)
class SiteRunner:
    """One runner: who it is, its process, and what its links go through."""

    identity: RunnerIdentity
    gateway: ChaosProxy
    database: ChaosProxy
    token_file: pathlib.Path
    namespace: Namespace | None
    process: Process | None = None

    @property
    def running(self) -> Process:
        """The process, which has been started."""
        assert self.process is not None, f"{self.identity.name} was started"
        return self.process


class Site:
    """Database, server and runners in one directory. A context manager: everything ends with it.

    ``is_witnessed`` makes the database log every statement, tagged with request and attempt: needed by the checker of histories,
    left out where times are measured.
    """

    def __init__(
        self, directory: pathlib.Path, *, is_witnessed: bool = False, environment: Mapping[str, str] | None = None
    ) -> None:
        directory.chmod(0o711)
        self._directory = directory
        self._is_witnessed = is_witnessed
        (directory / "server").mkdir()
        self._stack = contextlib.ExitStack()
        self.cluster = PostgresCluster(directory / "postgres", settings=LOG_SETTINGS if is_witnessed else None)
        self.deployment = Deployment(
            directory / "server", environment=environment, serve_options=("--log-level", "error")
        )
        self.runners: dict[str, SiteRunner] = {}
        self.executors: dict[str, str] = {"reader": INLINE}
        self._password = secrets.token_urlsafe(12)
        self.client = self.deployment.client()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.cluster.stop, "immediate")
            self.cluster.start()
            asyncio.run(self._fill())
            stack.push(self.deployment.__exit__)
            self.deployment.start_server()
            self._declare()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    # --- setting up -------------------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        await self.cluster.create_role_and_database("reader", self._password, DATABASE)
        await self.execute(*TABLES)

    async def execute(self, *statements: str) -> None:
        """Run statements as the owner of the database."""
        connection = await asyncpg.connect(self.cluster.superuser_dsn(DATABASE))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    def run_sql(self, *statements: str) -> None:
        """As `execute`, for who has no event loop."""
        asyncio.run(self.execute(*statements))

    def _declare(self) -> None:
        config = {
            "host": "127.0.0.1",
            "port": self.cluster.port,
            "user": "reader",
            "password": self._password,
            "database": DATABASE,
            "statement_tags": "on" if self._is_witnessed else "off",
        }
        made = self.client.post("/v1/sources", json={"name": SOURCE, "bridge": "postgres", "config": config})
        assert made.status_code == 201, made.text
        for lens, definition in LENSES.items():
            self.declare_lens(lens, **definition)

    def declare_lens(self, lens: str, **definition: Any) -> None:
        """Declare a lens with the fields of the ledger."""
        body = {"source": SOURCE, "fields": FIELDS, **definition}
        made = self.client.put(f"/v1/lenses/{lens}", json=body)
        assert made.status_code == 200, made.text

    def add_runner(self, name: str, *, is_apart: bool = False, is_assigned: bool = True) -> SiteRunner:
        """Register a runner with links of its own, start it, and wait until it serves."""
        namespace = self._stack.enter_context(Namespace()) if is_apart else None
        host = "127.0.0.1" if namespace is None else namespace.host
        gateway = ChaosProxy(("127.0.0.1", self.deployment.gateway_port), host=host)
        database = ChaosProxy(("127.0.0.1", self.cluster.port), host=host)
        login = f"login_{name}"
        asyncio.run(self.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{self._password}'", f"GRANT reader TO {login}"))
        self.executors[login] = name
        identity = self.deployment.create_runner(name)
        token_file = self._directory / f"token-{name}"
        token_file.write_text(identity.token)
        runner = self.runners[name] = SiteRunner(
            identity=identity,
            gateway=self._stack.enter_context(gateway),
            database=self._stack.enter_context(database),
            token_file=token_file,
            namespace=namespace,
        )
        self.start(name)
        if is_assigned:
            self.deployment.assign(name, SOURCE)
            self.wait_well(name)
        return runner

    # --- life of a runner -------------------------------------------------------------------------------------------------

    def start(self, name: str, *, wait: bool = True) -> Process:
        """Start a process of this runner."""
        runner = self.runners[name]
        proxy = runner.database
        runner.process = self.deployment.start_runner(
            runner.identity,
            environment={
                "LENSWAY_RUNNER_TOKEN_FILE": str(runner.token_file),
                "LENSWAY_SOURCE_MAIN_HOST": proxy.host,
                "LENSWAY_SOURCE_MAIN_PORT": str(proxy.port),
                "LENSWAY_SOURCE_MAIN_USER": f"login_{name}",
                "LENSWAY_SOURCE_MAIN_PASSWORD": self._password,
                "LENSWAY_SOURCE_MAIN_SSLMODE": "disable",
            },
            gateway_url=f"ws://{runner.gateway.host}:{runner.gateway.port}/connect",
            options=("--insecure",),
            prefix=() if runner.namespace is None else runner.namespace.prefix,
            wait=wait,
        )
        return runner.process

    def status(self, name: str) -> dict[str, Any]:
        """What the API says of a runner."""
        return dict(self.client.get(f"/v1/runners/{name}").json())

    def is_well(self, name: str) -> bool:
        """True when the runner is healthy and its wanted set is in force."""
        status = self.status(name)
        return status["status"] == "healthy" and all(
            each["revision"] == each["wantedRevision"] for each in status["instances"]
        )

    def wait_well(self, name: str, *, seconds: float = 60.0) -> float:
        """Return once the runner is well; the seconds it took. Raises AssertionError."""
        what = f"{name} to be well"
        return wait_until(lambda: self.is_well(name), seconds=seconds, what=what, poll_seconds=_LOOK_SECONDS)

    def reaches_database(self, name: str) -> bool:
        """True when the runner itself finds that it reaches the database now."""
        tested = self.client.post(f"/v1/sources/{SOURCE}/test", params={"runner": name})
        return tested.status_code == 200 and all(each["ok"] for each in tested.json()["results"])

    def wait_reaching(self, name: str, *, seconds: float = 60.0) -> float:
        """Return once the runner reaches the database; the seconds it took. Raises AssertionError."""
        return wait_until(lambda: self.reaches_database(name), seconds=seconds, what=f"{name} to reach the database")

    def names(self) -> Sequence[str]:
        """The runners of this site."""
        return tuple(self.runners)
