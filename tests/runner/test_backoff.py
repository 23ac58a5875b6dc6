"""When a runner dials again: spread, bounded, and soon enough after a restart that it was told of."""

from __future__ import annotations

from lensway import limits
from lensway.runner.backoff import Backoff


def longest() -> Backoff:
    """A back-off without luck: every wait is as long as it may be."""
    return Backoff(lambda: 1.0)


def test_waits_grow_to_the_cap_and_a_session_that_lived_forgets_them() -> None:
    backoff = longest()
    waits = [backoff.after_failure() for _ in range(20)]
    assert waits == sorted(waits)
    assert waits[0] == limits.RECONNECT_SECONDS_MIN
    assert waits[-1] == limits.RECONNECT_SECONDS_MAX
    assert backoff.after_session(1.0) == limits.RECONNECT_SECONDS_MAX, "a session that was lost young proves nothing"
    assert backoff.after_session(limits.RECONNECT_STABLE_SECONDS) == limits.RECONNECT_SECONDS_MIN


def test_each_restart_that_was_announced_is_dialled_after_eagerly_however_young_the_session() -> None:
    # Behind a load balancer a server that starts again resets connections instead of refusing them.
    backoff = longest()
    for _ in range(5):
        assert backoff.after_session(5.0, told_seconds=1.0) <= 2.0
        waits = [backoff.after_failure() for _ in range(limits.RECONNECT_EAGER_TRIES)]
        assert max(waits) <= limits.REVIVAL_SECONDS_MAX / 2


def test_luck_spreads_the_waits() -> None:
    chances = iter((0.0, 0.25, 0.5))
    backoff = Backoff(lambda: next(chances))
    assert [backoff.after_failure() for _ in range(3)] == [0.0, 0.125, 0.5]


def test_a_server_that_starts_again_is_dialled_often_but_not_for_ever() -> None:
    backoff = longest()
    refused = [backoff.after_refusal() for _ in range(limits.RECONNECT_REFUSALS_MAX)]
    assert max(refused) <= limits.RECONNECT_REFUSED_SECONDS
    assert min(refused) > 0.0
    later = [backoff.after_refusal() for _ in range(20)]
    assert later[-1] == limits.RECONNECT_SECONDS_MAX
