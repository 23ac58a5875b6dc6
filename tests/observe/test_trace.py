"""The W3C context: what is read, what is written, and that nothing else is believed."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensway import limits
from lensway.observe.trace import TraceContext, read_context, read_text, text_of_attempt

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
ids = st.integers(min_value=1, max_value=2**64 - 1)


def test_the_example_of_the_standard_is_read() -> None:
    assert read_context(GOOD, "congo=t61rcWkgMzE") == TraceContext(
        int(TRACE, 16), int(SPAN, 16), "congo=t61rcWkgMzE", True
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "0",
        GOOD + "-00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f" {GOOD}",
        f"{GOOD}\n",
        GOOD.replace("4", "٤"),
    ],
)
def test_anything_else_is_no_context(text: str) -> None:
    assert read_context(text) is None


def test_a_later_version_may_say_more_and_flags_may_be_others() -> None:
    later = read_context(f"01-{TRACE}-{SPAN}-03-what.ever")
    assert later is not None
    assert later.is_sampled
    other = read_context(f"00-{TRACE}-{SPAN}-fe")
    assert other is not None
    assert not other.is_sampled


@pytest.mark.parametrize("state", ["a=1\r\nx: y", "ä=1", "a=" + "x" * limits.TRACE_STATE_CHARACTERS_MAX])
def test_a_state_that_cannot_travel_is_left_out(state: str) -> None:
    found = read_context(GOOD, state)
    assert found is not None
    assert found.state == ""


@given(trace=st.integers(min_value=1, max_value=2**128 - 1), span=ids, number=st.integers(min_value=1, max_value=300))
def test_what_travels_is_read_back_and_attempts_are_told_apart(trace: int, span: int, number: int) -> None:
    job = TraceContext(trace, span, "a=1,b=2")
    assert read_text(job.text()) == job
    assert read_text(text_of_attempt(job.text(), number)) == job.of_attempt(number)
    spans = {job.span, job.of_attempt(number).span, job.of_attempt(number + 1).span}
    assert len(spans) == 3


def test_what_the_gateway_says_is_believed_no_more_than_a_caller() -> None:
    assert text_of_attempt("x" * 10_000, 1) == ""


def in_a_process_of_its_own(code: str, tmp_path: pathlib.Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout + done.stderr


ASKED = (
    "from lensway.clock import SystemClock as C; from lensway.observe.tracing import tracer_of as t; import os, sys; "
)


def test_nothing_of_it_is_loaded_unless_it_is_configured(tmp_path: pathlib.Path) -> None:
    code = ASKED + (
        "import lensway.compose.server, lensway.compose.runner; print(t('x', os.environ, C())); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert in_a_process_of_its_own(code, tmp_path).split("\n")[:2] == ["None", "[]"]


def test_without_the_extra_there_is_a_word_in_the_log_and_no_tracing(tmp_path: pathlib.Path) -> None:
    code = ASKED + "sys.modules['opentelemetry'] = None; print(t('x', os.environ, C()))"
    said = in_a_process_of_its_own(code, tmp_path, OTEL_TRACES_EXPORTER="otlp")
    assert "None" in said
    assert "lensway[otel]" in said


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_SERVICE_NAME": "named"}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], is_on: bool, tmp_path: pathlib.Path) -> None:
    said = in_a_process_of_its_own(ASKED + "print(t('x', os.environ, C()) is not None)", tmp_path, **variables)
    assert said.strip().endswith(str(is_on))


def test_variables_that_cannot_be_used_are_one_helpful_line(tmp_path: pathlib.Path) -> None:
    code = (
        ASKED
        + "from lensway.errors import LenswayError\ntry:\n t('x', os.environ, C())\nexcept LenswayError as e: print(e)"
    )
    said = in_a_process_of_its_own(code, tmp_path, OTEL_TRACES_EXPORTER="otlp", OTEL_BSP_MAX_QUEUE_SIZE="-1")
    assert "OTEL_*" in said
