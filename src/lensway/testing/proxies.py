"""Real proxies for tests: tinyproxy for HTTP, microsocks for SOCKS5; and the name of this machine that is not loopback's."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import subprocess
from collections.abc import Iterator

from lensway.testing.deployment import free_ports, wait_until

HOST = socket.gethostname()
"""Not among the names of the machine itself, so that it is reached through a proxy."""
ADDRESS = socket.gethostbyname(HOST)


@contextlib.contextmanager
def tinyproxy(directory: pathlib.Path, *lines: str) -> Iterator[int]:
    """The port of an HTTP proxy with these lines in its configuration."""
    (port,) = free_ports(1)
    file = directory / f"tinyproxy-{port}.conf"
    file.write_text(
        "\n".join(
            [
                f"Port {port}",
                "Listen 127.0.0.1",
                "Timeout 60",
                f'LogFile "{directory}/tinyproxy-{port}.log"',
                *lines,
                "",
            ]
        )
    )
    with _running(["tinyproxy", "-d", "-c", str(file)], port):
        yield port


@contextlib.contextmanager
def behind_tls(directory: pathlib.Path, upstream: int, certificate: pathlib.Path, key: pathlib.Path) -> Iterator[int]:
    """The port of an HAProxy that takes TLS and passes the bytes inside on to ``upstream``."""
    (port,) = free_ports(1)
    whole = directory / f"tls-{port}.pem"
    whole.write_bytes(certificate.read_bytes() + key.read_bytes())
    file = directory / f"haproxy-{port}.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen tls\n bind 127.0.0.1:{port} ssl crt {whole}\n server one 127.0.0.1:{upstream}\n"
    )
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    assert program is not None, "HAProxy is not installed: make test-deps"
    with _running([program, "-f", str(file)], port):
        yield port


@contextlib.contextmanager
def microsocks(*options: str) -> Iterator[int]:
    """The port of a SOCKS5 proxy."""
    (port,) = free_ports(1)
    with _running(["microsocks", "-i", "127.0.0.1", "-p", str(port), *options], port):
        yield port


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        wait_until(listens, seconds=10, what=command[0])
        yield
    finally:
        process.terminate()
        process.wait(10)
