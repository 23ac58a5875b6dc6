"""How a figure is shown: what was measured, its reference, the bar, the verdict; and the machine beside it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure: measured and reference as text, ``value`` against ``bar`` in the sense of ``at_least``."""

    figure: str
    measured: str
    reference: str
    value: float
    bar: float
    unit: str = "×"
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """True when the bar is met."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def text(self) -> str:
        """The line as printed."""
        sign = "≥" if self.at_least else "≤"
        verdict = "ok  " if self.is_met else "MISS"
        result = f"{self.value:.2f} {self.unit} (bar {sign} {self.bar:g})"
        return f"{verdict} {self.figure:<44} {result:<26} {self.measured}  |  reference: {self.reference}"


def machine() -> str:
    """What this runs on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"machine: {os.cpu_count()} cores, {model}, Python {platform.python_version()}, load {load}"
