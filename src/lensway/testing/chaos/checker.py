"""Lays the sides of a run beside each other and says which promise was broken. Pure.

A failure is allowed in four cases only, and each needs a cause among what was broken on purpose: a lens with `retry: never`
whose one attempt was lost, two executors lost under one request (poison), a stream cut after its release, and a connection to a
server that was restarted. Everything else that is not the right rows, once, complete, in time, is a violation.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from lensway.limits import ATTEMPTS_MAX, DEADLINE_SLACK_SECONDS, RUNNERS_LOST_MAX
from lensway.testing.chaos.history import INLINE, Attempt, Call, History, Request, Statement

CALLER_SLACK_SECONDS: Final = 1.0
"""On top of the promise: a busy machine lets the caller itself wait before it notices its answer."""
LATE_SECONDS: Final = 0.25
"""A statement that begins so long after the outcome is late: its cancel had time to arrive."""
CAUSE_SECONDS: Final = 1.0
"""A disturbance explains what began so shortly after it: a reset that was sent is noticed in a moment."""
CLOCKS_SECONDS: Final = 0.05
"""So far the request log, which counts from a moment in whole milliseconds, may be from the wall clock of who breaks things."""
LOG_GAP_SECONDS: Final = 8.0
"""Requests that ended so shortly before a restart of the server may be missing in its request log, which is in memory."""

NEVER: Final = "retry: never"
POISON: Final = "poison"
CUT: Final = "stream cut after release"
RESTART: Final = "connection cut or refused while the server restarted"
ALLOWED: Final = (NEVER, POISON, CUT, RESTART)
_LOSSES: Final = ("lost:", "handed_back", "unanswered", "failed:SOURCE_UNREACHABLE", "stopped:")


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which, of which request, and how it shows."""

    invariant: str
    request: str
    text: str


@dataclasses.dataclass(slots=True, kw_only=True)
class Verdict:
    """What the check found. ``failed`` counts the allowed failures by kind; ``seen`` what was reached."""

    calls: int = 0
    failed: Counter[str] = dataclasses.field(default_factory=Counter)
    seen: Counter[str] = dataclasses.field(default_factory=Counter)
    violations: list[Violation] = dataclasses.field(default_factory=list)

    def of(self, *invariants: str) -> int:
        """How many violations of these there are."""
        return sum(each.invariant in invariants for each in self.violations)

    @property
    def summary(self) -> dict[str, int]:
        """The counts that the bar names."""
        return {
            "lost": self.of("I1 lost", "I2 late"),
            "delivered twice": self.of("I1 twice"),
            "mixed": self.of("I3 mixed"),
            "silently truncated": self.of("I3 truncated"),
            "wrong rows": self.of("I3 rows"),
            "failed without an allowed cause": self.of("I4 failed"),
        }


def check(history: History) -> Verdict:
    """Every promise, over every request of the run."""
    verdict = Verdict(calls=len(history.calls))
    statements: dict[str, list[Statement]] = defaultdict(list)
    for statement in history.statements:
        statements[statement.request].append(statement)
    calls: dict[str, Call] = {}
    for call in history.calls:
        for invariant, text in _of_call(history, verdict, call, statements.get(call.id, ())):
            verdict.violations.append(Violation(invariant, call.id or "(no id)", text))
        if call.id:
            if call.id in calls:
                verdict.violations.append(Violation("I1 twice", call.id, "two calls were answered with this id"))
            calls[call.id] = call
    for id in history.rewritten:
        verdict.violations.append(Violation("I1 twice", id, "its outcome changed after it was final"))
    for request in history.requests.values():
        for invariant, text in _of_request(request):
            verdict.violations.append(Violation(invariant, request.id, text))
    for id, found in statements.items():
        for invariant, text in _of_statements(history, id, found, calls.get(id)):
            verdict.violations.append(Violation(invariant, id, text))
    return verdict


# --- the caller's side --------------------------------------------------------------------------------------------------------


