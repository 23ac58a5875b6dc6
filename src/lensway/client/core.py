"""The client without I/O: what it wants done, as values, and when it asks again.

An operation is a generator. It yields effects (send this, pause so long, read on …), receives the result of each, and returns
the caller's answer. Two small shells perform the effects, one that blocks and one that awaits, so that there is one client
and not two that drift apart. Nothing here waits, reads a clock, draws chance or knows the HTTP library.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import re
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec

from lensway import limits
from lensway.api import numbers
from lensway.client import exceptions
from lensway.errors import CODES, ErrorCode, Failure, LenswayError, Retry
from lensway.hosts import is_this_machine
from lensway.ways.causes import Cause, http_date, retry_after_seconds

T = TypeVar("T")

_CODES: Final = {code.value: code for code in ErrorCode}
_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})
"""What a proxy in front says while the server behind it is away."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where to call, as whom, and how patiently. The key is never shown."""

    url: str
    key: str = dataclasses.field(repr=False)
    environment: str | None = None
    timeout_seconds: float = limits.CLIENT_TIMEOUT_SECONDS
    """One call with all its repetitions; a call with a longer `timeout_ms` may take that long."""
    attempts_max: int = limits.CLIENT_ATTEMPTS_MAX
    """1 repeats nothing."""
    ca_file: str | None = None
    """Certificates to trust instead of the system's."""
    is_compressing: bool = False
    """Ask for compressed answers."""
    is_insecure: bool = False
    """May the key travel in clear text to another machine."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, without anything that could be secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def check(self) -> None:
        """Raises InvalidRequestError for what can never work."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise unusable("the URL must be http://HOST[:PORT] or https://HOST[:PORT]")
        if "@" in parts.netloc:
            raise unusable("the URL must not hold a login", "Pass the key separately.")
        if parts.scheme == "http" and not self.is_insecure and not is_this_machine(parts.hostname):
            raise unusable(
                f"{self.origin} is http:// to another machine: the key would be sent in clear text",
                "Use https://, or insecure=True if the network path is protected by other means.",
            )
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise unusable("the key is empty, or holds characters that no key has")
        if not self.timeout_seconds > 0 or self.attempts_max < 1:
            raise unusable("the timeout must be above 0 seconds and the attempts at least 1")


def presented(
    method: Callable[..., Any], operation: Callable[..., Any], *, has_subject: bool = True
) -> Callable[..., Any]:
    """The method with the name, text and parameters of its operation, for ``help`` and for tools that read signatures."""
    functools.update_wrapper(method, operation)
    method.__name__ = operation.__name__.removeprefix("any_").removesuffix("_request")
    signature = inspect.signature(operation)
    own = list(signature.parameters.values())[1 if has_subject else 0 :]
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    gives = re.sub(r"^(?:Work|Steps)\[(.*)\]$", r"\1", str(signature.return_annotation)).replace("Request", "Stream")
    method.__signature__ = signature.replace(parameters=[this, *own], return_annotation=gives)  # type: ignore[attr-defined]
    return method


