"""The page Overview: problems by cause with their remedies, counts, the last events; and the remedies themselves."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from lensway.auth import decisions
from lensway.console import answers, lines
from lensway.console.fragments import Templates
from lensway.console.sections import Found, Section, View
from lensway.console.visits import Visit
from lensway.usecases.bundle import UseCases


class OverviewPage:
    """What the section reads, and the dialog with a remedy."""

    def __init__(self, use: UseCases, templates: Templates) -> None:
        self._use = use
        self._templates = templates

    def sections(self) -> Sequence[Section]:
        """The overview."""
        return [
            Section(
                name="overview",
                title="Overview",
                page="detail.html",
                read=self._read,
                refine=_lines,
                parts={"remedy": self._remedy},
            )
        ]

    async def _read(self, view: View) -> Found:
        found = await self._use.overview.show(view.caller)
        return {**found, "events": self._use.details.recent(view.caller)}

    async def _remedy(self, visit: Visit) -> Response:
        """What helps against a warning."""
        decisions.require_operate(visit.caller.identity)
        values = visit.request.query_params
        found = await self._use.remedies.find(
            visit.caller,
            values.get("code", ""),
            runner=values.get("runner", ""),
            source=values.get("source", ""),
        )
        return answers.part(self._templates.render("remedy.html", may_administer=visit.may_administer, **found))


def _lines(_view: View, found: Found) -> Found:
    return {
        **found,
        "problems": [lines.problem_line(each) for each in found["problems"]],
        "advice": [lines.advice_line(each) for each in found["advice"]],
        "events": lines.event_lines(found["events"]),
    }
