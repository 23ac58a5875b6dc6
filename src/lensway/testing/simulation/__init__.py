"""Whole deployments on virtual time, with faults: the real dispatcher, gateway links and runner agents, thousands of times.

One seed is one scenario: its callers, its faults and every delay. The same seed runs the same way every time;
``python -m lensway.testing.simulation SEED`` replays one and tells what happens.
"""

from lensway.testing.simulation.scenario import Outcome, simulate
from lensway.testing.simulation.witness import ViolationError

__all__ = ["Outcome", "ViolationError", "simulate"]
