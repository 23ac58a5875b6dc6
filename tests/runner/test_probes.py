"""Which sources a runner looks at by itself."""

from __future__ import annotations

from lensway import limits
from lensway.protocol.frames import AssignedSource
from lensway.runner.probes import Probes
from lensway.runner.sources import READY, UNREACHABLE, ServedSource


def source(number: int, state: str = READY) -> ServedSource:
    assigned = AssignedSource(source=f"src_{number}", name=f"s{number}", bridge="postgres", config_version=0)
    return ServedSource(
        id=assigned.source,
        name=assigned.name,
        bridge="postgres",
        key=number,
        config={},
        state=state,
        assigned=assigned,
        managed={},
        local={},
    )


def test_sources_of_which_queries_tell_are_not_looked_at() -> None:
    probes, told, silent, lost = Probes(), source(1), source(2), source(3, UNREACHABLE)
    served = [told, silent, lost, source(4, "no_bridge")]
    assert probes.due(served) == [told, silent, lost]
    told.contacts += 1
    lost.contacts += 1
    assert probes.due(served) == [silent, lost]
    with probes.under_way(silent):
        assert probes.due(served) == [told, lost]
        silent.contacts += 1
    assert silent in probes.due(served), "its own probe tells nothing of queries"


def test_very_many_sources_have_their_turns() -> None:
    probes, served = Probes(), [source(number) for number in range(5 * limits.PROBES_AT_ONCE_MAX // 2)]
    seen: set[str] = set()
    for _ in range(3):
        due = probes.due(served)
        assert len(due) <= limits.PROBES_AT_ONCE_MAX
        seen |= {each.id for each in due}
    assert len(seen) == len(served)
