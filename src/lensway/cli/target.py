"""Which server a command talks to: the options that every client command shares."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Annotated

from cyclopts import Parameter

from lensway.auth.secret import bare
from lensway.cli.given import secret_given
from lensway.client import Client, connect
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import is_this_machine


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The server, the environment and the form of the output."""

    env: Annotated[str | None, Parameter(env_var="LENSWAY_ENVIRONMENT", help="Environment; default: `default`.")] = None
    """Environment."""
    json: Annotated[bool, Parameter(negative=(), help="Print JSON even on a terminal.")] = False
    """JSON output."""
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
    def client(self) -> Iterator[Client]:
        """A client for LENSWAY_URL with LENSWAY_API_KEY.

        Raises:
            LenswayError: INVALID_REQUEST when a variable is missing.
        """
        url = bare(os.environ.get("LENSWAY_URL", "")) or "http://127.0.0.1:8080"
        key = secret_given(os.environ, "LENSWAY_API_KEY")
        if not key:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                "LENSWAY_API_KEY is not set",
                hint="export LENSWAY_API_KEY=ak_… (the server printed its first admin key when it started for the first time)",
            )
        client = connect(
            _checked_url(url, insecure=self.insecure),
            _checked_header("LENSWAY_API_KEY", key),
            environment=None if self.env is None else _checked_header("LENSWAY_ENVIRONMENT (--env)", self.env),
            ca_file=_checked_ca_file(bare(os.environ.get("LENSWAY_CA_FILE", ""))),
            # Whoever sits at the terminal, or the script, decides at once what a failure means.
            repeats=False,
        )
        with client:
            yield client


def _checked_url(url: str, *, insecure: bool) -> str:
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
            "LENSWAY_URL must be http://HOST[:PORT] or https://HOST[:PORT]",
            hint="The server prints its URL when it starts; put the key into LENSWAY_API_KEY.",
        )
    if is_clear and not insecure and not is_this_machine(host):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            "LENSWAY_URL is http:// to another machine: the key would be sent in clear text",
            hint="Use https://, or --insecure if the network path is protected by other means.",
        )
    return url


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
To = Target
