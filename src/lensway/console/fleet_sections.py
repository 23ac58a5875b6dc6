"""The pages of the fleet: runners and sources."""

from __future__ import annotations

from collections.abc import Sequence

from lensway.clock import Clock
from lensway.console import views
from lensway.console.fragments import Templates
from lensway.console.sections import Found, Section, View, link_to
from lensway.usecases.bundle import UseCases


def fleet_sections(use: UseCases, templates: Templates, clock: Clock) -> Sequence[Section]:
    """The declarations of these pages."""

    async def runners(view: View) -> Found:
        return await use.fleet.runners(view.caller, view.query)

    async def sources(view: View) -> Found:
        return await use.fleet.sources(view.caller, view.query)

    return [
        Section(name="runners", title="Runners", read=runners, refine=_runner_rows),
        Section(name="sources", title="Sources", read=sources, refine=_source_rows),
    ]


def _runner_rows(view: View, found: Found) -> Found:
    rows = [views.runner_row(each, view.query) for each in found["runners"]]
    for row in rows:
        row["toggle"] = link_to(view, opened=row["toggle"])
    return {**found, "rows": rows}


def _source_rows(_view: View, found: Found) -> Found:
    return {**found, "rows": [views.source_row(each) for each in found["sources"]]}
