"""The client's exceptions as source text: one class for each row of the table of codes. `python -m tools.reference` writes it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Final

from lensway.errors import CODES, ErrorCode, Retry

TARGET: Final = pathlib.Path("src/lensway/client/exceptions.py")
_OTHER_NAMES: Final = {ErrorCode.CANCELLED: "RequestCancelledError"}
"""asyncio has a CancelledError of its own, which must never be caught by mistake."""
_REPEAT: Final = {
    Retry.NEVER: "The request itself must change.",
    Retry.LATER: "The same request may succeed later.",
    Retry.SAFE: "Safe to repeat at once.",
}
_REPEATED: Final = {Retry.NEVER: "no", Retry.LATER: "when the server says when", Retry.SAFE: "once"}
_HEAD: Final = '''\
"""One exception for each code of the table, and two for what no server can say. Written by `python -m tools.reference`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from lensway.errors import ErrorCode, Failure, LenswayError


class UnreachableError(LenswayError):
    """No answer from a Lensway server: it is away, the URL is wrong, or another program answers there."""

    is_answer: ClassVar[bool] = False


class IncompleteStreamError(LenswayError):
    """The stream broke before its end, so the received rows are incomplete. Safe to repeat from the start."""

    is_answer: ClassVar[bool] = False
'''
_TAIL: Final = '''

def of(failure: Failure) -> LenswayError:
    """The failure as the exception of its code."""
    return CLASSES[failure.code].of(failure)
'''


def class_name(code: ErrorCode) -> str:
    """The name of a code's exception."""
    return _OTHER_NAMES.get(code, "".join(part.title() for part in code.name.split("_")) + "Error")


def source() -> str:
    """The text of the module."""
    return "".join((_HEAD, *_classes(), *_table(), _TAIL))


def table() -> Iterator[str]:
    """The classes beside their codes, for the client's page."""
    yield "| class | code | repeated by the client |"
    yield "| --- | --- | --- |"
    for code, facts in CODES.items():
        yield f"| `{class_name(code)}` | `{code.value}` | {_REPEATED[facts.retry]} |"


def _classes() -> Iterator[str]:
    for code, facts in CODES.items():
        repeat = _REPEAT[facts.retry]
        yield f"\n\nclass {class_name(code)}(LenswayError):\n"
        yield f'    """{facts.meaning}\n\n    HTTP {facts.status}. {repeat}\n    """\n'


def _table() -> Iterator[str]:
    yield "\n\nCLASSES: Final[Mapping[ErrorCode, type[LenswayError]]] = {\n"
    for code in CODES:
        yield f"    ErrorCode.{code.name}: {class_name(code)},\n"
    yield "}\n"
