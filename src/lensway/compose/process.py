"""What both programs do to their process before they serve."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import sys
import threading
from typing import Final

from lensway.kinds import Kinds

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]


def open_streams() -> None:
    """Open the null device for each standard stream that is closed. Before anything else is opened.

    A socket would get the descriptor of the missing stream otherwise: what is printed would go to a peer, and the event loop's
    library aborts when it closes such a descriptor.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is this one: those below it are open by now.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def scrub_environment(kinds: Kinds) -> None:
    """Take away the variables that would configure a driver behind our back (`PGPASSWORD`, `PGSERVICE` and the like)."""
    for name in [name for name in os.environ if kinds.is_scrubbed(name)]:
        del os.environ[name]


def open_files() -> None:
    """Allow this process as many open files as its hard limit says: every caller and every runner is one."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_SET_DUMPABLE: Final = 4  # PR_SET_DUMPABLE of Linux's prctl.h


def forbid_dumps() -> None:
    """Let no crash write this process's memory, with its keys and credentials, into a core file.

    The limit is not asked where a program takes cores over a pipe; Linux has a switch for that, and it keeps other processes of
    the same user from attaching too.
    """
    if resource is not None:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0)


_ARENA_MAX_OPTION: Final = -8  # M_ARENA_MAX of glibc's malloc.h
_ARENAS: Final = 2


def share_arenas() -> None:
    """Let all threads take their memory from two arenas, where the C library is glibc, unless MALLOC_ARENA_MAX says otherwise.

    It makes up to eight for each core, and each keeps what was freed in it: fifty exports read by as many threads left 13 MiB
    more that way. Before other threads are started.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_ARENA_MAX_OPTION, _ARENAS)


_COLLECT_AFTER: Final = (1_000, 5, 1_600)
"""Thresholds of the three generations. Values on the hot path have no cycles, so a collection finds little there, and a look at
thousands of kept requests delays every query. Connections of strangers leave cycles behind: freeing 20,000 such objects at once
takes 30 ms, so the younger generations are collected more often."""


def calm_collector() -> None:
    """Take what was loaded at the start out of the garbage collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def leave(code: int) -> None:
    """The program is over: end the process, even if a thread still waits for a database that does not answer."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
