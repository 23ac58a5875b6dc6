"""State tables: the only place where a state may change, and what the diagrams in the docs are drawn from."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Generic, TypeVar

S = TypeVar("S", bound=enum.Enum)
T = TypeVar("T", bound=enum.Enum)


class IllegalTransitionError(Exception):
    """A transition that its table does not list. Nothing was changed."""


class Table(Generic[S, T]):
    """The legal transitions of one kind of thing: state and stimulus give the next state."""

    __slots__ = ("initial", "name", "rows")

    def __init__(self, name: str, initial: S, rows: Mapping[tuple[S, T], S]) -> None:
        self.name = name
        self.initial = initial
        self.rows = rows

    def after(self, state: S, stimulus: T) -> S:
        """The state that follows.

        Raises:
            IllegalTransitionError: the table does not list it.
        """
        try:
            return self.rows[state, stimulus]
        except KeyError:
            raise IllegalTransitionError(
                f"{self.name}: {stimulus.value} is not possible in state {state.value}"
            ) from None

    @classmethod
    def nested(cls, name: str, initial: S, rows: Mapping[S, Mapping[T, S]]) -> Table[S, T]:
        """The table of rows that are grouped by state."""
        return cls(name, initial, {(state, on): after for state, moves in rows.items() for on, after in moves.items()})

    def has(self, state: S, stimulus: T) -> bool:
        """True when the stimulus is legal in this state."""
        return (state, stimulus) in self.rows

    def final_states(self) -> frozenset[S]:
        """The states that nothing leaves."""
        return frozenset(self.rows.values()) - {state for state, _ in self.rows}

    def mermaid(self) -> str:
        """The diagram of this table, in the order in which it is written down."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial.value}"]
        lines += [f"    {state.value} --> {after.value}: {on.value}" for (state, on), after in self.rows.items()]
        lines += [
            f"    {state.value} --> [*]" for state in sorted(self.final_states(), key=lambda final: str(final.value))
        ]
        return "\n".join(lines) + "\n"


class Machine(Generic[S, T]):
    """A state that only its table changes."""

    __slots__ = ("_table", "state")

    def __init__(self, table: Table[S, T]) -> None:
        self.state = table.initial
        self._table = table

    def may(self, stimulus: T) -> bool:
        """True when the present state lists the stimulus."""
        return self._table.has(self.state, stimulus)

    def move(self, stimulus: T) -> None:
        """Go where the table says. Raises IllegalTransitionError and stays when it does not list the stimulus."""
        self.state = self._table.after(self.state, stimulus)
