"""Which server a command talks to, and in which form it prints: the options that commands share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Annotated

import msgspec
from cyclopts import Parameter

from lensway import limits
from lensway.auth.secret import bare
from lensway.cli.forms import FormOption, Output
from lensway.cli.given import secret_given
from lensway.client import Client, connect, profiles
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import is_this_machine


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Server:
    """The server and the environment."""

    env: Annotated[str | None, Parameter(env_var="LENSWAY_ENVIRONMENT", help="Environment; default: `default`.")] = None
    """Environment."""
    profile: Annotated[
        str | None,
        Parameter(
            completer=lambda _context: list(profiles.read(profiles.path(os.environ)).profiles),
            help="A profile of `lensway login`; default: LENSWAY_PROFILE, or the current one.",
        ),
    ] = None
    """Stored profile."""
    insecure: Annotated[
        bool,
        Parameter(
            negative=(),
            env_var="LENSWAY_INSECURE",
            help="Allow http:// to another machine: the key is sent in clear text.",
        ),
    ] = False
    """Whether the key may leave this machine unencrypted."""

    @contextlib.contextmanager
    def client(self, *, timeout: float = limits.CLIENT_TIMEOUT_SECONDS) -> Iterator[Client]:
        """A client for the profile or the variables that are in force.

        Raises:
            LenswayError: INVALID_REQUEST when there is neither, or one makes no sense.
        """
        for option, value in (("--profile", self.profile), ("--env", self.env)):
            # An empty variable is how a script unsets it; an empty option is a variable of the script that is not set.
            if value == "" and not (option == "--env" and os.environ.get("LENSWAY_ENVIRONMENT") == ""):
                raise LenswayError(
                    ErrorCode.INVALID_REQUEST, f"{option} is empty", hint="Give a name, or omit the option."
                )
        given = profiles.given(_settings(), self.profile)
        if self.env:
            given = msgspec.structs.replace(given, profile=msgspec.structs.replace(given.profile, environment=self.env))
        with opened(given, insecure=self.insecure or given.profile.insecure, timeout=timeout) as client:
            yield client


def _settings() -> dict[str, str]:
    """The variables of this process; the key may stand in the file that LENSWAY_API_KEY_FILE names."""
    read = {
        "LENSWAY_API_KEY": secret_given(os.environ, "LENSWAY_API_KEY"),
        "LENSWAY_URL": bare(os.environ.get("LENSWAY_URL", "")),
        "LENSWAY_CA_FILE": bare(os.environ.get("LENSWAY_CA_FILE", "")),
    }
    return dict(os.environ) | {name: value for name, value in read.items() if value}


@contextlib.contextmanager
def opened(
    given: profiles.Given, *, insecure: bool, timeout: float = limits.CLIENT_TIMEOUT_SECONDS
) -> Iterator[Client]:
    """A client for this server and key.

    Raises:
        LenswayError: INVALID_REQUEST naming what makes no sense.
    """
    profile = given.profile
    check_url(given.place, profile.url, insecure=insecure)
    environment = profile.environment
    client = connect(
        profile.url,
        _checked_header("LENSWAY_API_KEY", profile.key),
        environment=None if environment is None else _checked_header("LENSWAY_ENVIRONMENT (--env)", environment),
        ca_file=_checked_ca_file(profile.ca_file),
        timeout=timeout,
        # The user at the terminal, or the script, decides at once what a failure means.
        repeats=False,
        insecure=insecure,
    )
    with client:
        yield client


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Target(Output, Server):
    """The server, the environment and the form of the output."""

    # Declared again, because cyclopts reads the annotations of an inherited option with the names of this module.
    format: FormOption = None
    """The form that was asked for."""

    @contextlib.contextmanager
    def client(self, *, timeout: float = limits.CLIENT_TIMEOUT_SECONDS) -> Iterator[Client]:
        """A client, once the form of the output is known to be one.

        Raises:
            LenswayError: INVALID_REQUEST when the options or the settings make no sense.
        """
        _ = self.asked
        with super().client(timeout=timeout) as client:
            yield client


def check_url(place: str, url: str, *, insecure: bool) -> None:
    """Raises LenswayError INVALID_REQUEST for a URL that no server has, or that would give the key away."""
    host, is_clear = "", False
    try:
        parts = urllib.parse.urlsplit(url)
        host, is_clear = parts.hostname or "", parts.scheme == "http"
        is_whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        has_more = parts.query or parts.fragment or "@" in parts.netloc or not url.isprintable()
        is_good = parts.scheme in ("http", "https") and is_whole and not has_more
    except ValueError:
        is_good = False
    if not is_good:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{place} must be http://HOST[:PORT] or https://HOST[:PORT]",
            hint="The server prints its URL when it starts; put the key into LENSWAY_API_KEY.",
        )
    if is_clear and not insecure and not is_this_machine(host):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"{place} is http:// to another machine: the key would be sent in clear text",
            hint="Use https://, or --insecure if the network path is protected by other means.",
        )


def _checked_header(name: str, value: str) -> str:
    """The value, fit for a header; a wrong one is named and never shown: it may be half of a key."""
    if not value.isascii() or not value.isprintable() or " " in value:
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"{name} holds characters that cannot be sent")
    return value


def _checked_ca_file(path: str | None) -> str | None:
    if not path:
        return None
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError):
        raise LenswayError(ErrorCode.INVALID_REQUEST, f"LENSWAY_CA_FILE {path} holds no certificates") from None
    return path


DEFAULT = Target()
SERVER = Server()
