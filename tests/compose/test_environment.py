"""What both programs do to their process: threads share the C library's memory."""

from __future__ import annotations

import os
import subprocess
import sys

_ARENAS = """
import ctypes, re, threading
from lensway.compose.process import share_arenas
share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
libc.free.argtypes = (ctypes.c_void_p,)
meeting = threading.Barrier(8)
def use():
    meeting.wait(30)
    taken = [libc.malloc(1000) for _ in range(100)]
    meeting.wait(30)
    for each in taken:
        libc.free(each)
threads = [threading.Thread(target=use) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_char_p)
libc.fflush.argtypes = (ctypes.c_void_p,)
libc.malloc_info.argtypes = (ctypes.c_int, ctypes.c_void_p)
out = libc.fdopen(1, b"w")
libc.malloc_info(0, out)
libc.fflush(out)
"""


def arenas(**environment: str) -> int:
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    found = subprocess.run(
        [sys.executable, "-c", _ARENAS], check=True, capture_output=True, text=True, env=inherited | environment
    )
    return found.stdout.count("<heap nr=")


def test_many_threads_use_two_arenas_unless_the_operator_wants_others() -> None:
    assert arenas() == 2
    assert arenas(MALLOC_ARENA_MAX="5") > 2


_DUMPABLE = """
import ctypes
from lensway.compose.process import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3))
"""


def test_memory_is_never_dumped() -> None:
    ran = subprocess.run([sys.executable, "-c", _DUMPABLE], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"
