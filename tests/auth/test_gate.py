"""Requests of keys with bounds of their own, counted."""

from __future__ import annotations

import pytest

from lensway.auth.gate import KeyGate
from lensway.catalog.records import KeyLimits
from lensway.errors import ErrorCode, LenswayError
from lensway.ids import KeyId

A, B, C = KeyId("key_a"), KeyId("key_b"), KeyId("key_c")


def enter(gate: KeyGate, key: KeyId, limits: KeyLimits, now: float) -> None:
    gate.count(key, limits, now)
    gate.enter(key, limits, now)


def refused(gate: KeyGate, key: KeyId, limits: KeyLimits, now: float) -> LenswayError:
    with pytest.raises(LenswayError) as caught:
        enter(gate, key, limits, now)
    assert caught.value.code is ErrorCode.RATE_LIMITED
    return caught.value


def test_a_minute_has_so_many_requests_and_they_come_back_evenly() -> None:
    gate, limits = KeyGate(), KeyLimits(requests_per_minute=6)
    for _ in range(6):
        enter(gate, A, limits, 100.0)
        gate.leave(A)
    error = refused(gate, A, limits, 100.0)
    assert error.failure.retry_after_seconds == pytest.approx(10.0)
    assert error.failure.details == {"limit": "requestsPerMinute", "value": 6}
    enter(gate, B, limits, 100.0)
    refused(gate, A, limits, 109.9)
    enter(gate, A, limits, 110.1)
    refused(gate, A, limits, 110.2)
    for _ in range(6):
        enter(gate, A, limits, 1_000.0)
    refused(gate, A, limits, 1_000.0)


def test_so_many_run_at_once_and_a_refused_one_costs_nothing() -> None:
    gate, limits = KeyGate(), KeyLimits(concurrent_requests=2, requests_per_minute=3)
    enter(gate, A, limits, 0.0)
    enter(gate, A, limits, 0.0)
    for _ in range(10):
        assert refused(gate, A, limits, 0.0).failure.details["limit"] == "concurrentRequests"
    gate.leave(A)
    enter(gate, A, limits, 0.0)
    gate.leave(A)
    assert refused(gate, A, limits, 0.0).failure.details["limit"] == "requestsPerMinute"


def test_what_is_remembered_is_bounded_and_what_runs_is_not_forgotten() -> None:
    gate, limits = KeyGate(keys_max=2), KeyLimits(concurrent_requests=1)
    enter(gate, A, limits, 0.0)
    for key in (B, C, KeyId("key_d"), KeyId("key_e")):
        enter(gate, key, limits, 0.0)
        gate.leave(key)
    refused(gate, A, limits, 0.0)
    gate.leave(A)
    enter(gate, A, limits, 0.0)


def test_a_request_that_fails_before_it_begins_is_counted_and_does_not_run() -> None:
    gate, limits = KeyGate(), KeyLimits(requests_per_minute=2, concurrent_requests=1)
    gate.count(A, limits, 0.0)
    gate.count(A, limits, 0.0)
    assert refused(gate, A, limits, 0.0).failure.details["limit"] == "requestsPerMinute"
    enter(gate, A, limits, 100.0)


def test_two_that_were_counted_at_once_do_not_both_run_where_one_may() -> None:
    gate, limits = KeyGate(), KeyLimits(concurrent_requests=1)
    gate.count(A, limits, 0.0)
    gate.count(A, limits, 0.0)
    gate.enter(A, limits, 0.0)
    with pytest.raises(LenswayError) as caught:
        gate.enter(A, limits, 0.0)
    assert caught.value.code is ErrorCode.RATE_LIMITED
