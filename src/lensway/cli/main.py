"""The entry point: the page of `lensway --help` at once, everything else by the program behind it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lensway.cli import manual


def run(arguments: Sequence[str]) -> int:
    """Run one command: 0 ok, 1 failure, 2 usage or configuration, or the code that the command returns."""
    if list(arguments) in ([], ["--help"], ["-h"], ["help"]):
        return manual.write(sys.stdout)
    # Imported here: the page above is read often, and must not wait for the libraries of commands.
    from lensway.cli import program  # noqa: PLC0415

    if arguments[0] == "serve":
        from lensway.cli.serving import forget_empty  # noqa: PLC0415

        forget_empty(os.environ)
    return program.run(arguments)


def main() -> None:
    """Run the program and exit with the code of its command."""
    # Imported here for the same reason as above.
    from lensway.compose.process import leave, open_streams  # noqa: PLC0415

    open_streams()
    code = run(sys.argv[1:])
    # Every way out comes by here, failures too: a thread that waits for a database keeps no process.
    leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
