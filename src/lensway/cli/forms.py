"""The form that a command prints in, and the two options that choose it. Imports neither server nor client."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, TypeAlias, TypeVar

from cyclopts import Parameter

from lensway.cli import screen
from lensway.cli.output import Form
from lensway.errors import ErrorCode, LenswayError

T = TypeVar("T", bound=str)
FormOption: TypeAlias = Annotated[Form | None, Parameter(help="Default: table on a terminal, json when piped.")]


def form_of(format: T | None, *, json: bool) -> T | Literal["json"] | None:
    """The form that two options ask for.

    Raises:
        LenswayError: INVALID_REQUEST for two different ones.
    """
    if json and format not in (None, "json"):
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"--json and --format {format} exclude each other",
            hint="--json is the short form of --format json.",
        )
    return "json" if json else format


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class Output:
    """The form of the output."""

    format: FormOption = None
    """The form that was asked for."""
    json: Annotated[bool, Parameter(negative=(), help="The short form of --format json.")] = False
    """JSON output."""

    @property
    def asked(self) -> Form | None:
        """The form that was asked for, or None.

        Raises:
            LenswayError: INVALID_REQUEST for two different ones.
        """
        return form_of(self.format, json=self.json)

    @property
    def form(self) -> Form:
        """The form to print in: a table on a terminal, JSON when piped, or what was asked for."""
        return self.asked or ("table" if screen.is_terminal() else "json")


OUTPUT = Output()
