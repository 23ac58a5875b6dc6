"""Rows as people read them: an icon and a word for each state, warnings by cause, the worst sources first. Plain values only."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lensway import limits
from lensway.usecases.fleet_pages import ListQuery

_HUES: Final = 6

ICONS: Final = {
    "healthy": "✓",
    "connecting": "…",
    "degraded": "!",
    "suspect": "?",
    "draining": "‖",
    "offline": "✗",
    "revoked": "⊘",
    "never_connected": "○",
}
"""A sign of its own for each state: it still tells them apart where colours do not."""

_TONES: Final = {
    "healthy": "good",
    "connecting": "calm",
    "degraded": "warn",
    "suspect": "warn",
    "draining": "warn",
    "offline": "bad",
    "revoked": "bad",
    "never_connected": "calm",
}
_CHIP_ORDER: Final = (
    "unreachable",
    "no_bridge",
    "no_credentials",
    "invalid_settings",
    "credentials_ambiguous",
    "refused",
    "offline",
    "pending",
)
_CHIP_LOOKS: Final = {
    "ready": ("✓", "good"),
    "pending": ("…", "calm"),
    "offline": ("✗", "bad"),
    "draining": ("‖", "warn"),
}
_CODE_WORDS: Final = {
    "single_runner": "no redundancy",
    "replicas_differ": "replicas differ",
    "runner_offline": "runner offline",
    "runner_unreachable": "database unreachable",
    "bridge_missing": "bridge missing",
    "credentials_missing": "credentials missing",
    "no_live_runner_left": "no live runner",
    "goes_inline": "goes inline",
}
_REMEDIES: Final = {
    "single_runner": "Assign a second runner",
    "replicas_differ": "Make them equal",
    "runner_offline": "How to start it",
    "runner_unreachable": "Test the connection",
    "bridge_missing": "How to install it",
    "credentials_missing": "What to set",
    "no_live_runner_left": "Assign another runner",
    "goes_inline": "Assign another runner",
}
_NOTES: Final = frozenset({"single_runner", "replicas_differ", "goes_inline"})
"""Warnings about what may go wrong, as against what is wrong."""
_NAMES_SHOWN: Final = 3


def code_word(code: str) -> str:
    """The words for the code of a warning."""
    return _CODE_WORDS.get(code, code.replace("_", " "))


def remedy_label(code: str) -> str:
    """What the button beside a warning says."""
    return _REMEDIES.get(code, "What to do")


def cause_words(cause: str) -> str:
    """Why a runner is in its state, in words."""
    return f"connection {cause}" if cause in ("closed", "reset") else cause.replace("_", " ")


def tone_of(state: str) -> str:
    """How good a state is: good, calm, warn or bad."""
    return _TONES.get(state, "warn")


def read_query(values: Mapping[str, str]) -> ListQuery:
    """A list's address as a query; parts that make no sense count as absent."""
    number = values.get("page", "")
    page = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else 1
    opened = tuple(sorted({each for each in values.get("open", "").split(",") if each})[: limits.CONSOLE_ROWS_MAX])
    return ListQuery(
        text=values.get("q", "").strip()[: limits.NAME_CHARACTERS_MAX],
        only_problems=values.get("problems") == "1",
        page=max(1, page),
        opened=opened,
    )


def address_values(query: ListQuery) -> dict[str, str]:
    """The query as parts of an address: the inverse of `read_query`, without what is the default."""
    values = {
        "q": query.text,
        "problems": "1" if query.only_problems else "",
        "page": "" if query.page == 1 else str(query.page),
        "open": ",".join(query.opened),
    }
    return {name: value for name, value in values.items() if value}


def hue_of(environment: str) -> int:
    """The colour of an environment: always the same for the same name, neutral for the default one."""
    return 0 if environment == "default" else 1 + zlib.crc32(environment.encode()) % _HUES


