"""A network namespace for one runner, with one cable to this machine that can be dropped, one way or both, slowed or unplugged.

Needs the right to make namespaces (root has it). Packets are dropped by a token bucket that is too small for any packet, so
neither end is told; nothing but `ip` and `tc` is used.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
from typing import Final, Self

_numbers = itertools.count(1)
_DROP: Final = ("tbf", "rate", "8bit", "burst", "10b", "limit", "10b")


class Namespace:
    """``host`` is the address of this machine as seen from inside. A context manager."""

    def __init__(self) -> None:
        number = next(_numbers)
        mark = f"{os.getpid() % 100_000}-{number}"
        self.name = f"lensway-{mark}"
        self._outer, self._inner = f"lwo{mark}", f"lwi{mark}"
        # A network of its own for each process and namespace, inside 10.128.0.0/9.
        block = (os.getpid() * 16 + number) % (1 << 21) * 4
        base = (10 << 24) + (128 << 16) + block
        self.host, self.address = (
            ".".join(str((base + offset) >> shift & 255) for shift in (24, 16, 8, 0)) for offset in (1, 2)
        )

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command, runs it inside."""
        return ("ip", "netns", "exec", self.name)

    def __enter__(self) -> Self:
        try:
            _run("ip", "netns", "add", self.name)
            _run("ip", "link", "add", self._outer, "type", "veth", "peer", "name", self._inner, "netns", self.name)
            _run("ip", "address", "add", f"{self.host}/30", "dev", self._outer)
            _run("ip", "link", "set", self._outer, "up")
            self._inside("ip", "address", "add", f"{self.address}/30", "dev", self._inner)
            self._inside("ip", "link", "set", self._inner, "up")
            self._inside("ip", "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for command in (("ip", "link", "delete", self._outer), ("ip", "netns", "delete", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run(*command)

    def drop(self, *, up: bool = True, down: bool = True) -> None:
        """Lose every packet that leaves the namespace (``up``), that enters it (``down``), or both."""
        if up:
            self._shape_up(*_DROP)
        if down:
            self._shape_down(*_DROP)

    def slow(self, bits_per_second: int) -> None:
        """Let no more than so much pass each way."""
        rate = ("tbf", "rate", f"{bits_per_second}bit", "burst", "16kb", "latency", "400ms")
        self._shape_up(*rate)
        self._shape_down(*rate)

    def unplug(self) -> None:
        """Take the cable out: the interface is down on this side."""
        _run("ip", "link", "set", self._outer, "down")

    def heal(self) -> None:
        """No more faults."""
        _run("ip", "link", "set", self._outer, "up")
        for command in (
            ("tc", "qdisc", "delete", "dev", self._outer, "root"),
            (*self.prefix, "tc", "qdisc", "delete", "dev", self._inner, "root"),
        ):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run(*command)

    def _shape_down(self, *shape: str) -> None:
        _run("tc", "qdisc", "replace", "dev", self._outer, "root", *shape)

    def _shape_up(self, *shape: str) -> None:
        self._inside("tc", "qdisc", "replace", "dev", self._inner, "root", *shape)

    def _inside(self, *command: str) -> None:
        _run(*self.prefix, *command)


@functools.cache
def why_unavailable() -> str:
    """Why this process cannot make namespaces; "" when it can."""
    missing = [program for program in ("ip", "tc") if shutil.which(program) is None]
    if missing:
        return f"{' and '.join(missing)} not found (Debian: iproute2)"
    try:
        with Namespace() as namespace:
            namespace.drop()
            namespace.heal()
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd[:3])}` is not allowed here; root may"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
