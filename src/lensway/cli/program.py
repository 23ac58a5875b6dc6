"""The program: every command by import path, so that starting one does not pay for the others."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, Parameter

from lensway.cli import manual, report
from lensway.cli.help_pages import ManualFormatter

app = App(
    name="lensway",
    help="One safe query API over databases that live behind other people's firewalls.",
    help_formatter=ManualFormatter(),
    default_parameter=Parameter(show_default=lambda value: None if value is False else value),
    version_flags=["--version"],
    help_format="plaintext",
)

_WHERE = {
    "pull": "push",
    "restore": "backup",
    "count": "query",
    "explain": "query",
    "requests": "events",
    "logout": "login",
    "profiles": "login",
}

for _commands in manual.COMMANDS.values():
    for _name, _summary in _commands.items():
        _module = _WHERE.get(_name, _name).replace("-", "_")
        app.command(f"lensway.cli.{_module}:{_name.replace('-', '_')}", name=_name, help=_summary)
app.register_install_completion_command(add_to_startup=False)


def run(arguments: Sequence[str]) -> int:
    """Run one command: 0 ok, 1 failure, 2 usage or configuration, or the code that the command returns."""
    try:
        with report.exit_on_failure():
            result = app(
                list(arguments),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
            return result if isinstance(result, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else report.FAILURE_EXIT
    return 0
