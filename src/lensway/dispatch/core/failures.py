"""The failures that dispatch itself gives, with texts that name each runner, its state, and what to do. Pure functions.

Texts and ``details`` name runners and sources, never addresses. Answers to publishable keys leave the names out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lensway import limits
from lensway.dispatch.core.jobs import Job
from lensway.dispatch.core.ports import SourceRoute
from lensway.errors import ErrorCode, Failure
from lensway.fleet import Fleet, Verdict
from lensway.ids import RunnerId
from lensway.protocol.policy import policy_hint

_UNABLE_TEXTS: Final[Mapping[Verdict, tuple[str, str]]] = {
    Verdict.NO_BRIDGE: (
        "has no bridge for it",
        "Install the driver on the runner's machine (`pip install 'lensway[…]'`) and restart the runner.",
    ),
    Verdict.NO_ENCODING: (
        "cannot encode rows in this format",
        "Request another format, or run `pip install 'lensway[arrow]'` on the runner's machine and restart the runner.",
    ),
    Verdict.NO_CREDENTIALS: (
        "has no credentials for it",
        "Set LENSWAY_SOURCE_<NAME>_URL on the runner, or give the source a managed config.",
    ),
    Verdict.INVALID_SETTINGS: (
        "has settings for it that are invalid",
        "`lensway runner doctor` on the runner's machine names the variable; so does `lensway runners show RUNNER`.",
    ),
    Verdict.CREDENTIALS_AMBIGUOUS: (
        "has ambiguous credentials for it",
        "Two assigned sources read the same environment variables on the runner; rename one of them.",
    ),
    Verdict.UNKNOWN_KIND: ("is too old for this kind of request", "Upgrade the runner."),
}


def duration_text(seconds: float) -> str:
    """A duration as people say it: ``250 ms``, ``1.5 s``, ``12 s``, ``3 min``, ``2 h``, ``4 days``."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 2 * 86400:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86400)} days"


def no_runners_online(route: SourceRoute, fleet: Fleet, now: float) -> Failure:
    """None of the assigned runners is live. Names each one and its state."""
    states = [
        _absence(name, runner, mark, fleet, now)
        for name, runner, mark in zip(route.runner_names, route.runners, route.marks, strict=True)
    ]
    hint = _way_back(route, states)
    texts = ", ".join(str(state.pop("text")) for state in states)
    for state in states:
        del state["way"]
    return Failure(
        code=ErrorCode.NO_RUNNERS_ONLINE,
        message=f"No runner assigned to source '{route.name}' is online ({len(states)} assigned: {texts})",
        hint=hint,
        details={"source": route.name, "runners": states},
        retry_after_seconds=limits.RETRY_AFTER_SECONDS,
    )


_WAYS_BACK: Final[Mapping[str, str]] = {
    "connecting": "Repeat the request in a moment: {name} is getting ready.",
    "draining": "Resume {name} with `lensway runners resume {name}`.",
    "leaving": "Start {name} again with `lensway runner start`.",
    "suspect": "Check the machine of {name} and its network: the runner does not answer.",
    "offline": "Start {name} with `lensway runner start`; its log says why it stopped.",
    "never_connected": "Start {name} with `lensway runner start` and the variables that `lensway runners create` printed.",
    "revoked": "Create a new token with `lensway runners rotate {name}` and start {name} with it.",
}
"""What brings a runner in this state back, the least effort first."""


def _way_back(route: SourceRoute, states: Sequence[Mapping[str, object]]) -> str:
    """What to do about the runner that is back with the least effort, and the other ways."""
    order = list(_WAYS_BACK)
    easiest = min(states, key=lambda state: order.index(str(state["way"])))
    remedy = _WAYS_BACK[str(easiest["way"])].format(name=easiest["name"])
    assign = f"Or assign another runner with `lensway runners assign RUNNER {route.name}`"
    return (
        f"{remedy} {assign}."
        if route.needs_runner
        else f"{remedy} {assign}; without any, the source is executed inline."
    )


