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


class InvalidRequestError(LenswayError):
    """The request is malformed; the message names the offending part.

    HTTP 400. The request itself must change.
    """


class UnknownFieldError(LenswayError):
    """A field is not part of the lens; the nearest name is suggested.

    HTTP 400. The request itself must change.
    """


class UnsupportedOperatorError(LenswayError):
    """The operator does not exist, or the field or bridge cannot serve it.

    HTTP 400. The request itself must change.
    """


class InvalidCursorError(LenswayError):
    """The cursor was altered, or belongs to another environment, lens, filter or order.

    HTTP 400. The request itself must change.
    """


class UnauthenticatedError(LenswayError):
    """The key is missing, invalid, expired or deleted.

    HTTP 401. The request itself must change.
    """


class ForbiddenError(LenswayError):
    """The key is valid but lacks the permission for this.

    HTTP 403. The request itself must change.
    """


class RefusedByRunnerError(LenswayError):
    """The runner's own policy, set by the network's owner, refuses this.

    HTTP 403. The request itself must change.
    """


class NotFoundError(LenswayError):
    """No such object in this environment.

    HTTP 404. The request itself must change.
    """


class MethodNotAllowedError(LenswayError):
    """The path exists but not with this method.

    HTTP 405. The request itself must change.
    """


class NotAcceptableError(LenswayError):
    """None of the accepted formats is available.

    HTTP 406. The request itself must change.
    """


class ConflictError(LenswayError):
    """The change contradicts the present state; nothing was changed.

    HTTP 409. The request itself must change.
    """


class PayloadTooLargeError(LenswayError):
    """The request body is larger than the limit.

    HTTP 413. The request itself must change.
    """


class UnsupportedMediaTypeError(LenswayError):
    """The media type of the request body is not the expected one.

    HTTP 415. The request itself must change.
    """


class LimitExceededError(LenswayError):
    """The result is larger than a limit of the lens or the key.

    HTTP 422. The request itself must change.
    """


class RowTooLargeError(LenswayError):
    """One row is larger than the row limit of the lens or the key.

    HTTP 422. The request itself must change.
    """


class SourceQueryFailedError(LenswayError):
    """The database refused or failed the statement; `details` has its class.

    HTTP 422. The request itself must change.
    """


class RateLimitedError(LenswayError):
    """Too many requests with this key, or too many failed attempts.

    HTTP 429. The same request may succeed later.
    """


class RequestCancelledError(LenswayError):
    """The caller disconnected or cancelled the request.

    HTTP 499. Safe to repeat at once.
    """


class InternalError(LenswayError):
    """A defect of Lensway; the request id finds it in the log.

    HTTP 500. Safe to repeat at once.
    """


class RunnerFailedError(LenswayError):
    """Runners were lost while executing the request, and no attempts are left.

    HTTP 502. Safe to repeat at once.
    """


class SourceUnreachableError(LenswayError):
    """The runner or service that executes the source cannot reach the database.

    HTTP 502. The same request may succeed later.
    """


class NoRunnersOnlineError(LenswayError):
    """The source has assigned runners, but no runner is online.

    HTTP 503. The same request may succeed later.
    """


class SourceRequiresRunnerError(LenswayError):
    """Only runners can execute the source, and no runner is assigned to it.

    HTTP 503. The same request may succeed later.
    """


class OverloadedError(LenswayError):
    """All capacity that could serve the request is in use.

    HTTP 503. The same request may succeed later.
    """


class QueryTimeoutError(LenswayError):
    """The deadline passed before the result was complete.

    HTTP 504. Safe to repeat at once.
    """


CLASSES: Final[Mapping[ErrorCode, type[LenswayError]]] = {
    ErrorCode.INVALID_REQUEST: InvalidRequestError,
    ErrorCode.UNKNOWN_FIELD: UnknownFieldError,
    ErrorCode.UNSUPPORTED_OPERATOR: UnsupportedOperatorError,
    ErrorCode.INVALID_CURSOR: InvalidCursorError,
    ErrorCode.UNAUTHENTICATED: UnauthenticatedError,
    ErrorCode.FORBIDDEN: ForbiddenError,
    ErrorCode.REFUSED_BY_RUNNER: RefusedByRunnerError,
    ErrorCode.NOT_FOUND: NotFoundError,
    ErrorCode.METHOD_NOT_ALLOWED: MethodNotAllowedError,
    ErrorCode.NOT_ACCEPTABLE: NotAcceptableError,
    ErrorCode.CONFLICT: ConflictError,
    ErrorCode.PAYLOAD_TOO_LARGE: PayloadTooLargeError,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: UnsupportedMediaTypeError,
    ErrorCode.LIMIT_EXCEEDED: LimitExceededError,
    ErrorCode.ROW_TOO_LARGE: RowTooLargeError,
    ErrorCode.SOURCE_QUERY_FAILED: SourceQueryFailedError,
    ErrorCode.RATE_LIMITED: RateLimitedError,
    ErrorCode.CANCELLED: RequestCancelledError,
    ErrorCode.INTERNAL: InternalError,
    ErrorCode.RUNNER_FAILED: RunnerFailedError,
    ErrorCode.SOURCE_UNREACHABLE: SourceUnreachableError,
    ErrorCode.NO_RUNNERS_ONLINE: NoRunnersOnlineError,
    ErrorCode.SOURCE_REQUIRES_RUNNER: SourceRequiresRunnerError,
    ErrorCode.OVERLOADED: OverloadedError,
    ErrorCode.QUERY_TIMEOUT: QueryTimeoutError,
}


def of(failure: Failure) -> LenswayError:
    """The failure as the exception of its code."""
    return CLASSES[failure.code].of(failure)
