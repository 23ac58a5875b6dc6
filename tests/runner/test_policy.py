"""The local policy: what each rule means, and what a file that changes does."""

from __future__ import annotations

import pathlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensway.errors import LenswayError
from lensway.protocol.policy import POLICY_INVALID
from lensway.query.conditions import And, Compare, IsNull, Not, Operator, Or
from lensway.query.fields import FieldType, PlanColumn, TableName
from lensway.query.measures import COUNT_OF_ROWS, Measure, MeasureFunction
from lensway.query.plan import OrderBy, Relation, RelationKind, Shape
from lensway.runner.policy import LocalPolicy, PolicyInForce, parse_policy, read_policy

ID = PlanColumn("id", "id", FieldType.INTEGER, nullable=False)
SECRET = PlanColumn("shown_as", "ssn", FieldType.TEXT)
PEOPLE, ORDERS = TableName("public", "people"), TableName("public", "orders")
FILE = pathlib.Path("/etc/lensway/policy.toml")


def relation(**more: object) -> Relation:
    given = {"on": ((ID, ID),), "output": (ID,), **more}
    return Relation(name="of", lens="people", table=PEOPLE, kind=RelationKind.MANY, **given)


POSITIONS = {
    "shown": Shape(lens="people", table=PEOPLE, output=(ID, SECRET)),
    "compared": Shape(lens="people", table=PEOPLE, output=(ID,), where=Compare(Operator.EQ, SECRET, 0), params=1),
    "compared deep below": Shape(
        lens="people",
        table=PEOPLE,
        output=(ID,),
        where=Or((IsNull(ID), And((IsNull(ID), Not(Not(IsNull(SECRET))))))),
    ),
    "compared in a count": Shape(lens="people", table=PEOPLE, measures=(COUNT_OF_ROWS,), where=IsNull(SECRET)),
    "ordered by": Shape(lens="people", table=PEOPLE, output=(ID,), order=(OrderBy(SECRET), OrderBy(ID))),
    "a key": Shape(lens="people", table=PEOPLE, output=(ID,), keys=(SECRET,), order=(OrderBy(SECRET),)),
    "measured": Shape(lens="people", table=PEOPLE, measures=(Measure("least", MeasureFunction.MIN, SECRET),)),
    "grouped by": Shape(lens="people", table=PEOPLE, output=(SECRET,), measures=(COUNT_OF_ROWS,)),
    "groups ordered by": Shape(
        lens="people", table=PEOPLE, output=(SECRET,), measures=(COUNT_OF_ROWS,), order=(OrderBy(SECRET),)
    ),
    "groups compared": Shape(
        lens="people", table=PEOPLE, output=(SECRET,), measures=(COUNT_OF_ROWS,), having=IsNull(SECRET)
    ),
    "shown in a relation": Shape(lens="orders", table=ORDERS, output=(ID,), relations=(relation(output=(ID, SECRET)),)),
    "compared in a relation": Shape(
        lens="orders", table=ORDERS, output=(ID,), relations=(relation(where=IsNull(SECRET)),)
    ),
    "ordered in a relation": Shape(
        lens="orders", table=ORDERS, output=(ID,), relations=(relation(order=(OrderBy(SECRET),)),)
    ),
    "joined to": Shape(lens="orders", table=ORDERS, output=(ID,), relations=(relation(on=((ID, SECRET),)),)),
    "joined from": Shape(lens="people", table=PEOPLE, output=(ID,), relations=(relation(on=((SECRET, ID),)),)),
    "joined from a relation": Shape(
        lens="orders",
        table=ORDERS,
        output=(ID,),
        relations=(relation(relations=(relation(on=((SECRET, ID),)),)),),
    ),
}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    "entry", ["ssn", "*.ssn", "people.ssn", "public.people.ssn", "PUBLIC.People.S?N", '"public"."people"."ssn"']
)
def test_a_withheld_column_is_found_in_every_position(position: str, entry: str) -> None:
    assert LocalPolicy(withhold=(entry,)).forbidden_part(POSITIONS[position]) == "the column public.people.ssn"


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("entry", ["id2", "orders.ssn", "other.people.ssn", "*.people.shown_as", "ss", "sn", "s"])
def test_other_columns_are_not(position: str, entry: str) -> None:
    assert LocalPolicy(withhold=(entry,)).forbidden_part(POSITIONS[position]) is None


