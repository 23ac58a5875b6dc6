"""Running as a user who may do nothing, where this process is root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence


def prefix() -> Sequence[str]:
    """The words before a command that run it as `nobody`; none for a caller who is not root."""
    if os.geteuid() != 0:
        return ()
    user = pwd.getpwnam("nobody")
    # The first program that setpriv executes is still found with root's rights; `env` executes the command without them.
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--", "env")


def python() -> str:
    """A Python that this user can execute; the one of this environment may lie in somebody's home."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        if subprocess.run([*prefix(), program, "-c", ""], capture_output=True, check=False).returncode == 0:
            return program
    raise SystemExit("no Python that an unprivileged user can execute: install one, such as Debian's python3")
