"""The program: every command by import path, so that starting one does not pay for the others."""

from __future__ import annotations

import os
import sys

from cyclopts import App, Parameter

from lensway.cli import report
from lensway.cli.serving import forget_empty
from lensway.compose.process import leave, open_streams

app = App(
    name="lensway",
    help="One safe query API over databases that live behind other people's firewalls.",
    help_epilogue="All commands except serve and runner use LENSWAY_URL with LENSWAY_API_KEY, in LENSWAY_ENVIRONMENT or --env.",
    default_parameter=Parameter(show_default=lambda value: None if value is False else value),
    version_flags=["--version"],
    help_format="plaintext",
)

_COMMANDS = {
    "serve": "Run the server: HTTP, gateway, Console and store in one process.",
    "runner": "Run and inspect a runner in a private network.",
    "push": "Apply a declaration file: sources, lenses, assignments.",
    "pull": "Print the server's declaration.",
    "sources": "Sources: databases, and testing their connections.",
    "lenses": "Lenses: declared views of tables.",
    "runners": "Runners: create, assign, rotate, drain.",
    "keys": "API keys.",
    "sign-ins": "Sign-ins to the Console.",
    "environments": "Environments.",
    "query": "Query rows of a lens.",
    "count": "Count the rows of a lens that match.",
    "export": "Stream every matching row of a lens into a file.",
    "explain": "Show what a query would run and where, without running it.",
    "events": "Follow events live.",
    "audit": "Show, verify and export who did what.",
    "requests": "Show recent requests and their outcomes.",
}
_WHERE = {"pull": "push", "count": "query", "explain": "query", "requests": "events"}

for _name, _summary in _COMMANDS.items():
    _module = _WHERE.get(_name, _name).replace("-", "_")
    app.command(f"lensway.cli.{_module}:{_name.replace('-', '_')}", name=_name, help=_summary)
app.register_install_completion_command(add_to_startup=False)


def main() -> None:
    """Run the program and exit: 0 ok, 1 failure, 2 usage or configuration, or the code that the command returns."""
    open_streams()
    if sys.argv[1:2] == ["serve"]:
        forget_empty(os.environ)
    code = 0
    try:
        with report.exit_on_failure():
            result = app(
                sys.argv[1:],
                error_formatter=report.usage_error,
                exit_on_error=False,
                print_error=True,
                result_action="return_value",
            )
            code = result if isinstance(result, int) else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else report.FAILURE_EXIT
    # Every way out comes by here, failures too: a thread that waits for a database keeps no process.
    leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
