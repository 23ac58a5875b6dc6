"""Which server a command talks to: the options that every client command shares."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Annotated

from cyclopts import Parameter

from lensway.client import Client, Connection
from lensway.errors import ErrorCode, LenswayError


@Parameter(name="*")
@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The server, the environment and the form of the output."""

    env: Annotated[str | None, Parameter(env_var="LENSWAY_ENVIRONMENT", help="Environment; default unless said.")] = (
        None
    )
    """Environment."""
    json: Annotated[bool, Parameter(negative=(), help="Print JSON even on a terminal.")] = False
    """JSON output."""

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A client for LENSWAY_URL with LENSWAY_API_KEY.

        Raises:
            LenswayError: INVALID_REQUEST when a variable is missing.
        """
        url = os.environ.get("LENSWAY_URL", "http://127.0.0.1:8080")
        key = os.environ.get("LENSWAY_API_KEY")
        if not key:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST,
                "LENSWAY_API_KEY is not set",
                hint="export LENSWAY_API_KEY=ak_… (the server printed its first admin key when it started for the first time)",
            )
        connection = Connection(url=url, key=key, environment=self.env, ca_file=os.environ.get("LENSWAY_CA_FILE"))
        with Client(connection) as client:
            yield client


DEFAULT = Target()
