"""The stages of a connection test, done one after the other until one fails."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from lensway.bridges.contract import Stage, StageResult
from lensway.errors import LenswayError

Check: TypeAlias = tuple[Stage, Callable[[], Awaitable[object]]]
NETWORK: Final = (Stage.DNS, Stage.TCP, Stage.TLS)
"""The stages that a file does not have."""


async def staged(checks: Sequence[Check], *, skipped: Sequence[Stage] = ()) -> list[StageResult]:
    """The result of every stage. A failed check skips the ones behind it."""
    stages = [StageResult(stage=stage, ok=None) for stage in skipped]
    is_failed = False
    for stage, check in checks:
        if is_failed:
            stages.append(StageResult(stage=stage, ok=None))
            continue
        started = time.monotonic()
        error = hint = None
        try:
            await check()
        except LenswayError as failure:
            is_failed = True
            error = str(failure.failure.details.get("class", failure.code.value))
            hint = failure.failure.hint or str(failure)
        ms = round((time.monotonic() - started) * 1000, 3)
        stages.append(StageResult(stage=stage, ok=error is None, ms=ms, error=error, hint=hint))
    return stages


def of_lens(lens: str, error: LenswayError) -> LenswayError:
    """The failure of a lens in the last stage: its hint names the lens."""
    failure = error.failure
    return LenswayError(
        failure.code,
        failure.message,
        hint=f"Lens '{lens}': {failure.message}. {failure.hint or ''}".strip(),
        details=failure.details,
    )
