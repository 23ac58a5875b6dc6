"""The cable of a network namespace: dropped both ways, one way, unplugged, healed; where none can be made, it says why."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lensway.testing.chaos.namespace import Namespace, why_unavailable

SENDER = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    peer.sendall(line.encode())
    peer.settimeout(10)
    print(peer.recv(100).decode().strip(), flush=True)
"""


@pytest.fixture
def namespace() -> Iterator[Namespace | None]:
    with contextlib.ExitStack() as stack:
        yield None if why_unavailable() else stack.enter_context(Namespace())


def heard(peer: socket.socket, seconds: float = 10.0) -> bytes:
    peer.settimeout(seconds)
    try:
        return peer.recv(100)
    except TimeoutError:
        return b""


def test_a_dropped_cable_loses_what_it_should_and_nothing_is_lost_for_good(namespace: Namespace | None) -> None:
    if namespace is None:
        # The proxy breaks links everywhere; namespaces add the kernel's own view, and say what they lack.
        assert "root may" in why_unavailable() or "iproute2" in why_unavailable()
        return
    with socket.create_server((namespace.host, 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [*namespace.prefix, sys.executable, "-c", SENDER, namespace.host, port]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
            peer, address = listener.accept()
            assert address[0] == namespace.address

            def say(text: str) -> None:
                sender.stdin.write(text + "\n")
                sender.stdin.flush()

            with peer:
                for break_it in (
                    lambda: namespace.drop(up=True, down=False),
                    namespace.drop,
                    namespace.unplug,
                ):
                    break_it()
                    say("hello")
                    assert heard(peer, 0.3) == b"", "the way up is dead"
                    namespace.heal()
                    assert heard(peer) == b"hello\n", "the kernel sends it again"
                    peer.sendall(b"yes\n")
                    assert sender.stdout.readline() == "yes\n"
                namespace.drop(up=False, down=True)
                say("hello")
                assert heard(peer) == b"hello\n", "the way up works"
                namespace.heal()
                peer.sendall(b"yes\n")
                assert sender.stdout.readline() == "yes\n"
            sender.stdin.close()
