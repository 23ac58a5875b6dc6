"""What a policy says of a name, an address, a table or a column: the answers of `lensway runner policy check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from lensway.bridges.kit.addresses import check_host, check_socket, confined_path
from lensway.errors import ErrorCode, LenswayError
from lensway.hosts import host_and_port
from lensway.query.fields import TableName
from lensway.query.table_names import GRAMMAR, parts_of, written
from lensway.runner.policy import LocalPolicy


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What to judge; None is not asked. ``host`` may end in ``:PORT``; a directory of Unix sockets begins with ``/``."""

    source: str | None = None
    host: str | None = None
    path: str | None = None
    table: str | None = None
    column: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One answer: the part that was judged, in words, and the rule that refuses it, empty when it is allowed."""

    part: str
    is_allowed: bool
    rule: str = ""


def verdicts_of(policy: LocalPolicy, question: Question, sources: Sequence[str]) -> Iterator[Verdict]:
    """What the policy says of each part of the question, then of each assigned source by its name.

    Raises:
        LenswayError: INVALID_REQUEST for a malformed name.
    """
    if question.source is not None:
        yield _source(policy, question.source)
    if question.host is not None:
        yield _host(policy, question.host)
    if question.path is not None:
        yield _path(policy, question.path)
    yield from _table(policy, question)
    for name in sources:
        yield _source(policy, name)


def _source(policy: LocalPolicy, name: str) -> Verdict:
    return _verdict(f"the source '{name}'", is_allowed=policy.allows_source(name), rule="sources")


def _host(policy: LocalPolicy, text: str) -> Verdict:
    rules = policy.address_policy()
    try:
        if text.startswith("/"):
            check_socket(text, rules)
        else:
            host, port = _place(text)
            check_host(host, rules, port)
    except LenswayError as error:
        if error.code is not ErrorCode.SOURCE_UNREACHABLE:
            raise
        return _verdict(f"the address {text}", is_allowed=False, rule="hosts, ports")
    return _verdict(f"the address {text}", is_allowed=True, rule="hosts, ports")


def _path(policy: LocalPolicy, text: str) -> Verdict:
    try:
        confined_path(text, policy.address_policy())
    except LenswayError as error:
        if error.code is not ErrorCode.SOURCE_UNREACHABLE:
            raise
        return _verdict(f"the path {text}", is_allowed=False, rule="source_dirs")
    return _verdict(f"the path {text}", is_allowed=True, rule="source_dirs")


def _table(policy: LocalPolicy, question: Question) -> Iterator[Verdict]:
    if question.table is None:
        if question.column is not None:
            raise LenswayError(
                ErrorCode.INVALID_REQUEST, "--column needs a table", hint="Add --table SCHEMA.TABLE or --table TABLE."
            )
        return
    parts = parts_of(question.table)
    if parts is None or len(parts) > 2:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST, f"{question.table[:120]!r} is not the name of a table", hint=GRAMMAR
        )
    table = TableName(parts[0] if len(parts) == 2 else None, parts[-1])
    yield _verdict(f"the table {table}", is_allowed=policy.allows_table(str(table)), rule="tables")
    if question.column is not None:
        is_allowed = policy.allows_column(table, question.column)
        yield _verdict(f"the column {table}.{written(question.column)}", is_allowed=is_allowed, rule="withhold")


def _place(text: str) -> tuple[str, int | None]:
    return host_and_port(text) or (text.strip("[]"), None)


def _verdict(part: str, *, is_allowed: bool, rule: str) -> Verdict:
    return Verdict(part=part, is_allowed=is_allowed, rule="" if is_allowed else rule)
