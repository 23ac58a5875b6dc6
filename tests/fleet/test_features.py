"""A runner is offered only what it has named among its features; one that is too old is passed over, and says why."""

from __future__ import annotations

import msgspec
import pytest

from lensway.dispatch.core.events import Asker, Fail, JobRequest, Release, SendOffer
from lensway.errors import ErrorCode
from lensway.fleet import Verdict
from lensway.gateway.orders import offer_frame
from lensway.ids import EnvironmentId, JobId, RequestId, SessionId
from lensway.protocol.codec import Decoder, encode
from lensway.protocol.frames import Offer
from tests.dispatch.bench import SOURCE, Bench

NEEDS = frozenset({"plan:2"})


def verdicts(bench: Bench, job: JobId) -> dict[str, Verdict]:
    [record] = [order.record for order in bench.orders if isinstance(order, Fail) and order.job == job]
    return {note.runner_name: note.verdict for note in record.undecided}


def test_an_older_runner_is_passed_over_while_another_one_takes_the_plan() -> None:
    bench = Bench("old", "new")
    bench.connect("old", features=frozenset({"plan:1"}))
    new = bench.connect("new", features=frozenset({"plan:2", "plan:2:relations"}))
    assert {bench.offer_of(bench.submit(needs=NEEDS)).session for _ in range(8)} == {new}
    considered = bench.core.consider(EnvironmentId("env"), SOURCE, bench.now, needs=NEEDS)
    assert considered.choice is not None
    assert [note.verdict for note in considered.choice.notes] == [Verdict.UNKNOWN_KIND, Verdict.CHOSEN]


@pytest.mark.parametrize("features", [frozenset(), frozenset({"plan:1"}), frozenset({"plan:2:relations"})])
def test_only_older_runners_are_a_failure_that_says_upgrade(features: frozenset[str]) -> None:
    bench = Bench("old")
    bench.connect("old", features=features)
    job = bench.submit(needs=NEEDS)
    assert not bench.offers(job)
    assert verdicts(bench, job) == {"old": Verdict.UNKNOWN_KIND}
    [failure] = [order.failure for order in bench.orders if isinstance(order, Fail)]
    assert (failure.code, failure.details["class"]) == (ErrorCode.SOURCE_UNREACHABLE, "unknown_kind")
    assert failure.hint == "Upgrade the runner."
    assert bench.core.consider(EnvironmentId("env"), SOURCE, bench.now, needs=NEEDS).failure == failure


def test_a_job_without_plans_goes_to_every_runner() -> None:
    bench = Bench("old")
    old = bench.connect("old")
    assert bench.offer_of(bench.submit()).session == old


def test_an_offer_says_who_asks_and_no_more() -> None:
    asker = Asker("key_1", "shop", "default", "orders")
    request = JobRequest(
        request=RequestId("req_1"),
        environment=EnvironmentId("env_1"),
        source=SOURCE,
        kind="rows",
        payload=b"plan",
        format="json",
        deadline=1e9,
        release=Release.AT_END,
        rows_max=1,
        bytes_max=1,
        row_bytes_max=1,
        asker=asker,
        needs=NEEDS,
    )
    order = SendOffer(SessionId(1), JobId(1), 1, request, 1, 30.0, 1000)
    [said] = Decoder().feed(encode([offer_frame(order, None)]))
    assert isinstance(said, Offer)
    assert msgspec.to_builtins(said.asker) == ["key_1", "shop", "default", "orders"]
    order = msgspec.structs.replace(order, request=msgspec.structs.replace(request, asker=None))
    assert offer_frame(order, None).asker is None
