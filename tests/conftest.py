"""What every test has."""

from __future__ import annotations

import signal

import hypothesis
import pytest

pytest_plugins = ["lensway.testing.fixtures"]

# A shell that starts something in the background has it ignore SIGINT, and so would every process of ours that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Deterministic, so that a red run is red again; `make prove` explores with random seeds. How long drawing an example takes says
# something about the machine only.
hypothesis.settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# Whoever only asks whether a planted bug is noticed does not need the smallest example of it.
hypothesis.settings.register_profile(
    "mutants", derandomize=True, deadline=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
)
hypothesis.settings.load_profile("deterministic")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Async tests run on asyncio's own loop."""
    return ("asyncio", {"use_uvloop": False})
