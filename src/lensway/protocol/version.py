"""Which protocol version and features two peers use: the highest and the most that both know.

Within a version frames only grow: new fields go to the end with defaults, new optional frame kinds have their high bit set. A
new version number is for what that cannot express.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lensway.protocol.errors import ProtocolError
from lensway.protocol.frames import CloseReason

SUBPROTOCOL: Final = "lensway.runner.v1"
REFUSAL_HEADER: Final = "Lensway-Refusal"
"""On the gateway's own answers before the upgrade: the error code. A 401 or 403 without it comes from something in between."""
VERSIONS_SPOKEN: Final = (1,)
FEATURES: Final[tuple[str, ...]] = ()
"""Names of optional behaviour that this release knows; used only when both peers name it."""


def choose_version(theirs: Iterable[int], ours: Iterable[int] = VERSIONS_SPOKEN) -> int:
    """The highest version that both speak.

    Raises:
        ProtocolError: with reason VERSION when there is none.
    """
    common = set(theirs) & set(ours)
    if not common:
        raise ProtocolError("no_common_version", reason=CloseReason.VERSION)
    return max(common)


def choose_features(theirs: Iterable[str], ours: Iterable[str] = FEATURES) -> tuple[str, ...]:
    """The features that both know, in a fixed order."""
    return tuple(sorted(set(theirs) & set(ours)))
