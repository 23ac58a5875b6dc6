"""States as a terminal shows them: an icon and a word, in a colour where colours are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from lensway.cli import screen
from lensway.errors import ErrorCode

GOOD: Final = "green"
CALM: Final = "cyan"
WARN: Final = "yellow"
BAD: Final = "red"

LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    # runners
    "healthy": ("✓", GOOD),
    "connecting": ("…", CALM),
    "degraded": ("!", WARN),
    "suspect": ("?", WARN),
    "draining": ("‖", WARN),
    "offline": ("✗", BAD),
    "revoked": ("⊘", BAD),
    "never_connected": ("○", CALM),
    # instances
    "live": ("✓", GOOD),
    # sources, on one runner and as a whole
    "ready": ("✓", GOOD),
    "inline": ("✓", GOOD),
    "pending": ("…", CALM),
    "unreachable": ("✗", BAD),
    "down": ("✗", BAD),
    "no_bridge": ("✗", BAD),
    "no_credentials": ("✗", BAD),
    "credentials_ambiguous": ("✗", BAD),
    "refused": ("✗", BAD),
    "needs_a_runner": ("✗", BAD),
    # requests and their attempts, the audit, tests
    "completed": ("✓", GOOD),
    "ended": ("✓", GOOD),
    "running": ("…", CALM),
    "ok": ("✓", GOOD),
    "passed": ("✓", GOOD),
    "failed": ("✗", BAD),
    "skipped": ("○", CALM),
    "differs": ("✗", BAD),
    "current": ("✓", GOOD),
}
"""The icon and the colour of each state. Runners look as they do in the Console."""

_UNKNOWN: Final = ("!", WARN)
_CODES: Final = frozenset(code.value for code in ErrorCode)


def marked(state: str, line: str) -> Text:
    """A line of its own words, with the icon and the colour of a state in front of it."""
    icon, colour = LOOKS[state]
    return Text(f"{icon} {line}" if screen.has_icons() else line, style=colour)


def shown(state: object, words: str | None = None) -> Text:
    """The state with its icon. ``words`` replace its name. A state that is not known, of a newer server, looks like a warning."""
    if state is None:
        return Text("-")
    name = str(state)
    icon, colour = LOOKS.get(name) or (LOOKS["failed"] if name.partition(":")[0] in (*_CODES, "failed") else _UNKNOWN)
    text = screen.text_of(words if words is not None else name.replace("_", " ") if name in LOOKS else name)
    return Text(f"{icon} {text}" if screen.has_icons() else text, style=colour)
