"""What both programs do to their environment before they connect anywhere."""

from __future__ import annotations

import os


def scrub_environment() -> None:
    """Take away what would configure a driver behind our back (PGPASSWORD, PGSSLMODE, PGSERVICE and the like)."""
    for name in [name for name in os.environ if name.startswith("PG") or name == "SSLKEYLOGFILE"]:
        del os.environ[name]
