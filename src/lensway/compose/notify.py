"""What a process tells the service manager that started it with `Type=notify`: that it runs, that it stops."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def notify(state: str) -> None:
    """Send ``state`` to the socket that NOTIFY_SOCKET names; without one, or without a reader there, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        # An `@` stands for the zero byte that begins an abstract address.
        manager.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
