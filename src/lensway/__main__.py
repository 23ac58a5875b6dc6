"""The program, as `lensway` and as `python -m lensway`; an installation of the client alone says how to get it."""

import sys


def main() -> None:
    """Run the command line and exit. Without the extra `cli` print how to install it and exit 2."""
    try:
        from lensway.cli.main import main as run  # noqa: PLC0415 - what is missing is told, not raised
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("lensway"):
            raise
        sys.stderr.write(f"lensway: the command line needs {error.name}, which is not installed\n")
        sys.stderr.write("  pip install 'lensway[cli]'    # or [runner] or [server], which include it\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