def test_results_of_measures_are_no_columns() -> None:
    least = Measure("ssn", MeasureFunction.MIN, ID)
    shape = Shape(lens="people", table=PEOPLE, output=(ID,), measures=(least,), order=(OrderBy(least.result),))
    assert shape.columns() == ((PEOPLE, "id"),)


def test_a_denial_does_not_depend_on_the_spelling_of_a_name() -> None:
    policy = LocalPolicy(withhold=("public.people.ssn",))
    for table, column in (
        (TableName(None, "people"), "ssn"),  # may be the one in public
        (TableName(None, "PEOPLE"), "SSN"),  # is the same one in SQLite and DuckDB
        (TableName("Public", "people"), "sSn"),
        (TableName(None, "people"), "rowid"),  # may be the column, if that is the key of a SQLite table
        (TableName(None, "people"), "_ROWID_"),
    ):
        assert not policy.allows_column(table, column), (table, column)
    assert policy.allows_column(TableName("shop", "people"), "ssn")
    assert policy.allows_column(TableName(None, "orders"), "rowid")


@given(st.lists(st.text(max_size=12), max_size=4), st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8))
def test_a_column_is_withheld_by_its_own_name_whatever_stands_beside_it(
    others: list[str], table: str, column: str
) -> None:
    quoted = column.replace('"', '""')
    entry = "".join(f"[{each}]" if each in "[*?" else each for each in quoted)
    policy = LocalPolicy(withhold=(f'"{entry}"',))
    assert not policy.allows_column(TableName(None, table), column)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("hostss = []", "hostss"),
        ("withhold = 'ssn'", "withhold"),
        ("withhold = ['a.b.c.d']", "'a.b.c.d'"),
        ("withhold = ['']", "''"),
        ("withhold = ['a..b']", "'a..b'"),
        ("hosts = ['10.*']", "'10.*'"),
        ("ports = [0]", "ports"),
        ("ports = [70000]", "ports"),
        ("ports = ['5432']", "ports"),
        ("rows_max = 0", "rows_max"),
        ("seconds_max = 0", "seconds_max"),
        ("jobs_max = -1", "jobs_max"),
        ("[limits]\nrows_max = 1", "limits"),
        ("sources = [", "end of document"),
    ],
)
def test_a_file_that_is_not_valid_names_its_fault(text: str, part: str) -> None:
    with pytest.raises(LenswayError, match=r"/etc/lensway/policy.toml is not valid") as caught:
        parse_policy(text.encode(), FILE)
    assert part in str(caught.value)
    assert caught.value.failure.hint


def test_a_file_that_changes_is_in_force_and_one_that_is_not_valid_is_not(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("rows_max = 1")
    policy = PolicyInForce.from_file(file)
    assert (policy.now.rows_max, policy.notices) == (1, ())
    assert not policy.take(policy.read()), "nothing has changed"
    file.write_text("rows_max = 2")
    assert policy.take(policy.read())
    assert policy.now.rows_max == 2
    for fault in ("rows_mac = 3", "rows_max = ", "\x00"):
        file.write_text(fault)
        assert policy.take(policy.read())
        assert (policy.now.rows_max, policy.notices) == (2, (POLICY_INVALID,))
        assert not policy.take(policy.read()), "said once"
    file.unlink()
    assert policy.take(policy.read())
    assert "cannot be read" in str(policy.problem)
    file.write_text("rows_max = 2")
    assert policy.take(policy.read()), "its fault is over"
    assert (policy.now.rows_max, policy.notices) == (2, ())


def test_the_rules_are_said_one_by_one() -> None:
    said = "\n".join(LocalPolicy(tables=(), withhold=("*.ssn",), ports=(5432,), rows_max=1000).rules())
    assert len(said.splitlines()) == len(LocalPolicy.__struct_fields__)
    for part in ("Tables: none.", "*.ssn", "5432", "at most 1,000", "Hosts: any, except"):
        assert part in said


def test_an_unreadable_file_serves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(LenswayError, match="cannot be read"):
        read_policy(tmp_path / "missing.toml")
    assert msgspec.to_builtins(read_policy(None)) == msgspec.to_builtins(LocalPolicy())
