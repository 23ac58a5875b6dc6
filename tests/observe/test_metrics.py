"""What a scraper reads."""

from __future__ import annotations

from lensway.observe.metrics import JobTimes, Metrics


def test_jobs_are_counted_by_place_and_outcome_and_their_times_fall_into_buckets() -> None:
    metrics = Metrics()
    metrics.request("ok")
    metrics.job(
        JobTimes("runner", "completed", total=0.02, dispatch=0.0004, accept=0.003, first_row=0.009, rows=7, bytes=90)
    )
    metrics.job(JobTimes("runner", "completed", total=40.0, dispatch=0.0004, accept=0.003, rows=1, bytes=10))
    metrics.job(JobTimes("inline", "cancelled", total=0.5, cancels=["caller_gone"]))
    metrics.watch_events(lambda: {"credit_stalls": 3})
    lines = metrics.text().decode().splitlines()
    for expected in (
        'lensway_requests_total{code="ok"} 1.0',
        'lensway_jobs_total{outcome="completed",via="runner"} 2.0',
        'lensway_jobs_total{outcome="cancelled",via="inline"} 1.0',
        'lensway_rows_total{via="runner"} 8.0',
        'lensway_bytes_total{via="runner"} 100.0',
        'lensway_cancels_total{cause="caller_gone"} 1.0',
        'lensway_dispatch_events_total{event="credit_stalls"} 3.0',
        'lensway_dispatch_seconds_bucket{le="0.01",via="runner"} 0.0',
        'lensway_dispatch_seconds_bucket{le="0.025",via="runner"} 1.0',
        'lensway_dispatch_seconds_bucket{le="+Inf",via="runner"} 2.0',
        'lensway_dispatch_seconds_count{via="runner"} 2.0',
        'lensway_dispatch_seconds_sum{via="runner"} 40.02',
        'lensway_job_first_row_seconds_count{via="runner"} 1.0',
        'lensway_job_accept_seconds_bucket{le="0.005",via="runner"} 2.0',
    ):
        assert expected in lines