def _absence(name: str, runner: RunnerId, mark: str, fleet: Fleet, now: float) -> dict[str, object]:
    session = next(fleet.sessions_of(runner), None)
    loss = fleet.last_loss(runner)
    if mark:
        state, text = mark, "revoked" if mark == "revoked" else "drained by an operator"
        return {"name": name, "state": state, "way": state, "text": f"{name} {text}"}
    if session is not None:
        seconds = now - session.since
        # A live session without a verdict is opening or closing.
        state = session.shown_state if session.shown_state != "live" else "connecting"
        way = "leaving" if state == "draining" else state
        return {"name": name, "state": state, "way": way, "text": f"{name} {state} for {duration_text(seconds)}"}
    if loss is not None:
        seconds = now - loss.at
        return {
            "name": name,
            "state": "offline",
            "way": "offline",
            "seconds": round(seconds, 1),
            "cause": loss.cause,
            "text": f"{name} offline for {duration_text(seconds)}",
        }
    state = "never_connected"
    return {"name": name, "state": state, "way": state, "text": f"{name} never connected"}


def unable(route: SourceRoute, names: Sequence[tuple[str, Verdict]], refusal_message: str) -> Failure:
    """Runners are live, but no one of them can serve this. ``names`` has each with its reason."""
    reasons = {verdict for _, verdict in names}
    if reasons == {Verdict.POLICY}:
        who = ", ".join(f"'{name}'" for name, _ in names)
        return Failure(
            code=ErrorCode.REFUSED_BY_RUNNER,
            message=f"The local policy of runner {who} refuses this request on source '{route.name}'",
            hint=refusal_message or policy_hint(""),
            details={"source": route.name, "runners": [name for name, _ in names]},
        )
    first = next(verdict for _, verdict in names if verdict is not Verdict.POLICY)
    texts = ", ".join(
        f"runner '{name}' {_UNABLE_TEXTS[verdict][0] if verdict in _UNABLE_TEXTS else 'refuses it by its local policy'}"
        for name, verdict in names
    )
    return Failure(
        code=ErrorCode.SOURCE_UNREACHABLE,
        message=f"No live runner can serve source '{route.name}': {texts}",
        hint=_UNABLE_TEXTS[first][1],
        details={
            "source": route.name,
            "stage": "runner",
            "class": first.value,
            "runners": [{"name": name, "class": verdict.value} for name, verdict in names],
        },
    )


def no_encoding(route: SourceRoute, names: Sequence[str], format: str) -> Failure:
    """Runners are live, but they lack the libraries that the format needs."""
    return Failure(
        code=ErrorCode.NOT_ACCEPTABLE,
        message=f"No live runner of source '{route.name}' can encode rows as {format}: "
        + ", ".join(f"runner '{name}'" for name in names),
        hint=_UNABLE_TEXTS[Verdict.NO_ENCODING][1],
        details={"source": route.name, "runners": list(names), "format": format},
    )


def requires_runner(route: SourceRoute) -> Failure:
    """Zero assignments, and the service may not execute this source."""
    return Failure(
        code=ErrorCode.SOURCE_REQUIRES_RUNNER,
        message=f"Only runners can execute source '{route.name}', and no runner is assigned to it",
        hint=f"Assign one: `lensway runners assign RUNNER {route.name}`.",
        details={"source": route.name},
        retry_after_seconds=limits.RETRY_AFTER_SECONDS,
    )


def source_gone() -> Failure:
    """The source was removed while the request was on its way."""
    return Failure(code=ErrorCode.NOT_FOUND, message="The source of this request no longer exists")


def not_assigned(route: SourceRoute, runner: str) -> Failure:
    """The job is pinned to a runner that the source is not assigned to."""
    return Failure(
        code=ErrorCode.CONFLICT,
        message=f"Runner '{runner}' is not assigned to source '{route.name}'",
        details={"source": route.name, "runner": runner},
    )


