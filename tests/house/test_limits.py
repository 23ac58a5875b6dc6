"""Bounds that only work together."""

from __future__ import annotations

from lensway import limits


def test_bounds_fit_each_other() -> None:
    assert limits.CREDIT_WINDOW_BYTES >= limits.HOLD_BACK_BYTES + limits.DATA_FRAME_BYTES_MAX
    assert 4 * limits.CREDIT_GRANT_BYTES_MIN <= limits.CREDIT_WINDOW_BYTES
    assert limits.HEARTBEAT_SECONDS < limits.SUSPECT_SECONDS < limits.RUNNER_FENCE_SECONDS < limits.DEAD_SECONDS
    assert (
        limits.HEARTBEAT_LARGE_SECONDS
        < limits.SUSPECT_LARGE_SECONDS
        < limits.RUNNER_FENCE_LARGE_SECONDS
        < limits.DEAD_LARGE_SECONDS
    )
    assert limits.DEAD_LARGE_SECONDS <= limits.LINK_UNANSWERED_SECONDS
    assert limits.DEAD_LARGE_SECONDS <= limits.ASSIGNMENT_FORCE_SECONDS
    assert limits.PLAN_BYTES_MAX < limits.CONTROL_FRAME_BYTES_MAX < limits.MESSAGE_BYTES_MAX
    assert limits.ASSIGNMENT_PART_BYTES_MAX < limits.CONTROL_FRAME_BYTES_MAX
    assert limits.ASSIGNMENT_PARTS_MAX * limits.ASSIGNMENT_PART_BYTES_MAX < limits.CONTROL_QUEUE_BYTES_MAX
    assert limits.CONFIG_BYTES_MAX * 16 // 9 < limits.ASSIGNMENT_PART_BYTES_MAX
    assert limits.END_MARK_BYTES_MAX <= limits.CONTROL_FRAME_BYTES_MAX
    assert limits.FAILURE_BYTES_MAX <= limits.CONTROL_FRAME_BYTES_MAX
    assert limits.FRAMES_AT_ONCE_MAX <= limits.FRAMES_BURST
    assert limits.LINK_FRAMES_AT_ONCE_MAX <= limits.LINK_CONTROLS_BURST
    assert limits.TEST_REPORT_BYTES_MAX <= limits.TABLES_BYTES_MAX <= limits.PAGE_BYTES_MAX
    assert limits.SEALED_REUSE_SECONDS <= limits.CREDENTIAL_SEAL_SECONDS / 2
    assert limits.ACCEPT_DELAY_SECONDS * 20 <= limits.OFFER_TIMEOUT_SECONDS
    assert limits.PAGE_BYTES_MAX <= limits.PAGE_BYTES_TOTAL_MAX
    assert limits.HTTP_STRANGERS_PER_ADDRESS_MAX < limits.HTTP_STRANGERS_MAX < limits.HTTP_CONNECTIONS_MAX
    assert limits.HANDSHAKE_PATIENCE_SECONDS < limits.HANDSHAKE_TIMEOUT_SECONDS
    assert (
        limits.EVENT_SUBSCRIBERS_RESERVED
        < limits.EVENT_SUBSCRIBERS_PER_KEY_MAX
        < limits.EVENT_SUBSCRIBERS_PER_ENVIRONMENT_MAX
    )
    assert limits.ROW_BYTES_DEFAULT <= limits.ROW_BYTES_MAX <= limits.FETCH_BYTES_MAX
    assert limits.QUEUE_WAIT_STANDING_SECONDS < limits.QUEUE_WAIT_SECONDS_MAX
    assert 2 * limits.RECONNECT_REFUSED_SECONDS < limits.REVIVAL_SECONDS_MAX
    assert (
        limits.PROBE_SECONDS + limits.PULSE_AFTER_SECONDS + limits.PULSE_SECONDS + 2 * limits.PULSE_LOOK_SECONDS
        < limits.CONNECT_TIMEOUT_SECONDS
    )
    assert 2 * limits.LOOKUPS_LATE_MAX <= limits.LOOKUPS_UNKNOWN_MAX <= limits.LOOKUPS_MAX // 2
    assert (
        limits.CONNECTIONS_PER_SOURCE_MAX + limits.EXPORT_CONNECTIONS_PER_SOURCE_MAX
        <= limits.CONNECTIONS_PER_SERVER_MAX
    )
    assert limits.CONNECTIONS_PER_SOURCE_MAX <= limits.JOBS_PER_PAIR_MAX <= limits.JOBS_PER_SESSION_DEFAULT
    assert limits.PAGE_BYTES_MAX < limits.CLIENT_ANSWER_BYTES_MAX
    assert limits.CLIENT_TIMEOUT_SECONDS * 1000 > limits.QUERY_TIMEOUT_MS_DEFAULT
