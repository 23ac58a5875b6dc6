"""How many bytes of rows may be under way on one link: as many as it carries in a moment. No I/O.

Buffers between the two ends keep what they cannot pass on, and control frames cannot overtake it. On a slow
link rows of one large result would so hold up the heartbeats, until both sides give the session up. So the sender asks for a
proof of arrival along with its rows, and lets no more rows out than have been proven to arrive in time. The window begins small
and grows with every proof that came promptly: a fast link is not held up for longer than a few round trips, once.
"""

from __future__ import annotations

from typing import Final

from lensway.limits import (
    DATA_FRAME_BYTES_MAX,
    PACE_PROMPT_SECONDS,
    PACE_WINDOW_BYTES_FIRST,
    PACE_WINDOW_BYTES_MAX,
    PACE_WINDOW_BYTES_MIN,
)

_PROMPT: Final = PACE_PROMPT_SECONDS
_LAST_STEPS: Final = 1.25
"""Growth of a window whose proofs take more than half of the prompt time."""
_LATE: Final = 3.0
"""So many times the prompt time: the window is too large."""
_ROUND_TRIP_SECONDS_MAX: Final = 1.0
"""What is longer is the link's queue or its rate, never its length."""


class Pace:
    """The window of one link. Times are of one clock."""

    def __init__(self) -> None:
        self.window_bytes = PACE_WINDOW_BYTES_FIRST
        self._sent = 0
        self._asked = 0
        self._proven = 0
        self._changed_at = 0
        self._round_trip_seconds = _ROUND_TRIP_SECONDS_MAX

    @property
    def room_bytes(self) -> int:
        """Bytes of rows that may go now, in one message; 0 while too many are under way."""
        if self._sent - self._proven >= self.window_bytes:
            return 0
        return min(self.window_bytes // 2, DATA_FRAME_BYTES_MAX)

    def sent(self, size: int) -> None:
        """A message of this size went out."""
        self._sent += size

    def ask(self) -> int | None:
        """The mark to give to `proven`, when a proof is to be asked for now: look after each message and each proof."""
        unasked = self._sent - self._asked
        # The second: the window may have become smaller than what is under way, and then nothing else goes out to ask with.
        if unasked < self.window_bytes // 2 and not (unasked and not self.room_bytes):
            return None
        self._asked = self._sent
        return self._sent

    def proven(self, mark: int, seconds: float) -> None:
        """Everything up to the mark has arrived; it took so long from the asking to the answer."""
        self._proven = max(self._proven, mark)
        self._round_trip_seconds = min(self._round_trip_seconds, seconds)
        waited = seconds - self._round_trip_seconds
        # What was asked before the window last changed says how long the window before it takes.
        if mark <= self._changed_at or _PROMPT < waited <= _LATE * _PROMPT:
            return
        self._changed_at = self._sent
        if waited > _PROMPT:
            self.window_bytes = max(self.window_bytes // 2, PACE_WINDOW_BYTES_MIN)
        else:
            # Near the end in small steps: one more doubling would make other frames wait twice as long as allowed.
            growth = 2.0 if waited <= _PROMPT / 2 else _LAST_STEPS
            self.window_bytes = min(int(growth * self.window_bytes), PACE_WINDOW_BYTES_MAX)
