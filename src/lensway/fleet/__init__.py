"""Fleet: sessions of runners, their liveness, the health of each (session, source), and selection. Pure."""

from lensway.fleet.choice import Ask, CandidateNote, Choice, Verdict
from lensway.fleet.facts import SessionFacts
from lensway.fleet.fleet import Finding, Fleet, Loss
from lensway.fleet.liveness import Timings, timings
from lensway.fleet.load import Load, Pair
from lensway.fleet.sessions import SESSION_TABLE, Session, SessionState, SessionStimulus
from lensway.fleet.standing import Standing
from lensway.fleet.status import RunnerFlags, RunnerState, RunnerStatus, runner_status
from lensway.transitions import IllegalTransitionError, Table

__all__ = [
    "SESSION_TABLE",
    "Ask",
    "CandidateNote",
    "Choice",
    "Finding",
    "Fleet",
    "IllegalTransitionError",
    "Load",
    "Loss",
    "Pair",
    "RunnerFlags",
    "RunnerState",
    "RunnerStatus",
    "Session",
    "SessionFacts",
    "SessionState",
    "SessionStimulus",
    "Standing",
    "Table",
    "Timings",
    "Verdict",
    "runner_status",
    "timings",
]
