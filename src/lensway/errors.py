"""Error root and the closed table of codes.

One row gives each code its HTTP status, the exit code of the command line, whether a caller may repeat the request, and the
line of the reference. Nothing here knows HTTP, frames or databases.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import ClassVar, Final


class Retry(enum.Enum):
    """Whether repeating the same request can help, and when."""

    NEVER = "never"
    """The request itself must change."""
    LATER = "later"
    """The same request may succeed later; honour ``Retry-After`` where it is set."""
    SAFE = "safe"
    """Reads are safe to repeat at once, with a fresh deadline."""


class ErrorCode(enum.StrEnum):
    """The closed list of codes that callers can rely on."""

    INVALID_REQUEST = "invalid_request"
    UNKNOWN_FIELD = "unknown_field"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    INVALID_CURSOR = "invalid_cursor"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    REFUSED_BY_RUNNER = "refused_by_runner"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    LIMIT_EXCEEDED = "limit_exceeded"
    ROW_TOO_LARGE = "row_too_large"
    SOURCE_QUERY_FAILED = "SOURCE_QUERY_FAILED"
    RATE_LIMITED = "rate_limited"
    CANCELLED = "cancelled"
    INTERNAL = "internal"
    RUNNER_FAILED = "runner_failed"
    SOURCE_UNREACHABLE = "SOURCE_UNREACHABLE"
    NO_RUNNERS_ONLINE = "no_runners_online"
    SOURCE_REQUIRES_RUNNER = "source_requires_runner"
    OVERLOADED = "overloaded"
    QUERY_TIMEOUT = "QUERY_TIMEOUT"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CodeFacts:
    """What is fixed about one code."""

    status: int
    exit_code: int
    retry: Retry
    meaning: str


# Exit codes: 2 is usage or configuration, 1 everything else (the contract's two failures of the command line).
CODES: Final[Mapping[ErrorCode, CodeFacts]] = {
    code: CodeFacts(status=status, exit_code=exit_code, retry=retry, meaning=meaning)
    for code, status, exit_code, retry, meaning in (
        (
            ErrorCode.INVALID_REQUEST,
            400,
            2,
            Retry.NEVER,
            "The request is malformed; the message names the offending part.",
        ),
        (
            ErrorCode.UNKNOWN_FIELD,
            400,
            2,
            Retry.NEVER,
            "A field is not part of the lens; the nearest name is suggested.",
        ),
        (
            ErrorCode.UNSUPPORTED_OPERATOR,
            400,
            2,
            Retry.NEVER,
            "The operator does not exist, or the field or bridge cannot serve it.",
        ),
        (
            ErrorCode.INVALID_CURSOR,
            400,
            2,
            Retry.NEVER,
            "The cursor was altered, or belongs to another environment, lens, filter or order.",
        ),
        (ErrorCode.UNAUTHENTICATED, 401, 1, Retry.NEVER, "The key is missing, invalid, expired or deleted."),
        (ErrorCode.FORBIDDEN, 403, 1, Retry.NEVER, "The key is valid but lacks the permission for this."),
        (
            ErrorCode.REFUSED_BY_RUNNER,
            403,
            1,
            Retry.NEVER,
            "The runner's own policy, set by the network's owner, refuses this.",
        ),
        (ErrorCode.NOT_FOUND, 404, 1, Retry.NEVER, "No such object in this environment."),
        (ErrorCode.METHOD_NOT_ALLOWED, 405, 2, Retry.NEVER, "The path exists but not with this method."),
        (ErrorCode.NOT_ACCEPTABLE, 406, 2, Retry.NEVER, "None of the accepted formats is available."),
        (ErrorCode.CONFLICT, 409, 1, Retry.NEVER, "The change contradicts the present state; nothing was changed."),
        (ErrorCode.PAYLOAD_TOO_LARGE, 413, 2, Retry.NEVER, "The request body is larger than the limit."),
        (
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            415,
            2,
            Retry.NEVER,
            "The media type of the request body is not the expected one.",
        ),
        (
            ErrorCode.LIMIT_EXCEEDED,
            422,
            1,
            Retry.NEVER,
            "The result is larger than a limit of the lens or the key.",
        ),
        (ErrorCode.ROW_TOO_LARGE, 422, 1, Retry.NEVER, "One row is larger than the row limit of the lens or the key."),
        (
            ErrorCode.SOURCE_QUERY_FAILED,
            422,
            1,
            Retry.NEVER,
            "The database refused or failed the statement; `details` has its class.",
        ),
        (ErrorCode.RATE_LIMITED, 429, 1, Retry.LATER, "Too many requests with this key, or too many failed attempts."),
        (ErrorCode.CANCELLED, 499, 1, Retry.SAFE, "The caller disconnected or cancelled the request."),
        (ErrorCode.INTERNAL, 500, 1, Retry.SAFE, "A defect of Lensway; the request id finds it in the log."),
        (
            ErrorCode.RUNNER_FAILED,
            502,
            1,
            Retry.SAFE,
            "Runners were lost while executing the request, and no attempts are left.",
        ),
        (
            ErrorCode.SOURCE_UNREACHABLE,
            502,
            1,
            Retry.LATER,
            "The runner or service that executes the source cannot reach the database.",
        ),
        (ErrorCode.NO_RUNNERS_ONLINE, 503, 1, Retry.LATER, "The source has assigned runners, but no runner is online."),
        (
            ErrorCode.SOURCE_REQUIRES_RUNNER,
            503,
            1,
            Retry.LATER,
            "Only runners can execute the source, and no runner is assigned to it.",
        ),
        (ErrorCode.OVERLOADED, 503, 1, Retry.LATER, "All capacity that could serve the request is in use."),
        (ErrorCode.QUERY_TIMEOUT, 504, 1, Retry.SAFE, "The deadline passed before the result was complete."),
    )
}

assert set(CODES) == set(ErrorCode)


POLICY_LIMIT: Final = "policy"
"""``details.limitOf`` of a `limit_exceeded` failure: the local policy of a runner is stricter than what was asked for."""
CANCELLED_BY_DATABASE: Final = "by_database"
"""``details.reason`` of a `cancelled` failure: an administrator of the database ended the statement."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One typed failure as a value: what crosses rooms, frames and HTTP.

    ``message`` says what happened and to what, ``hint`` what to do, ``details`` holds facts (JSON-able, never a credential and
    never a driver's text). ``retry_after_seconds`` becomes ``Retry-After`` where it is set.
    """

    code: ErrorCode
    message: str
    hint: str | None = None
    details: Mapping[str, object] = dataclasses.field(default_factory=dict)
    retry_after_seconds: float | None = None


class LenswayError(Exception):
    """Root of every error that Lensway raises on purpose; carries a `Failure`."""

    is_answer: ClassVar[bool] = True
    """False for what a client finds out by itself, such as a server that is away: `code` is then only the nearest one."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, object] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            code=code, message=message, hint=hint, details=details or {}, retry_after_seconds=retry_after_seconds
        )

    @classmethod
    def of(cls, failure: Failure) -> LenswayError:
        """An exception that carries this failure."""
        error = cls(failure.code, failure.message)
        error.failure = failure
        return error

    @property
    def code(self) -> ErrorCode:
        """The code of the failure."""
        return self.failure.code

    @property
    def message(self) -> str:
        """What happened, and to what."""
        return self.failure.message

    @property
    def hint(self) -> str | None:
        """What to do, where that is known."""
        return self.failure.hint

    @property
    def details(self) -> Mapping[str, object]:
        """Facts, as JSON has them."""
        return self.failure.details

    @property
    def request_id(self) -> str | None:
        """The id that finds the request in the log and in ``lensway requests``."""
        found = self.failure.details.get("requestId")
        return None if found is None else str(found)

    @property
    def retry_after_seconds(self) -> float | None:
        """When the server asked to come back, if it did."""
        return self.failure.retry_after_seconds