def _of_call(
    history: History, verdict: Verdict, call: Call, statements: Sequence[Statement]
) -> Iterator[tuple[str, str]]:
    took = call.ended_at - call.sent_at
    if took > call.timeout_seconds + DEADLINE_SLACK_SECONDS + CALLER_SLACK_SECONDS:
        yield "I2 late", f"{call.kind}: its outcome took {took:.1f} s, its deadline was {call.timeout_seconds:.0f} s"
    if call.status == 0:
        if _explains(history, "", call.sent_at, call.ended_at):
            verdict.failed[RESTART] += 1
        else:
            yield (
                "I1 lost",
                f"{call.kind}: no answer after {took:.1f} s ({call.code}), and the server was not restarted",
            )
        return
    request = history.requests.get(call.id)
    if request is None:
        if not history.explains("", call.sent_at, call.ended_at + LOG_GAP_SECONDS):
            yield "I1 lost", f"{call.kind}: answered {call.status} and not in the request log"
    else:
        yield from _outcome_differs(history, call, request)
    if call.is_whole:
        yield from _rows_are_wrong(call)
        if request is not None:
            yield from _other_process(call, request, statements)
            verdict.seen["whole after a lost attempt"] += len(_accepted(request)) > 1
        return
    kind = _allowed(history, call, request)
    if kind is None:
        cause = "" if request is None else f"; attempts: {', '.join(map(_told, request.attempts))}"
        yield "I4 failed", f"{call.kind}: {'cut' if call.is_cut else call.status} {call.code}{cause}"
    else:
        verdict.failed[kind] += 1


def _rows_are_wrong(call: Call) -> Iterator[tuple[str, str]]:
    if len(call.backends) > 1:
        yield "I3 mixed", f"{call.kind}: one answer has rows of {len(call.backends)} database processes"
    if call.kind == "export" and not call.has_end:
        yield "I3 truncated", f"{call.kind}: ended without its end mark after {call.rows} rows, and not visibly cut"
    elif call.rows < call.rows_wanted:
        yield "I3 truncated", f"{call.kind}: {call.rows} of {call.rows_wanted} rows, and it looks complete"
    elif call.rows > call.rows_wanted or not call.is_right:
        yield "I3 rows", f"{call.kind}: {call.rows} rows for {call.rows_wanted}, not those of the database"


def _outcome_differs(history: History, call: Call, request: Request) -> Iterator[tuple[str, str]]:
    logged = "" if request.outcome == "completed" else request.outcome
    if call.is_cut:
        # The connection may be cut by a restart although everything was produced.
        if not logged and not _explains(history, "", call.sent_at, call.ended_at):
            yield "I1 lost", f"{call.kind}: cut, and the request log says it completed"
    elif logged != call.code:
        yield "I1 twice", f"{call.kind}: the caller got {call.code or 'rows'}, the request log says {request.outcome}"


def _other_process(call: Call, request: Request, statements: Sequence[Statement]) -> Iterator[tuple[str, str]]:
    """The rows must come from the process in which the database executed the attempt that is said to have won."""
    accepted = _accepted(request)
    if not accepted or not call.backends:
        return
    winner = accepted[-1]
    executed_by = {each.backend for each in statements if each.attempt == winner.number}
    if not executed_by:
        yield "I3 rows", f"{call.kind}: attempt {winner.number} won and the database never executed it"
    elif len(call.backends) == 1 and call.backends[0] not in executed_by:
        yield "I3 mixed", f"{call.kind}: its rows are not those of attempt {winner.number}, which is said to have won"


def _allowed(history: History, call: Call, request: Request | None) -> str | None:
    """The kind of an allowed failure whose cause is known; None for any other."""
    if call.is_cut and _explains(history, "", call.sent_at, call.ended_at):
        return RESTART
    if request is None:
        return NEVER if _is_unlogged_loss(history, call) else None
    lost = [each for each in request.attempts if each.outcome.startswith(_LOSSES)]
    if not lost or not all(is_explained(history, each, call.ended_at) for each in lost):
        return None
    if not call.may_retry:
        return NEVER if len(_accepted(request)) <= 1 and call.code in ("runner_failed", "SOURCE_UNREACHABLE") else None
    if call.is_cut:
        return CUT
    executing = [each for each in lost if each.accepted_at is not None and each.outcome.startswith("lost:")]
    return POISON if call.code == "runner_failed" and len(executing) >= RUNNERS_LOST_MAX else None