def counted(number: int, word: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"1 {word}" if number == 1 else f"{number:,} {word}s"


def unusable(message: str, hint: str | None = None) -> LenswayError:
    """The error for what can never work."""
    return exceptions.InvalidRequestError(ErrorCode.INVALID_REQUEST, message, hint=hint)


class Repeat(enum.Enum):
    """What may be sent a second time."""

    READ = "read"
    """A read: safe to repeat, however the first one ended."""
    UNSENT = "unsent"
    """A change: only when the first one never left."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, ready to be sent. ``time_limit_ms`` is what the server allows itself when the body does not say."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    body: object = None
    """Encoded as JSON."""
    accept: str = "application/json"
    repeat: Repeat = Repeat.READ
    is_stream: bool = False
    time_limit_ms: int | None = None

    def budget_seconds(self, timeout_seconds: float) -> float:
        """What the call may take with all its repetitions: the client's timeout, or longer if the call itself asks for it."""
        asked = self._limit_ms
        if self.is_stream or asked is None or asked == self.time_limit_ms:
            return timeout_seconds
        return max(timeout_seconds, asked / 1000 + limits.CLIENT_ANSWER_SLACK_SECONDS)

    def content(self, remaining_seconds: float) -> bytes | None:
        """The encoded body. A read that has less time left than the server would take says so, so that both stop together."""
        if self.body is None:
            return None
        limit = self._limit_ms
        remaining_ms = max(1, math.floor(min(remaining_seconds, 1e6) * 1000))
        if isinstance(self.body, Mapping) and limit is not None and remaining_ms < limit and not self.is_stream:
            return numbers.encode({**self.body, "timeoutMs": remaining_ms})
        return numbers.encode(self.body)

    def patience_seconds(self, remaining_seconds: float) -> float | None:
        """How long silence may last; None for ever. A stream may sort for its whole time limit before the first row comes."""
        if not self.is_stream:
            return remaining_seconds + limits.CLIENT_ANSWER_SLACK_SECONDS
        limit = self._limit_ms
        return None if limit is None else limit / 1000 + limits.CLIENT_ANSWER_SLACK_SECONDS

    @property
    def _limit_ms(self) -> int | None:
        asked = self.body.get("timeoutMs") if isinstance(self.body, Mapping) else None
        return asked if isinstance(asked, int) else self.time_limit_ms


class Loss(enum.Enum):
    """How a connection failed."""

    UNSENT = "unsent"
    """There was no connection, so the request never left."""
    CUT = "cut"
    """The connection broke; the request may have arrived."""
    SILENT = "silent"
    """No answer in time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """No answer, or no more of it. ``reason`` is for people; ``is_lasting``: no repetition cures it."""

    loss: Loss
    reason: str
    origin: str
    cause: Cause | None = None
    is_lasting: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. ``body`` is empty for a stream that has begun: it is read from ``stream``."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    origin: str
    stream: object = None
    cause: Cause | None = None
    """Why something else than Lensway answers, where that is known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the reply is an `Answer` or `Lost`."""

    request: Request
    remaining_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Wait, somewhere between the two: callers that failed together do not come back together."""

    least_seconds: float
    most_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Now:
    """The monotonic time; the reply is seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """The next bytes of a stream; the reply is bytes, none at the end, or `Lost`."""

    stream: object


@dataclasses.dataclass(frozen=True, slots=True)
class Do:
    """Run something that blocks, such as writing to a file. What it raises reaches the caller."""

    action: Callable[[], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand an item to the caller who iterates."""

    item: T


Effect: TypeAlias = Send | Pause | Now | Read | Do
Reply: TypeAlias = Answer | Lost | float | bytes | None
Work: TypeAlias = Generator[Effect, Reply, T]
Steps: TypeAlias = Generator[Effect | Emit[T], Reply, None]


def answered(via: Connection, request: Request) -> Work[Answer]:
    """The answer to a request, repeated as the table of codes allows while the time lasts.

    Raises:
        LenswayError: what the server answered, or that it did not, as the class of its code.
    """
    seconds = request.budget_seconds(via.timeout_seconds)
    deadline = (yield from _now()) + seconds
    for number in _from_one():
        now = yield from _now()
        reply = yield Send(request, deadline - now)
        assert isinstance(reply, (Answer, Lost))
        if isinstance(reply, Answer) and reply.status < 300:
            return reply
        error = error_of(reply, seconds)
        now = yield from _now()
        pause = pause_before_repeat(request, reply, error, number, deadline - now)
        if pause is None or number >= via.attempts_max:
            raise error
        yield pause
    raise AssertionError("numbers do not end")


def pause_before_repeat(
    request: Request, reply: Answer | Lost, error: LenswayError, number: int, remaining_seconds: float
) -> Pause | None:
    """How long to wait before attempt ``number`` + 1; None when there must not be one, or no time is left for it."""
    if not _may_repeat(request, reply, error, number):
        return None
    backoff = min(limits.CLIENT_BACKOFF_SECONDS_MAX, limits.CLIENT_BACKOFF_SECONDS_MIN * 2.0 ** (number - 1))
    least = error.retry_after_seconds
    if least is None:
        least = backoff / 2
    if least >= remaining_seconds:
        return None
    return Pause(least, min(least + backoff / 2, remaining_seconds))


def _may_repeat(request: Request, reply: Answer | Lost, error: LenswayError, number: int) -> bool:
    if isinstance(reply, Lost) and reply.is_lasting:
        return False
    if request.repeat is not Repeat.READ:
        return isinstance(reply, Lost) and reply.loss is Loss.UNSENT
    if isinstance(reply, Lost):
        return reply.loss is not Loss.SILENT
    if isinstance(error, exceptions.UnreachableError):
        return reply.status in _GATEWAY_STATUSES
    rule = CODES[error.code].retry
    # A query that failed with everything in place may itself be the cause: one that kills its runners must not be sent
    # again and again. A lens declared `retry: never` is never repeated, and neither is a request that was cancelled on
    # purpose.
    if rule is Retry.SAFE:
        is_wanted = error.details.get("retry") != "never" and error.details.get("reason") != "on_request"
        return is_wanted and number <= limits.CLIENT_SAFE_REPEATS_MAX
    # Where waiting helps, the server says how long. A database that is out of reach, or a source without a runner, may stay so
    # for days: callers shall hear of it at once.
    return rule is Retry.LATER and error.retry_after_seconds is not None


def error_of(reply: Answer | Lost, timeout_seconds: float) -> LenswayError:
    """What went wrong, as the class of its code."""
    if isinstance(reply, Lost):
        return _lost(reply, timeout_seconds)
    if reply.status < 400:
        return _redirected(reply)
    try:
        error = msgspec.json.decode(reply.body, type=dict[str, Any])["error"]
        code = _CODES[error["code"]]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return not_lensway(reply)
    details = dict(error.get("details") or {})
    if error.get("requestId"):
        details.setdefault("requestId", error["requestId"])
    failure = Failure(
        code=code,
        message=str(error.get("message", code.value)),
        hint=error.get("hint"),
        details=details,
        retry_after_seconds=_seconds(reply.headers),
    )
    return exceptions.of(failure)


def not_lensway(answer: Answer) -> LenswayError:
    """Something answered that does not speak the API."""
    if answer.cause is not None:
        return _named(answer.cause, {"status": answer.status})
    return exceptions.UnreachableError(
        ErrorCode.INTERNAL,
        f"the answer from {answer.origin} (HTTP {answer.status}) is not Lensway's",
        hint="Check that the URL points at the server's HTTP port, not at the gateway or another program.",
        details={"status": answer.status},
    )


def _redirected(answer: Answer) -> LenswayError:
    """A redirect is not followed: the key is meant for the server that was named, and for no other."""
    target = _target(answer)
    return exceptions.UnreachableError(
        ErrorCode.INTERNAL,
        f"{answer.origin} redirects (HTTP {answer.status}) to {target or 'an unreadable address'}",
        hint="The client follows no redirects, because the key belongs to one server. If the target is right, use its URL.",
        details={"status": answer.status} | ({"location": target} if target else {}),
    )


def _target(answer: Answer) -> str:
    """Where a redirect leads, without what may be secret or cannot be shown; "" when it does not say."""
    location = answer.headers.get("location", "")
    try:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(answer.origin + "/", location))
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not location or not host or not host.isprintable() or len(host) > limits.CLIENT_LOCATION_CHARACTERS_MAX:
        return ""
    at = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{at}" + ("" if port is None else f":{port}")
    is_shown = parts.path.isprintable() and len(parts.path) <= limits.CLIENT_LOCATION_CHARACTERS_MAX
    return origin + (parts.path if is_shown else "")


