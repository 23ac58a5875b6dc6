"""`lensway runner start`, also without the libraries of the command line.

A runner waits for most of its life. The parser and the tables of the command line would take a fifth of its memory and half of
the time until its first dial, so a call that does not need them (only valid options of `start`) goes without them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, TypedDict

from lensway import limits

_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class StartOptions(TypedDict):
    """The options of `runner start`."""

    insecure: bool
    drain_seconds: float
    log_level: str


def plain_start(words: Sequence[str]) -> StartOptions | None:
    """The options, when the words are `runner start` with nothing but valid ones; None leaves the words to the parser."""
    if list(words[:2]) != ["runner", "start"]:
        return None
    found = StartOptions(insecure=False, drain_seconds=limits.DRAIN_SECONDS, log_level="warning")
    ahead = list(words[2:])
    while ahead:
        name, sign, value = ahead.pop(0).partition("=")
        if name == "--insecure" and not sign:
            found["insecure"] = True
            continue
        if not sign and ahead:
            value = ahead.pop(0)
        if name == "--drain-seconds" and value.isdecimal():
            found["drain_seconds"] = float(value)
        elif name == "--log-level" and value in _LOG_LEVELS:
            found["log_level"] = value
        else:
            return None
    return found


def serve_runner(announce: Callable[[str], None], options: StartOptions) -> None:
    """Serve until SIGTERM. Raises LenswayError for settings that cannot be used, and when dialling again cannot help."""
    from lensway.compose.kinds import installed_kinds  # noqa: PLC0415
    from lensway.compose.process import forbid_dumps, scrub_environment, share_arenas  # noqa: PLC0415
    from lensway.compose.runner import run_runner  # noqa: PLC0415
    from lensway.observe import log  # noqa: PLC0415
    from lensway.runner.settings import read_settings  # noqa: PLC0415

    log.configure(level=options["log_level"])
    environment = dict(os.environ)
    settings = read_settings(environment, insecure=options["insecure"])
    kinds = installed_kinds()
    scrub_environment(kinds)
    forbid_dumps()
    share_arenas()
    main = run_runner(settings, environment, announce, drain_seconds=options["drain_seconds"], kinds=kinds)
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def run_plainly(options: StartOptions) -> None:
    """Serve without the parser and its libraries. Raises what `serve_runner` raises."""
    # structlog's console renderer would load rich and Pygments where they are installed, for tracebacks that our log never has.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules["rich"]
    from lensway.observe.lines import Lines  # noqa: PLC0415

    lines = Lines(sys.stdout)

    def announce(line: str) -> None:
        # Names in it come from others: shown literally, so that they forge no line and drive no terminal.
        shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
        lines.write(shown + "\n")

    serve_runner(announce, options)
