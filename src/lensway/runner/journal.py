"""What the network's owner reads of each job. No line holds a key, a value of a row or a value of a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from lensway.protocol.frames import Asker, Offer
from lensway.query.plan import Shape

_log = structlog.get_logger("lensway.runner")


class JobNote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job that has ended or was refused. ``outcome`` is ``completed``, ``handed_back``, the code of a failure, or the reason
    of a refusal. ``bytes`` are those that were sent, ``seconds`` the time since the job was accepted."""

    offer: Offer
    source: str
    shapes: Sequence[Shape]
    outcome: str
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def fields(self) -> dict[str, Any]:
        """The fields of its line."""
        return {
            **asked(self.offer),
            "source": self.source,
            "tables": [str(table) for shape in self.shapes for table in shape.tables()],
            "fingerprint": self.shapes[0].fingerprint if self.shapes else "",
            "outcome": self.outcome,
            "rows": self.rows,
            "bytes": self.bytes,
            "ms": round(self.seconds * 1000, 1),
        }


def asked(offer: Offer) -> dict[str, object]:
    """Who asks, as the log says it. The texts come from the gateway; the log escapes what would forge a line."""
    asker = offer.asker or Asker()
    return {
        "key_id": asker.key,
        "key_name": asker.key_name,
        "environment": asker.environment,
        "lens": asker.lens,
        "request": offer.request,
        "attempt": offer.attempt,
        "kind": offer.kind.value,
    }


def log_job(note: JobNote) -> None:
    """Write the line of a job to the runner's log."""
    _log.info("job", **note.fields())