def decoded(answer: Answer, type: type[T]) -> T:
    """The JSON answer as this type. Raises UnreachableError when it is not such an answer."""
    try:
        return numbers.decoder_of(type).decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise not_lensway(answer) from None


def _named(cause: Cause, details: dict[str, Any]) -> LenswayError:
    return exceptions.UnreachableError(
        ErrorCode.INTERNAL,
        cause.line,
        hint=cause.remedy,
        details={"cause": cause.code, "stage": cause.stage.value, **details},
    )


def _lost(lost: Lost, timeout_seconds: float) -> LenswayError:
    if lost.cause is not None and lost.loss is not Loss.SILENT:
        return _named(lost.cause, {"origin": lost.origin})
    if lost.loss is Loss.SILENT:
        return exceptions.QueryTimeoutError(
            ErrorCode.QUERY_TIMEOUT,
            f"no answer from {lost.origin} within {timeout_seconds:g} s",
            hint="Allow more time, or check the server and the network to it.",
        )
    return exceptions.UnreachableError(
        ErrorCode.INTERNAL,
        f"no answer from {lost.origin} ({lost.reason})",
        hint="Check that the server is running there and that the URL is correct.",
    )


def _now() -> Work[float]:
    reply = yield Now()
    assert isinstance(reply, float)
    return reply


def _seconds(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` in seconds. A date counts from the server's own ``Date``: no two clocks are compared."""
    return retry_after_seconds(headers.get("retry-after"), http_date(headers.get("date", "")))


def _from_one() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number
