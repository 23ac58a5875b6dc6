"""What a runner reports of its local policy, and what the owner of its network can do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SOURCE, ADDRESS, PATH = "source", "address", "path"
"""The causes: the name of the source, the address of its database, or the path of its file."""
POLICY_INVALID: Final = "policy_invalid"
"""What a runner reports of itself while its policy file cannot be used and the policy before stays in force."""
NOTICE_HINTS: Final[Mapping[str, str]] = {
    POLICY_INVALID: "Its local policy file is not valid, and the policy before stays in force. "
    "Run `lensway runner policy check FILE` on its machine.",
}
"""What to do about each trouble that a runner reports of itself; those of newer runners are not shown."""
_FILE: Final = "in the policy file of the runner (LENSWAY_RUNNER_POLICY)"
_RULES: Final[Mapping[str, tuple[str, str]]] = {
    SOURCE: ("does not list this source", f"Add the name of the source to `sources` {_FILE}."),
    ADDRESS: (
        "does not allow the address of this source",
        f"Add the host (as a pattern) or its network (as CIDR) to `hosts`, and its port to `ports` if that is set, {_FILE}.",
    ),
    PATH: (
        "does not allow the file of this source",
        f'Add the directory of the file to `source_dirs`, for example source_dirs = ["/srv/data"], {_FILE}. '
        "Without `source_dirs` a runner opens no files; symbolic links count as what they point to.",
    ),
}


def policy_refusal(cause: str) -> str:
    """What the policy does, as the rest of a sentence."""
    return _RULES.get(cause, ("refuses this source", ""))[0]


def policy_hint(cause: str) -> str:
    """What to do about it."""
    return _RULES.get(cause, ("", "The owner of the runner's network sets the policy on the runner."))[1]
