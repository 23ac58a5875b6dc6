"""A page that is more than may be held goes on as a stream: once, in order, within the same memory, and never repeated."""

from __future__ import annotations

import pytest

from lensway import limits
from lensway.dispatch.core.events import Consumed, Deliver, Fail, SendOffer, SessionLost
from lensway.ids import JobId
from tests.dispatch.bench import Bench

PART = b"x" * limits.DATA_FRAME_BYTES_MAX
BOUND = 4 * len(PART)


def begin(bench: Bench, **other: object) -> tuple[JobId, SendOffer]:
    """A page that may overflow, accepted by a runner."""
    job = bench.submit(**({"may_overflow": True, "page_bytes_max": BOUND} | other))
    return job, bench.accept(bench.offer_of(job))


def overflow(bench: Bench, offer: SendOffer) -> None:
    for _ in range(5):
        bench.rows(offer, PART)


def delivered(bench: Bench, job: JobId) -> bytes:
    orders = [order for order in bench.orders if isinstance(order, Deliver) and order.job == job]
    return b"".join(chunk for order in orders for chunk in order.chunks)


def fill_node(bench: Bench) -> list[JobId]:
    """Pages that together are all that a node holds."""
    jobs = []
    for _ in range(limits.PAGE_BYTES_TOTAL_MAX // limits.PAGE_BYTES_MAX):
        job, offer = begin(bench, page_bytes_max=None)
        for _ in range(limits.PAGE_BYTES_MAX // len(PART)):
            bench.rows(offer, PART)
        jobs.append(job)
    return jobs


def test_a_page_within_its_bound_is_released_at_its_end_only() -> None:
    bench = Bench("a")
    bench.connect("a")
    job, offer = begin(bench)
    for _ in range(4):
        bench.rows(offer, PART)
    assert not delivered(bench, job)
    bench.end(offer, BOUND)
    assert bench.outcome(job).chunks == (PART,) * 4
    assert not delivered(bench, job)


def test_a_page_beyond_its_bound_goes_on_as_a_stream() -> None:
    bench = Bench("a")
    bench.connect("a")
    job, offer = begin(bench)
    overflow(bench, offer)
    assert delivered(bench, job) == PART * 5
    bench.rows(offer, PART)
    assert delivered(bench, job) == PART * 6
    assert bench.core.held_bytes == BOUND + limits.CREDIT_WINDOW_BYTES
    bench.give(Consumed(job, 6 * len(PART)))
    assert bench.core.held_bytes == limits.CREDIT_WINDOW_BYTES
    bench.end(offer, 6 * len(PART))
    assert bench.code(job) == "completed"
    assert bench.core.held_bytes == 0


def test_the_end_of_a_page_may_be_what_is_too_much() -> None:
    bench = Bench("a")
    bench.connect("a")
    job, offer = begin(bench)
    for _ in range(4):
        bench.rows(offer, PART)
    bench.end_with(offer, b"tail", BOUND + 4)
    assert delivered(bench, job) == PART * 4
    assert bench.outcome(job).chunks == (b"tail",)
    bench.give(Consumed(job, BOUND + 4))
    assert bench.core.held_bytes == 0


def test_credit_for_what_was_held_is_given_once() -> None:
    bench = Bench("a")
    bench.connect("a")
    job, offer = begin(bench)
    overflow(bench, offer)
    granted = bench.granted(job)
    assert BOUND - limits.CREDIT_GRANT_BYTES_MIN < granted <= BOUND
    for _ in range(4):
        bench.give(Consumed(job, len(PART)))
    assert bench.granted(job) == granted, "the spool was granted when it was filled"
    sent = 5
    for _ in range(200):
        while (sent + 1) * len(PART) <= offer.credit + bench.granted(job):
            bench.rows(offer, PART)
            sent += 1
        assert bench.granted(job) <= sent * len(PART)
        bench.give(Consumed(job, len(PART)))
    assert not bench.closed()
    assert bench.code(job) == ""


def test_a_node_full_of_pages_streams_what_comes_more() -> None:
    bench = Bench("a")
    bench.connect("a")
    held = fill_node(bench)
    job, offer = begin(bench)
    bench.rows(offer, b"row;")
    assert delivered(bench, job) == b"row;"
    small, offer_of_small = begin(bench)
    bench.end_with(offer_of_small, b"row;", 4)
    assert bench.outcome(small).chunks == (b"row;",)
    assert not delivered(bench, small), "what ends at once needs no stream"
    assert [bench.code(each) for each in held] == [""] * len(held)
    refused, offer_of_refused = begin(bench, may_overflow=False)
    bench.rows(offer_of_refused, b"row;")
    assert bench.code(refused) == "overloaded"


def test_a_runner_lost_after_the_overflow_fails_the_stream_and_nothing_is_repeated() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job, offer = begin(bench)
    overflow(bench, offer)
    bench.give(SessionLost(offer.session, "reset"))
    end = bench.outcome(job)
    assert isinstance(end, Fail)
    assert (end.record.outcome, end.released) == ("runner_failed", True)
    assert len(bench.offers(job)) == 1
    assert bench.core.held_bytes == 0


def test_a_runner_lost_before_the_overflow_costs_nothing() -> None:
    bench = Bench("a", "b")
    bench.connect("a")
    bench.connect("b")
    job, first = begin(bench)
    for _ in range(4):
        bench.rows(first, PART)
    bench.give(SessionLost(first.session, "reset"))
    assert bench.core.held_bytes == limits.CREDIT_WINDOW_BYTES
    second = bench.accept(bench.offer_of(job))
    for _ in range(6):
        bench.rows(second, PART)
    bench.end(second, 6 * len(PART))
    assert bench.code(job) == "completed"


def test_pages_that_overflowed_count_as_exports_so_that_stalled_ones_never_starve_queries() -> None:
    bench = Bench("a")
    session = bench.connect("a")
    pair = bench.core.fleet.sessions[session].load
    for _ in range(limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX):
        _, offer = begin(bench)
        overflow(bench, offer)
    job, offer = begin(bench)
    overflow(bench, offer)
    assert bench.code(job) == "overloaded"
    assert bench.outcome(job).released is False
    assert pair.exports == limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX
    bench.give(SessionLost(session, "reset"))
    assert bench.core.held_bytes == 0


@pytest.mark.parametrize("seconds", [limits.STALL_TIMEOUT_SECONDS - 1, limits.STALL_TIMEOUT_SECONDS])
def test_a_caller_that_takes_nothing_of_it_is_cancelled_as_of_a_stream(seconds: float) -> None:
    bench = Bench("a")
    session = bench.connect("a")
    job, offer = begin(bench, seconds=1000.0)
    overflow(bench, offer)
    for _ in range(int(seconds)):
        bench.wait(1.0)
        bench.alive(session)
    assert bench.code(job) == ("cancelled" if seconds >= limits.STALL_TIMEOUT_SECONDS else "")


@pytest.mark.parametrize(("size", "is_taken"), [(0, True), (limits.TAKEN_AT_ONCE_BYTES_MAX, True), (None, False)])
def test_a_small_result_counts_as_taken_when_it_is_complete(size: int | None, is_taken: bool) -> None:
    """A larger one when its caller says so: until then it is held, and counted."""
    bench = Bench("a")
    bench.connect("a")
    size = limits.TAKEN_AT_ONCE_BYTES_MAX + 1 if size is None else size
    job, offer = begin(bench)
    if size:
        bench.rows(offer, b"x" * size)
    bench.end(offer, size)
    assert bench.outcome(job).is_taken is is_taken
    assert bench.core.jobs_count == (0 if is_taken else 1)
    assert bool(bench.core.held_bytes) is not is_taken
    bench.give(Consumed(job, size))
    assert (bench.core.jobs_count, bench.core.held_bytes) == (0, 0)


def test_a_stream_whose_first_rows_were_taken_is_held_to_its_end() -> None:
    bench = Bench("a")
    bench.connect("a")
    job, offer = begin(bench)
    overflow(bench, offer)
    bench.give(Consumed(job, 5 * len(PART)))
    bench.end_with(offer, b"x", 5 * len(PART) + 1)
    assert not bench.outcome(job).is_taken
    bench.give(Consumed(job, 1))
    assert bench.core.jobs_count == 0
