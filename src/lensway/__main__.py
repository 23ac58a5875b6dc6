"""The program, as `lensway` and as `python -m lensway`; an installation of the client alone says how to get it."""

import sys

from lensway.cli import starting


def main() -> None:
    """Run the command line and exit. Without the extra `cli` print how to install it and exit 2."""
    options = starting.plain_start(sys.argv[1:])
    try:
        if options is not None:
            _start_runner(options)
        from lensway.cli.main import main as run  # noqa: PLC0415 - what is missing is told, not raised

        run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lensway"):
            raise
        sys.stderr.write(f"lensway: the command line needs {error.name}, which is not installed\n")
        sys.stderr.write("  pip install 'lensway[cli]'    # or [runner] or [server], which include it\n")
        sys.exit(2)


def _start_runner(options: starting.StartOptions) -> None:
    """Serve, and exit as the command line does."""
    from lensway.compose.process import leave, open_streams  # noqa: PLC0415
    from lensway.errors import LenswayError  # noqa: PLC0415

    open_streams()
    code = 0
    try:
        starting.run_plainly(options)
    except (LenswayError, ImportError, OSError, KeyboardInterrupt):
        # A failure is told by the command line, whose libraries are worth loading now.
        from lensway.cli import report  # noqa: PLC0415

        try:
            with report.exit_on_failure():
                raise
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else report.FAILURE_EXIT
    leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
