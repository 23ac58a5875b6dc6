"""`make bench`: every figure beside its reference, measured in the same run. `ARGS=quick` takes less than two minutes,
`ARGS="NAME …"` runs the named ones."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.figures import bulk, dispatch, hot_path, memory, scale, sharing
from benchmarks.report import Line, machine
from benchmarks.stage import Stage, stage

Figure = Callable[..., Sequence[Line]]
FIGURES: Final[Mapping[str, Figure]] = {
    "point": hot_path.point,
    "page": hot_path.page,
    "dispatch": dispatch.added,
    "arrow": bulk.arrow,
    "ndjson": bulk.ndjson,
    "export-memory": memory.export,
    "stalled": memory.stalled,
    "beside-export": sharing.beside_export,
    "first-row": sharing.first_row,
    "catalog": scale.catalog_size,
    "idle": scale.idle_runners,
}


def main(arguments: Sequence[str]) -> int:
    """Print the figures; 2 for a name that there is not."""
    is_quick = "quick" in arguments
    wanted = [argument for argument in arguments if argument != "quick"]
    if unknown := [name for name in wanted if name not in FIGURES]:
        print(f"no such figure: {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    print(machine(), flush=True)
    started = time.monotonic()
    with stage() as shared:
        for name, figure in FIGURES.items():
            if not wanted or name in wanted:
                run(name, figure, shared, is_quick=is_quick)
    print(f"took {time.monotonic() - started:.0f} s{', quick' if is_quick else ''}; {machine().rpartition(',')[0]}")
    return 0


def run(name: str, figure: Figure, shared: Stage, *, is_quick: bool) -> None:
    """One figure, printed as soon as it is known."""
    print(f"  {name} …", end="\r", flush=True)
    for line in figure(shared, is_quick=is_quick):
        print(line.text(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
