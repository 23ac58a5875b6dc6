"""The pages of the fleet: overview, runners, sources."""

from __future__ import annotations

from collections.abc import Sequence

from lensway.clock import Clock
from lensway.console.fragments import Templates
from lensway.console.overview_page import OverviewPage
from lensway.console.runner_pages import RunnerPages
from lensway.console.sections import Section
from lensway.console.source_pages import SourcePages
from lensway.usecases.bundle import UseCases


def fleet_sections(use: UseCases, templates: Templates, clock: Clock) -> Sequence[Section]:
    """The declarations of these pages."""
    return [
        *OverviewPage(use, templates).sections(),
        *RunnerPages(use, templates).sections(),
        *SourcePages(use, templates, clock).sections(),
    ]
