"""What `lensway --help` prints: one page that says what there is, which settings count and how commands end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final, TextIO

COMMANDS: Final[Mapping[str, Mapping[str, str]]] = {
    "Server and runners": {
        "serve": "Run the server: HTTP, gateway, Console and store.",
        "runner": "Run and inspect a runner in a private network.",
        "backup": "Copy the server's store into a file, while the server runs.",
        "restore": "Put a backup in the place of the store of a stopped server.",
    },
    "Who you are": {
        "login": "Store a server and a key for it as a profile.",
        "logout": "Remove a profile.",
        "profiles": "List profiles, and select the one in use.",
    },
    "What is offered": {
        "push": "Apply a declaration file: sources, lenses, assignments.",
        "pull": "Print the server's declaration.",
        "sources": "Databases: create, test, look into.",
        "lenses": "Declared views of tables: show, scaffold, check.",
        "runners": "Agents in private networks: create, assign, rotate, drain.",
    },
    "Rows": {
        "query": "Print the rows of a lens.",
        "count": "Count the rows of a lens that match.",
        "export": "Stream every matching row of a lens into a file.",
        "explain": "Show what a query would run and where, without running it.",
    },
    "What happens": {
        "events": "Follow what happens, as it happens.",
        "requests": "Show recent requests and their outcomes; cancel one.",
        "audit": "Show, verify and export who did what.",
    },
    "Access": {
        "keys": "API keys: create, list, delete.",
        "sign-ins": "Sign-ins to the Console: list, end.",
        "environments": "Isolated namespaces: create, list, delete.",
    },
}
"""Every command, in the order of the page."""

_BEFORE: Final = """\
NAME
  lensway - one safe query API over databases behind other people's firewalls

SYNOPSIS
  lensway COMMAND [ARGUMENTS] [OPTIONS]
  lensway COMMAND --help

DESCRIPTION
  A server offers tables of databases as lenses, read-only, over HTTP. Runners
  in private networks dial out to it and execute the queries there; databases
  that the server reaches itself need none. Commands talk to the server with
  an API key, from a profile or from variables.

COMMANDS
"""
_AFTER: Final = """\
OPTIONS OF COMMANDS THAT TALK TO A SERVER
  --profile NAME   A profile of `lensway login`, instead of the current one.
  --env NAME       The environment, for instance-wide keys.
  --format FORM    table, json, ndjson or csv. Default: a table on a terminal,
                   JSON in a pipe.
  --json           Short for --format json.
  --insecure       Allow http:// to another machine, which shows the key to
                   the network.

OTHER OPTIONS
  -h, --help       This page, or that of a command.
  --version        The version.
  --install-completion
                   Complete commands, options and the names of lenses, sources
                   and runners in bash, zsh and fish.

ENVIRONMENT
  LENSWAY_URL, LENSWAY_API_KEY
                   Server and key; they replace the current profile.
  LENSWAY_PROFILE  The profile to use.
  LENSWAY_ENVIRONMENT, LENSWAY_CA_FILE, LENSWAY_INSECURE
                   As --env, certificates to trust, as --insecure.
  NO_COLOR         No colours.

FILES
  ~/.config/lensway/profiles.json
                   Profiles with their keys, mode 0600. Below XDG_CONFIG_HOME
                   where that is set.

EXIT STATUS
  0 ok, 1 failure, 2 usage or configuration, 3 differences (push --exit-code),
  130 interrupted

EXAMPLES
  lensway login https://lensway.example.org
  lensway push lensway.toml --dry-run
  lensway sources test main
  lensway runners list --problems
  lensway query orders --where '{"total": {"$gt": 100}}' --limit 5
  lensway export orders -o orders.parquet
"""


def write(stream: TextIO) -> int:
    """Print the page; 0."""
    is_bold = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    stream.writelines(
        f"\x1b[1m{line}\x1b[0m\n" if is_bold and line[:1].strip() else f"{line}\n" for line in page().splitlines()
    )
    stream.flush()
    return 0


def page() -> str:
    """The whole page."""
    return f"{_BEFORE}{''.join(_commands())}{_AFTER}"


def _commands() -> Iterator[str]:
    for group, commands in COMMANDS.items():
        yield f"  {group}\n"
        for name, summary in commands.items():
            yield f"    {name:<13}{summary}\n"
        yield "\n"
