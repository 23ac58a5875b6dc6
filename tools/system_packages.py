"""Installs the system packages that the tests need, only those that are missing, and says which."""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
import subprocess
import sys
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """One thing the tests need: how to see that it is there, and the Debian package that brings it."""

    what: str
    package: str
    programs: tuple[str, ...]
    globs: tuple[str, ...] = ()

    def is_met(self) -> bool:
        """True when a program or a file of it is found."""
        return any(shutil.which(program) for program in self.programs) or any(glob.glob(each) for each in self.globs)


NEEDS: Final = (
    Need("PostgreSQL server", "postgresql", ("postgres",), ("/usr/lib/postgresql/*/bin/postgres",)),
    Need("PgBouncer", "pgbouncer", ("pgbouncer",), ("/usr/sbin/pgbouncer",)),
    Need("nginx", "nginx-light", ("nginx",), ("/usr/sbin/nginx",)),
    Need("HAProxy", "haproxy", ("haproxy",), ("/usr/sbin/haproxy",)),
    Need("Caddy", "caddy", ("caddy",)),
    Need("tinyproxy", "tinyproxy-bin", ("tinyproxy",)),
    Need("microsocks", "microsocks", ("microsocks",)),
    Need("curl", "curl", ("curl",)),
    Need("Prometheus' promtool", "prometheus", ("promtool",)),
    Need("Chromium", "chromium", ("chromium", "chromium-browser", "google-chrome")),
)


def main() -> int:
    """0 when everything is there in the end; 2 when it cannot be installed."""
    missing = [need for need in NEEDS if not need.is_met()]
    if not missing:
        return 0
    packages = " ".join(need.package for need in missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(
            f"the tests need: {', '.join(need.what for need in missing)}. Install with: apt-get install {packages}",
            file=sys.stderr,
        )
        return 2
    print(f"installing {packages} (for: {', '.join(need.what for need in missing)}) ...", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "--yes", "--no-install-recommends", *packages.split()],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr)[-2000:]}", file=sys.stderr)
            return 2
    return 0 if all(need.is_met() for need in NEEDS) else 2


if __name__ == "__main__":
    sys.exit(main())
