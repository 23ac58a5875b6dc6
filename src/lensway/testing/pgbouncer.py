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

_CONFIG: Final = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users.txt
pool_mode = {pool_mode}
default_pool_size = {pool_size}
max_client_conn = 500
logfile = {directory}/pgbouncer.log
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
    (port,) = free_ports(1)
    config = directory / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            host=cluster.host,
            server_port=cluster.port,
            port=port,
            directory=directory,
            pool_mode=pool_mode,
            pool_size=pool_size,
        )
    )
    (directory / "users.txt").write_text("".join(f'"{name}" "{password}"\n' for name, password in logins.items()))
    user = run_as()
    if user is not None:
        # PgBouncer refuses to run as root, as PostgreSQL does.
        give_to(directory, user)
    process = subprocess.Popen(
        [program, "-q", str(config)], stderr=subprocess.DEVNULL, user=user, extra_groups=[] if user else None
    )
    try:
        wait_until(lambda: can_connect(port), seconds=10, what="PgBouncer")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def through(url: str, port: int) -> str:
    """The URL of the same database and login at another port."""
    parts = urllib.parse.urlsplit(url)
    head, _, _ = parts.netloc.rpartition(":")
    return urllib.parse.urlunsplit(parts._replace(netloc=f"{head}:{port}"))
