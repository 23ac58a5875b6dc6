"""What both programs do to their process before they serve."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import Final


def scrub_environment() -> None:
    """Take away what would configure a driver behind our back (PGPASSWORD, PGSSLMODE, PGSERVICE and the like)."""
    for name in [name for name in os.environ if name.startswith("PG") or name == "SSLKEYLOGFILE"]:
        del os.environ[name]


_COLLECT_AFTER: Final = (20_000, 20, 20)
"""New containers before the youngest, and collections before each older generation is looked at. Values on the hot path have no
cycles, so there is little to find, and looking at thousands of remembered requests stops every query meanwhile."""


def calm_collector() -> None:
    """Take what was loaded at the start out of the garbage collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def leave() -> None:
    """The program is over: end the process, even if a thread still waits for a database that does not answer."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