def pages_of(matching: int, query: ListQuery) -> int:
    """How many pages a list has, at least one."""
    return max(1, -(-matching // query.size))


def runner_row(document: Mapping[str, Any], query: ListQuery) -> dict[str, Any]:
    """What the row of a runner shows."""
    state: str = document["status"]
    is_open = document["id"] in query.opened
    chips = sorted(
        (chip_of(source, state) for source in document["sources"]), key=lambda chip: (chip["rank"], chip["name"])
    )
    shown = chips[: limits.CONSOLE_CHIPS_OPEN_MAX if is_open else limits.CONSOLE_CHIPS_MAX]
    instances: Sequence[Mapping[str, Any]] = document["instances"]
    can_resume = state == "draining" and document["cause"] == "drained by an operator"
    behind = sum(instance["revision"] != instance["wantedRevision"] for instance in instances)
    return {
        "id": document["id"],
        "name": document["name"],
        "network": document["network"],
        "state": state,
        "icon": ICONS.get(state, "?"),
        "tone": _TONES.get(state, "warn"),
        "word": state.replace("_", " "),
        "since": document["since"],
        "cause": _cause(state, document["cause"]),
        "hint": "" if can_resume else document["hint"],
        "can_resume": can_resume,
        "jobs": sum(instance["outstanding"] for instance in instances),
        "capacity": sum(instance["capacity"] for instance in instances),
        "versions": ", ".join(sorted({_version(instance["version"]) for instance in instances})),
        "instances": instances,
        "behind": behind,
        "chips": shown,
        "chips_hidden": len(chips) - len(shown),
        "chips_total": len(chips),
        "is_open": is_open,
        "toggle": _toggled(query, document["id"]),
        "warnings": causes_of(document["causes"]),
        "created_at": document["createdAt"],
    }


def source_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the row of a source shows."""
    states: Mapping[str, str] = document["states"]
    places = [
        {
            "name": name,
            "icon": ICONS.get(state, "?"),
            "tone": _TONES.get(state, "warn"),
            "word": state.replace("_", " "),
        }
        for name, state in sorted(states.items(), key=lambda item: (_TONES.get(item[1]) == "good", item[0]))
    ]
    return {
        "id": document["id"],
        "name": document["name"],
        "bridge": document["bridge"],
        "credentials": document["credentials"],
        "needs_runner": needs_runner(document),
        "places": places[: limits.CONSOLE_CHIPS_MAX],
        "places_hidden": max(0, len(places) - limits.CONSOLE_CHIPS_MAX),
        "lenses": document["lenses"],
        "warnings": causes_of(document["causes"]),
    }


def needs_runner(source: Mapping[str, Any]) -> bool:
    """True for a source that the service itself may not execute."""
    return bool(source["credentials"] == "runner-local" or source["execution"] == "runner_required")


def causes_of(causes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Warnings by their cause: one line for two hundred sources behind one runner that is away.

    A drained runner is a cause of its own, with its own remedy: it is not offline, an operator resumes it.
    """
    return [_cause_line(cause["code"], cause["mark"], cause["names"], cause["message"]) for cause in causes]


def _cause_line(code: str, mark: str, names: Sequence[str], message: str) -> dict[str, Any]:
    word = f"runner {mark}" if mark else code_word(code)
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return {
        "code": code,
        "word": word,
        "is_note": code in _NOTES,
        "count": len(names),
        "names": f"{shown} and {more} more" if more > 0 else shown,
        "message": message,
        "mark": mark,
        "remedy": {"draining": "Resume", "revoked": "Rotate token"}.get(mark) or remedy_label(code),
    }


def chip_of(source: Mapping[str, Any], state: str) -> dict[str, Any]:
    """How one source is doing at a runner in this state."""
    health: str = source.get("health", "pending")
    # What a drained runner could do is not what it does.
    shown = "draining" if state == "draining" and health == "ready" else health
    icon, tone = _CHIP_LOOKS.get(shown, ("!", "bad"))
    rank = _CHIP_ORDER.index(health) if health in _CHIP_ORDER else len(_CHIP_ORDER)
    return {
        "name": source.get("name", ""),
        "icon": icon,
        "tone": tone,
        "word": shown.replace("_", " "),
        "why": str(source.get("cause") or ""),
        "rank": rank,
    }


def _cause(state: str, cause: str) -> str:
    words = cause_words(cause)
    return "" if words == state.replace("_", " ") or (state == "healthy" and words == "connected") else words


def _version(software: str) -> str:
    """The number in "lensway 0.1.0 python 3.12"; another program as it calls itself."""
    return software.removeprefix("lensway ").split()[0] if software.startswith("lensway ") else software


def _toggled(query: ListQuery, id: str) -> tuple[str, ...]:
    """The rows that are open after this one was toggled."""
    return tuple(each for each in query.opened if each != id) if id in query.opened else (*query.opened, id)