def _is_unlogged_loss(history: History, call: Call) -> bool:
    """A lens that is never repeated lost its one attempt, and a restart of the server lost the log that names the runner."""
    is_loss = not call.may_retry and call.code in ("runner_failed", "SOURCE_UNREACHABLE")
    is_log_lost = history.explains("", call.sent_at, call.ended_at + LOG_GAP_SECONDS)
    runners = set(history.executors.values())
    return is_loss and is_log_lost and any(_explains(history, each, call.sent_at, call.ended_at) for each in runners)


def is_explained(history: History, attempt: Attempt, end: float) -> bool:
    """True when a planted fault explains how the attempt ended; ``end`` stands in for an attempt without an end of its own."""
    return _explains(history, attempt.runner, attempt.offered_at, attempt.ended_at or end)


def _explains(history: History, runner: str, begin: float, end: float) -> bool:
    """True when a disturbance of the runner or the server was under way, or had been a moment ago; a later one is no cause."""
    return history.explains(runner, begin - CAUSE_SECONDS, end + CLOCKS_SECONDS)


# --- the request log ----------------------------------------------------------------------------------------------------------


def _of_request(request: Request) -> Iterator[tuple[str, str]]:
    numbers = [each.number for each in request.attempts]
    if numbers != sorted(set(numbers)):
        yield "I5 fence", f"its attempts are numbered {numbers}"
    accepted = _accepted(request)
    counted = [each for each in accepted if each.outcome != "handed_back"]
    if len(counted) > ATTEMPTS_MAX:
        yield "I5 attempts", f"{len(counted)} attempts were executed"
    for former, latter in itertools.pairwise(accepted):
        if former.ended_at is None or latter.offered_at < former.ended_at - 0.002:
            yield "I5 overlap", f"attempt {latter.number} was offered while attempt {former.number} was executed"
    if request.outcome == "completed" and (not accepted or accepted[-1].outcome != "ended"):
        yield "I3 rows", "it completed, and its last attempt did not end"


def _accepted(request: Request) -> list[Attempt]:
    return [each for each in request.attempts if each.accepted_at is not None]


def _told(attempt: Attempt) -> str:
    return f"{attempt.number} on {attempt.runner} {attempt.outcome}"


# --- the database's log -------------------------------------------------------------------------------------------------------


def _of_statements(
    history: History, id: str, statements: Sequence[Statement], call: Call | None
) -> Iterator[tuple[str, str]]:
    request = history.requests.get(id)
    if request is None:
        # A call that was cut before its answer has no id; only a restart of the server loses both.
        at = statements[0].at
        if call is None and not history.explains("", at - LOG_GAP_SECONDS, at + LOG_GAP_SECONDS):
            yield "I6 unasked", "the database executed a statement of a request that no caller made"
        return
    by_number = {each.number: each for each in request.attempts}
    executors: dict[int, set[str]] = defaultdict(set)
    for statement in statements:
        executors[statement.attempt].add(history.executors.get(statement.user, statement.user))
    for number, places in sorted(executors.items()):
        attempt = by_number.get(number)
        if attempt is None:
            yield "I6 unasked", f"the database executed attempt {number}, which was never offered"
        elif places != {attempt.runner}:
            yield "I5 executor", f"attempt {number} of {attempt.runner} was executed by {', '.join(sorted(places))}"
    if call is not None:
        yield from _late_statements(history, call, request, statements)
        if not call.may_retry and len(executors) > 1:
            yield "I4 repeated", f"retry is never, and {len(executors)} attempts reached the database"


def _late_statements(
    history: History, call: Call, request: Request, statements: Sequence[Statement]
) -> Iterator[tuple[str, str]]:
    by_number = {each.number: each for each in request.attempts}
    for statement in statements:
        attempt = by_number.get(statement.attempt)
        runner = INLINE if attempt is None else attempt.runner
        began = call.sent_at if attempt is None else attempt.offered_at
        over = call.ended_at if attempt is None or attempt.ended_at is None else attempt.ended_at
        if statement.at > over + LATE_SECONDS and not history.explains(runner, began, statement.at):
            yield (
                "I6 late",
                f"attempt {statement.attempt} began in the database {statement.at - over:.2f} s after it was over",
            )