def runner_gone() -> Failure:
    """The runner that the job is pinned to does not exist (any more)."""
    return Failure(code=ErrorCode.NOT_FOUND, message="The runner of this request does not exist")


def overloaded(what: str) -> Failure:
    """Everything that could serve is busy, or a bound of this node is met; ``what`` says which."""
    return Failure(
        code=ErrorCode.OVERLOADED,
        message=f"Too busy to serve this now: {what}",
        hint="Repeat the request after the time in Retry-After; add a runner if it happens often.",
        retry_after_seconds=limits.RETRY_AFTER_SECONDS,
    )


def timed_out(job: Job, now: float) -> Failure:
    """The deadline passed; ``phase`` says where the job stood."""
    allowed = job.record.deadline - job.record.submitted_at
    return Failure(
        code=ErrorCode.QUERY_TIMEOUT,
        message=f"The deadline passed after {duration_text(allowed)} ({_phase(job)})",
        hint="Request less data, add an index for the filter and the order, or raise `timeoutMs`.",
        details={"phase": _phase(job), "attempts": job.record.executed},
    )


def cancelled(reason: str) -> Failure:
    """The caller cancelled, went away, or took nothing for too long."""
    return Failure(
        code=ErrorCode.CANCELLED,
        message="The request was cancelled: " + reason.replace("_", " "),
        details={"reason": reason},
    )


def key_ended() -> Failure:
    """The key that asked was deleted or has expired meanwhile, or its environment was deleted."""
    return Failure(
        code=ErrorCode.UNAUTHENTICATED,
        message="The key of this request was deleted or expired while the request was under way",
        hint="Repeat the request with a valid key.",
        details={"reason": "key_ended"},
    )


def runner_failed(job: Job, cause: str) -> Failure:
    """Runners were lost under the job and it is not tried again; ``phase`` says how far the last attempt was."""
    attempts = [
        {"runner": record.runner_name, "cause": "" if record.cause is None else str(record.cause)}
        for record in job.record.attempts
        if record.accepted_at is not None
    ]
    # Clients that repeat on a caller's behalf must know what the lens's owner allows.
    declared = {} if job.request.may_retry else {"retry": "never"}
    lost = "The runner was lost" if job.losses < limits.RUNNERS_LOST_MAX else f"{job.losses} runners were lost"
    return Failure(
        code=ErrorCode.RUNNER_FAILED,
        message=f"{lost} while executing this request ({_phase(job)}: {cause})",
        hint=None if job.request.may_retry else "The lens is declared with `retry: never`, so it was not repeated.",
        details={"phase": _phase(job), "cause": cause, "attempts": attempts, **declared},
    )


def page_too_large(bytes_max: int) -> Failure:
    """What is held until it is complete is bounded, where the rest cannot be streamed."""
    return Failure(
        code=ErrorCode.LIMIT_EXCEEDED,
        message=f"The page is larger than {bytes_max:,} bytes",
        hint="Request fewer rows or fields. Over HTTP/1.1 the server streams a larger page of rows.",
        details={"bytes_max": bytes_max},
    )


def broken_executor(cause: str) -> Failure:
    """The inline executor broke the rules of flow: a defect of ours."""
    return Failure(code=ErrorCode.INTERNAL, message="The executor broke its contract", details={"cause": cause})


def with_runners(failure: Failure, unreachable: Sequence[Mapping[str, object]]) -> Failure:
    """The last failure, and beside it what each runner that was tried found."""
    if not unreachable:
        return failure
    return Failure(
        code=failure.code,
        message=failure.message,
        hint=failure.hint,
        details={**failure.details, "runners": list(unreachable)},
        retry_after_seconds=failure.retry_after_seconds,
    )


def _phase(job: Job) -> str:
    return job.state.value
