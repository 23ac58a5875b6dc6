"""A real PgBouncer in front of a private PostgreSQL cluster; only for tests."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from typing import Final

from lensway.testing.deployment import free_ports, wait_until
from lensway.testing.http_caller import can_connect
from lensway.testing.postgres import PostgresCluster, give_to, run_as

_TRIES: Final = 5
_CONFIG: Final = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users.txt
pool_mode = {pool_mode}
default_pool_size = {pool_size}
max_client_conn = 500
logfile = pgbouncer.log
pidfile =
log_connections = 0
log_disconnections = 0
"""


@contextlib.contextmanager
def pgbouncer_before(
    cluster: PostgresCluster,
    directory: pathlib.Path,
    *,
    pool_mode: str,
    logins: dict[str, str],
    pool_size: int = 2,
) -> Iterator[int]:
    """The port of a PgBouncer in front of the cluster, for the length of the block. ``logins`` are names and passwords."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    assert program is not None, "PgBouncer is not installed: make test-deps"
    (directory / "users.txt").write_text("".join(f'"{name}" "{password}"\n' for name, password in logins.items()))
    settings = {"host": cluster.host, "server_port": cluster.port, "pool_mode": pool_mode, "pool_size": pool_size}
    process, port = _started(program, directory, settings)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def _started(program: str, directory: pathlib.Path, settings: dict[str, object]) -> tuple[subprocess.Popen[bytes], int]:
    config, user = directory / "pgbouncer.ini", run_as()
    for port in free_ports(_TRIES):
        config.write_text(_CONFIG.format(port=port, **settings))
        if user is not None:
            # PgBouncer refuses to run as root, as PostgreSQL does.
            give_to(directory, user)
        with (directory / "stderr.txt").open("ab") as said:
            # Names in the configuration are relative: a parent of the directory may be closed to that user.
            process = subprocess.Popen(
                [program, "-q", config.name], cwd=directory, stderr=said, user=user, extra_groups=[] if user else None
            )
        wait_until(lambda: can_connect(port) or process.poll() is not None, seconds=10, what="PgBouncer")  # noqa: B023 - called now
        if process.poll() is None:
            return process, port
        # A connection of another process has taken the port meanwhile.
    raise AssertionError(f"PgBouncer does not start: {(directory / 'stderr.txt').read_text()[-2000:]}")


def through(url: str, port: int) -> str:
    """The URL of the same database and login at another port."""
    parts = urllib.parse.urlsplit(url)
    head, _, _ = parts.netloc.rpartition(":")
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{head}:{port}"))
