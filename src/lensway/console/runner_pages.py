"""The pages Runners and one runner: what they show, what can be done to a runner, and adding one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

import lensway
from lensway.auth import decisions
from lensway.console import answers, lines, views
from lensway.console.forms import Form, read_form
from lensway.console.fragments import Templates
from lensway.console.sections import Found, Section, View, base_of, link_to
from lensway.console.starting import ways
from lensway.console.visits import Visit
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.bundle import UseCases
from lensway.usecases.fleet_details import RunnerAct

_AUDIT_ROWS: Final = 300
_AUDIT_SHOWN: Final = 20


class RunnerPages:
    """What the two sections read and change."""

    def __init__(self, use: UseCases, templates: Templates) -> None:
        self._use = use
        self._templates = templates

    def sections(self) -> Sequence[Section]:
        """The list and the page of one runner."""
        return [
            Section(
                name="runners",
                title="Runners",
                page="runners.html",
                read=self._list,
                refine=_rows,
                parts={"new": self._new},
                posts={"create": self._create},
            ),
            Section(
                name="runner",
                title="Runner",
                parent="runners",
                page="detail.html",
                has_object=True,
                read=self._one,
                refine=_detail,
                parts={"acts": self._acts, "pulse": self._pulse},
                posts={"act": self._act},
            ),
        ]

    async def _list(self, view: View) -> Found:
        return await self._use.fleet.runners(view.caller, view.query)

    async def _one(self, view: View) -> Found:
        found = await self._use.details.runner(view.caller, view.object)
        about = {found["name"], found["id"]}
        entries = await self._use.pages.audit.newest(view.caller, _AUDIT_ROWS)
        found["audit"] = [entry for entry in entries if about & set(entry["object"].split(" -> "))][:_AUDIT_SHOWN]
        return found

    # --- acts -----------------------------------------------------------------------------------------------------------------

    async def _acts(self, visit: Visit) -> Response:
        decisions.require_operate(visit.caller.identity)
        found = self._use.runners.show(visit.caller, _object(visit))
        row = views.runner_row({**found, "causes": []}, views.read_query({}))
        acts = acts_of(row, may_administer=visit.may_administer)
        return answers.part(self._templates.render("runner_acts.html", runner=row, acts=acts))

    async def _act(self, visit: Visit) -> Response:
        """Ask with what will happen to which sources; confirmed, do it."""
        decisions.require_operate(visit.caller.identity)
        form = await read_form(visit.request)
        act, name = _read_act(form), _object(visit)
        if act not in _OPERATING:
            decisions.require_admin(visit.caller.identity)
        effects = self._use.details.effects(visit.caller, name, act)
        if form.one("confirm") != "yes":
            html = self._templates.render("runner_effects.html", **lines.effects_of(effects, act.value))
            return answers.ask(html)
        runners, caller = self._use.runners, visit.caller
        match act:
            case RunnerAct.DRAIN:
                await runners.drain(caller, name)
            case RunnerAct.RESUME:
                await runners.resume(caller, name)
            case RunnerAct.REVOKE:
                await runners.revoke(caller, name)
            case RunnerAct.DELETE:
                await runners.delete(caller, name, force=True)
                if form.one("from") == "detail":
                    return answers.go(f"{base_of(visit.environment)}/runners")
            case RunnerAct.ROTATE:
                return self._started(await runners.rotate(caller, name), is_new=False)
        return answers.done()

    # --- adding ---------------------------------------------------------------------------------------------------------------

    async def _new(self, visit: Visit) -> Response:
        decisions.require_admin(visit.caller.identity)
        names = self._use.details.runner_names(visit.caller)
        return answers.part(self._templates.render("runner_new.html", names=names, values={}, error=None))

    async def _create(self, visit: Visit) -> Response:
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        body = {key: text for key in ("name", "network", "like") if (text := form.one(key).strip())}
        try:
            created = await self._use.runners.create(visit.caller, {"name": "", **body})
        except LenswayError as error:
            if error.code not in (ErrorCode.INVALID_REQUEST, ErrorCode.CONFLICT, ErrorCode.NOT_FOUND):
                raise
            names = self._use.details.runner_names(visit.caller)
            html = self._templates.render("runner_new.html", names=names, values=body, error=error.failure)
            return answers.show(html)
        return self._started(created, is_new=True)

    def _started(self, created: Mapping[str, Any], *, is_new: bool) -> Response:
        html = self._templates.render(
            "runner_started.html",
            name=created["name"],
            is_new=is_new,
            ways=ways(created["name"], created["env"], lensway.__version__),
        )
        return answers.show(html)

    async def _pulse(self, visit: Visit) -> Response:
        """The state of a runner, for a dialog that waits for it."""
        found = self._use.runners.show(visit.caller, _object(visit))
        row = views.runner_row({**found, "causes": []}, views.read_query({}))
        return answers.part(self._templates.render("runner_pulse.html", runner=row))


def acts_of(row: Mapping[str, Any], *, may_administer: bool) -> list[dict[str, str]]:
    """What this reader can do to a runner in its present state, as buttons. Operators drain and resume, admins do the rest."""
    names = []
    if row["state"] != "revoked":
        names.append(RunnerAct.RESUME if row["can_resume"] else RunnerAct.DRAIN)
    names.append(RunnerAct.ROTATE)
    if row["state"] != "revoked":
        names.append(RunnerAct.REVOKE)
    names.append(RunnerAct.DELETE)
    return [
        {
            "act": act.value,
            "label": _LABELS[act],
            "what": _WHAT[act],
            "path": f"runner/{row['name']}/act",
            "form": json.dumps({"act": act.value, "from": row.get("from", "")}),
        }
        for act in names
        if may_administer or act in _OPERATING
    ]


_OPERATING: Final = (RunnerAct.DRAIN, RunnerAct.RESUME)
_LABELS: Final = {
    RunnerAct.DRAIN: "Drain",
    RunnerAct.RESUME: "Resume",
    RunnerAct.ROTATE: "Rotate token",
    RunnerAct.REVOKE: "Revoke",
    RunnerAct.DELETE: "Delete",
}
_WHAT: Final = {
    RunnerAct.DRAIN: "no new queries; running ones finish",
    RunnerAct.RESUME: "give it new queries again",
    RunnerAct.ROTATE: "a new token; the old one works for a while",
    RunnerAct.REVOKE: "close its connections; its token opens nothing",
    RunnerAct.DELETE: "remove it with its assignments",
}


def _rows(view: View, found: Found) -> Found:
    rows = [views.runner_row(each, view.query) for each in found["runners"]]
    for row in rows:
        row["toggle"] = link_to(view, opened=row["toggle"])
    return {**found, "rows": rows}


def _detail(view: View, found: Found) -> Found:
    query = views.read_query({"open": found["id"]})
    row = {**views.runner_row(found, query), "from": "detail"}
    health = {chip["name"]: chip for chip in row["chips"]}
    return {
        **found,
        "runner": row,
        "acts": acts_of(row, may_administer=view.may_administer) if view.may_operate else [],
        "sources": [{**each, "chip": health.get(each["name"])} for each in found["sources"] if each["name"] in health],
        "events": lines.event_lines(found["events"]),
    }


def _read_act(form: Form) -> RunnerAct:
    try:
        return RunnerAct(form.one("act"))
    except ValueError:
        raise LenswayError(ErrorCode.INVALID_REQUEST, "This act on a runner does not exist") from None


def _object(visit: Visit) -> str:
    name: str = visit.request.path_params["object"]
    return name
