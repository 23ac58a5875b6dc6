"""A name server on loopback that answers for some names and never for others; and a view of the file system that points to it.

Needs the rights to make mount namespaces and to bind port 53 (root has them).
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
from typing import Final, Self

_ADDRESS: Final = f"127.53.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"


class SilentResolver:
    """Says 127.0.0.1 for every name, but nothing for names that end in ``.dead``. A context manager."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.unanswered = 0
        """Questions that were left without an answer."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._file = directory / "resolv.conf"
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command, has it ask this name server."""
        return ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(self._file))

    def __enter__(self) -> Self:
        self._socket.bind((_ADDRESS, 53))
        self._file.write_text(f"nameserver {_ADDRESS}\n")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                question, asker = self._socket.recvfrom(4096)
            except OSError:
                return
            if not question:
                return
            labels, end = _name(question)
            if labels[-1:] == [b"dead"]:
                self.unanswered += 1
                continue
            is_address = question[end : end + 2] == b"\0\x01"
            head = question[:2] + b"\x81\x80\0\x01" + (b"\0\x01" if is_address else b"\0\0") + b"\0\0\0\0"
            answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01" if is_address else b""
            self._socket.sendto(head + question[12 : end + 4] + answer, asker)


@functools.cache
def why_unavailable() -> str:
    """Why this process cannot have such a name server; "" when it can."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            with SilentResolver(pathlib.Path(directory)) as resolver:
                subprocess.run([*resolver.prefix, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return "a mount namespace and port 53 are not allowed here; root may"
    return ""


def _name(question: bytes) -> tuple[list[bytes], int]:
    labels, at = [], 12
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size])
        at += 1 + size
    return labels, at + 1
