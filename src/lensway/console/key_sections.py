"""The pages of keys and of the deployment itself: environments, the version, and who is signed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.responses import Response

from lensway.auth import decisions
from lensway.catalog.names import counted
from lensway.catalog.records import KeyKind, Role
from lensway.console.answers import ask, done, part, show
from lensway.console.forms import Form, read_form
from lensway.console.fragments import Templates
from lensway.console.request_sections import size_text
from lensway.console.sections import Found, Section, View, link_to
from lensway.console.visits import Visit
from lensway.errors import ErrorCode, LenswayError
from lensway.usecases.bundle import UseCases
from lensway.usecases.key_pages import EXPIRED, UNUSED, KeyQuery

_KIND_WORDS: Final = {
    "ak": ("admin", "manages this server; may sign in to the Console"),
    "sk": ("service", "reads every lens of its environment; for programs"),
    "pk": ("publishable", "reads lenses that are open to it; for web pages"),
}
_LIMITS: Final = {
    "maxRows": "rows in one answer",
    "maxBytes": "bytes in one answer",
    "maxRowBytes": "bytes in one row",
    "timeoutMs": "milliseconds for one request",
    "requestsPerMinute": "requests a minute",
    "concurrentRequests": "requests at a time",
}
_NUMBER_DIGITS_MAX: Final = 15


def key_sections(use: UseCases, templates: Templates) -> Sequence[Section]:
    """The declarations of these pages."""
    keys = _KeyChanges(use, templates)
    settings = _SettingsChanges(use, templates)

    async def several(view: View) -> Found:
        return await use.pages.keys.page(view.caller, _query_of(view))

    async def deployment(view: View) -> Found:
        return await use.pages.settings.page(view.caller, view.query.page)

    return [
        Section(
            name="keys",
            title="Keys",
            read=several,
            refine=_keys,
            mark=use.pages.keys.mark,
            page="keys.html",
            filters=("kind", "state"),
            is_personal=True,
            parts={"new": keys.form},
            posts={"create": keys.create, "delete": keys.delete},
            scripts=("secrets.js",),
        ),
        Section(
            name="settings",
            title="Settings",
            read=deployment,
            refine=_settings,
            mark=use.pages.settings.mark,
            page="detail.html",
            is_personal=True,
            parts={"new-environment": settings.form},
            posts={
                "create-environment": settings.create_environment,
                "delete-environment": settings.delete_environment,
                "end-sign-in": settings.end_sign_in,
                "end-sign-ins": settings.end_sign_ins,
            },
        ),
    ]


def _query_of(view: View) -> KeyQuery:
    kind, state = view.filter("kind"), view.filter("state")
    return KeyQuery(
        text=view.query.text,
        kind=kind if kind in _KIND_WORDS else "",
        state=state if state in (EXPIRED, UNUSED) else "",
        page=view.query.page,
    )


def _is_admin(view: View) -> bool:
    return view.role == Role.ADMIN.value


def _keys(view: View, found: Found) -> Found:
    tabs = [("", "all keys"), (EXPIRED, f"{found['expired']} expired"), (UNUSED, "never used")]
    chosen = _query_of(view).state
    return {
        **found,
        "rows": [{**_key(each), "may_delete": _is_admin(view)} for each in found["keys"]],
        "tabs": [
            {
                "href": link_to(view, state=state, page=1),
                "word": word,
                "id": state or "all",
                "is_chosen": state == chosen,
            }
            for state, word in tabs
        ],
    }


def _key(document: Mapping[str, Any]) -> dict[str, Any]:
    kind, purpose = _KIND_WORDS[document["kind"]]
    return {
        "id": document["id"],
        "name": document["name"],
        "kind": document["kind"],
        "kind_word": kind,
        "purpose": purpose,
        "role": document.get("role", ""),
        "environment": document.get("environment", ""),
        "limits": _limit_words(document.get("limits", {})),
        "origins": document.get("origins", ()),
        "created_at": document["createdAt"],
        "expires_at": document.get("expiresAt", ""),
        "last_used_at": document.get("lastUsedAt", ""),
        "is_expired": document["isExpired"],
        "is_own": document["isOwn"],
    }


def _limit_words(limits: Mapping[str, int]) -> list[str]:
    return [
        f"{size_text(value)} in one {'row' if name == 'maxRowBytes' else 'answer'}"
        if name in ("maxBytes", "maxRowBytes")
        else f"{value:,} {_LIMITS[name]}"
        for name, value in limits.items()
    ]


class _KeyChanges:
    """Keys are created with their secret on show once, and deleted after a question."""

    def __init__(self, use: UseCases, templates: Templates) -> None:
        self._use = use
        self._templates = templates

    async def form(self, visit: Visit) -> Response:
        """What to fill in for a new key."""
        decisions.require_admin(visit.caller.identity)
        return part(self._form(visit, Form({})))

    async def create(self, visit: Visit) -> Response:
        """Create the key, and show its secret in this one answer."""
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        try:
            created = await self._use.keys.create(visit.caller, _key_body(form))
        except LenswayError as error:
            if error.code is not ErrorCode.INVALID_REQUEST:
                raise
            return ask(self._form(visit, form, error=error))
        return show(self._templates.render("key_created.html", key=created, environment=visit.environment))

    async def delete(self, visit: Visit) -> Response:
        """Delete the key once it is confirmed."""
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        id = form.one("key")
        if form.one("confirm") == "yes":
            await self._use.keys.delete(visit.caller, id)
            return done()
        found = next((each for each in self._use.keys.list(visit.caller)["keys"] if each["id"] == id), None)
        if found is None:
            await self._use.keys.delete(visit.caller, id)  # raises NOT_FOUND, with its audit row
            return done()
        is_own = id == visit.caller.identity.key
        return ask(self._templates.render("key_delete.html", key=found, is_own=is_own))

    def _form(self, visit: Visit, form: Form, *, error: LenswayError | None = None) -> str:
        return self._templates.render(
            "key_new.html",
            form=form,
            error=error,
            kinds=_KIND_WORDS,
            roles=[role.value for role in Role],
            limits=_LIMITS,
            environment=visit.environment,
            may_be_wide=visit.caller.identity.environment is None,
        )


def _key_body(form: Form) -> dict[str, Any]:
    """The key that a form asks for, as the API takes it; what makes no sense is refused there."""
    body: dict[str, Any] = {"kind": form.one("kind"), "name": form.one("name").strip()}
    is_admin = body["kind"] == KeyKind.ADMIN.value
    if is_admin and form.one("role"):
        body["role"] = form.one("role")
    if is_admin and form.one("instanceWide") == "yes":
        body["instanceWide"] = True
    if expires := form.one("expiresAt").strip():
        body["expiresAt"] = expires
    if body["kind"] == KeyKind.PUBLISHABLE.value and (origins := form.one("origins").split()):
        body["origins"] = origins
    limits = {name: _number(text) for name in _LIMITS if (text := form.one(name).strip())}
    return body | ({"limits": limits} if limits else {})


def _number(text: str) -> int | str:
    """The number that a text is, or the text itself for the API to refuse."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS_MAX
    return int(text) if is_number else text


