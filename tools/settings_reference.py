"""The reference of settings: every option of the server, and every variable that a program of Lensway reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from lensway.cli.program import app
from lensway.cli.serving import variables
from lensway.runner import settings

_SECRETS: Final[Mapping[str, str]] = {
    "LENSWAY_ADMIN_KEY": "The first admin key: `ak_` and at least 32 URL-safe characters. Without it the server makes one and "
    "prints it once.",
    "LENSWAY_MASTER_KEY": "32 bytes in base64 that encrypt credentials. Without it the server makes `master.key` in the data "
    "directory.",
    "LENSWAY_MASTER_KEY_PREVIOUS": "Master keys of before, separated by commas; they still decrypt.",
}
_RUNNER: Final[Mapping[str, str]] = {
    "LENSWAY_RUNNER_ID": "The runner's id, `run_…`. Required.",
    "LENSWAY_RUNNER_TOKEN": "The runner's token, `rk_…`. Required, or the next one.",
    "LENSWAY_RUNNER_TOKEN_FILE": "A file with the token, which is read again at every dial.",
    "LENSWAY_GATEWAY_URL": "`wss://HOST[:PORT][/PREFIX]/connect`. Required.",
    "LENSWAY_CA_FILE": "The CA of the gateway's certificate (PEM), instead of the system's; read again when it changes.",
    "LENSWAY_RUNNER_POLICY": "The local policy, a TOML file.",
    "LENSWAY_RUNNER_CAPACITY": "Jobs at a time, 1 to 10000; default 64.",
    "LENSWAY_RUNNER_HEALTH": "`HOST:PORT` of `/livez`, `/readyz` and `/metrics`; default: off.",
    "LENSWAY_RUNNER_JOB_LOG": "A file with one JSON line per job, rotated by the runner; default: off.",
    "LENSWAY_RUNNER_STATE_DIR": "A private directory for the socket of `lensway runner status`.",
}
_SOURCES: Final[Mapping[str, str]] = {
    "LENSWAY_SOURCE_<NAME>_URL": "The whole address and login of a source. NAME in upper case, with `_` for `-`.",
    "LENSWAY_SOURCE_<NAME>_<KEY>": "One setting of a source, such as `HOST`, `PASSWORD` or `SSLMODE`; overrides the managed one.",
    "LENSWAY_SOURCE_<NAME>_<KEY>_FILE": "The same in a file, which is read again when it changes.",
}
_CLIENT: Final[Mapping[str, str]] = {
    "LENSWAY_PROFILE": "A profile of `lensway login`, instead of URL and key; `--profile` overrides it.",
    "LENSWAY_URL": "The server; default `http://127.0.0.1:8080`.",
    "LENSWAY_API_KEY": "The key. Required, or the next one.",
    "LENSWAY_API_KEY_FILE": "A file with the key.",
    "LENSWAY_ENVIRONMENT": "The environment of instance-wide keys; `--env` overrides it.",
    "LENSWAY_CA_FILE": "The CA of the server's certificate (PEM), instead of the system's.",
    "LENSWAY_INSECURE": "`1` allows `http://` to another machine.",
}
_NETWORK: Final[Mapping[str, str]] = {
    "https_proxy, HTTPS_PROXY": "The proxy to `https://` and `wss://`.",
    "http_proxy": "The proxy to `http://` and `ws://`; in lower case only.",
    "all_proxy, ALL_PROXY": "The proxy where the others are unset or empty.",
    "no_proxy, NO_PROXY": "Names, `HOST:PORT`, addresses and networks (CIDR) that are reached directly; `*` is all.",
    "SSL_CERT_FILE, SSL_CERT_DIR": "The system's CAs, where `LENSWAY_CA_FILE` is unset.",
}


def server() -> Iterator[str]:
    """The options of `lensway serve` with their variables."""
    arguments = {each.names[0]: each for each in app["serve"].assemble_argument_collection()}
    yield "| option | variable | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for variable, option in variables().items():
        argument = arguments[option]
        if not argument.show:
            continue
        default = argument.field_info.default
        shown = "" if any(default is each for each in (None, False, argument.field_info.empty)) else f"`{default}`"
        yield f"| `{option}` | `{variable}` | {shown} | {' '.join((argument.parameter.help or '').split())} |"


def secrets() -> Iterator[str]:
    """The server's secrets."""
    yield from _table({f"{name}`, `{name}_FILE": text for name, text in _SECRETS.items()})


def runner() -> Iterator[str]:
    """The runner's variables."""
    read = settings._KNOWN
    assert read <= set(_RUNNER), f"describe every variable of a runner: {read - set(_RUNNER)}"
    yield from _table({**{name: text for name, text in _RUNNER.items() if name in read}, **_SOURCES})


def client() -> Iterator[str]:
    """The variables of the commands, and those of the way out."""
    yield from _table(_CLIENT)


def network() -> Iterator[str]:
    """The variables of the network, for all programs."""
    yield from _table({name.replace(", ", "`, `"): text for name, text in _NETWORK.items()})


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    yield "| variable | meaning |"
    yield "| --- | --- |"
    for name, text in rows.items():
        yield f"| `{name}` | {text} |"