# --- settings ---------------------------------------------------------------------------------------------------------------


def _settings(view: View, found: Found) -> Found:
    identity = view.caller.identity
    is_wide_admin = _is_admin(view) and identity.environment is None
    return {
        **found,
        "may_administer": is_wide_admin,
        "may_end": _is_admin(view),
        "signIns": [{**each, "is_own": each["key"] == identity.key} for each in found["signIns"]],
        "key": {"name": identity.name, "id": identity.key, "is_wide": identity.environment is None},
    }


class _SettingsChanges:
    """Environments come and go; sign-ins end."""

    def __init__(self, use: UseCases, templates: Templates) -> None:
        self._use = use
        self._templates = templates

    async def form(self, visit: Visit) -> Response:
        """What to fill in for a new environment."""
        decisions.require_instance_wide(visit.caller.identity)
        return part(self._templates.render("environment_new.html", name="", error=None))

    async def create_environment(self, visit: Visit) -> Response:
        """Create an environment."""
        decisions.require_instance_wide(visit.caller.identity)
        name = (await read_form(visit.request)).one("name").strip()
        try:
            await self._use.environments.create(visit.caller, {"name": name})
        except LenswayError as error:
            if error.code not in (ErrorCode.INVALID_REQUEST, ErrorCode.CONFLICT):
                raise
            return ask(self._templates.render("environment_new.html", name=name, error=error))
        return done()

    def _confirm(self, *, question: str, text: str, verb: str) -> Response:
        """The dialog that asks once more; its answer comes with ``confirm``."""
        return ask(self._templates.render("confirm.html", question=question, text=text, verb=verb))

    async def delete_environment(self, visit: Visit) -> Response:
        """Delete an empty environment once it is confirmed."""
        decisions.require_instance_wide(visit.caller.identity)
        form = await read_form(visit.request)
        name = form.one("environment")
        if form.one("confirm") != "yes":
            return self._confirm(
                question=f"Delete the environment {name}?",
                text="Only an empty one can be deleted: without sources, lenses, runners and keys.",
                verb="Delete",
            )
        await self._use.environments.delete(visit.caller, name)
        return done()

    async def end_sign_in(self, visit: Visit) -> Response:
        """End one sign-in once it is confirmed."""
        decisions.require_admin(visit.caller.identity)
        form = await read_form(visit.request)
        id = form.one("id")
        if form.one("confirm") != "yes":
            found = next((each for each in self._use.sign_ins.list(visit.caller)["signIns"] if each["id"] == id), None)
            whose = "this sign-in" if found is None else f"the sign-in of {found['keyName']} from {found['address']}"
            return self._confirm(
                question=f"End {whose}?",
                text="Its pages show that they are signed out. The key itself stays valid.",
                verb="End it",
            )
        await self._use.sign_ins.end(visit.caller, id)
        return done()

    async def end_sign_ins(self, visit: Visit) -> Response:
        """End every sign-in that the caller sees once it is confirmed."""
        decisions.require_admin(visit.caller.identity)
        if (await read_form(visit.request)).one("confirm") != "yes":
            count = len(self._use.sign_ins.list(visit.caller)["signIns"])
            return self._confirm(
                question=f"End {counted(count, 'sign-in')}, yours too?",
                text="Everyone has to sign in again with a key. Keys stay valid.",
                verb="End all",
            )
        await self._use.sign_ins.end_all(visit.caller)
        return done()
