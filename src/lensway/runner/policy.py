"""The local policy: it binds this runner even against orders of the control plane. A TOML file of the network's owner.

    sources = ["orders-*"]          # names, with * as wildcard; absent: every assigned source
    hosts = ["*.internal", "10.0.0.0/8"]  # where sources may point: patterns for names, networks for addresses,
                                          # and directories of Unix sockets; absent: any
    ports = [5432]                  # ports of these hosts; absent: any
    tables = ["public.*"]           # tables that plans may read; absent: any
    withhold = ["*.ssn"]            # columns that no plan may use; absent: none
    rows_max = 100000               # per result
    bytes_max = 100000000           # per result
    seconds_max = 30                # per job
    jobs_max = 4                    # jobs at once
    source_dirs = ["/srv/data"]     # where file-backed sources may lie; absent: nowhere

Unknown keys are refused: a misspelt restriction must not become a permission.
"""

from __future__ import annotations

import fnmatch
import functools
import pathlib
import re
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from lensway.bridges.contract import AddressPolicy
from lensway.bridges.kit.addresses import is_address_pattern
from lensway.bridges.library import forbidden_part
from lensway.errors import ErrorCode, LenswayError
from lensway.protocol.policy import POLICY_INVALID
from lensway.query.fields import TableName
from lensway.query.plan import Shape
from lensway.query.table_names import parts_of

_ROW_IDS: Final = frozenset({"rowid", "oid", "_rowid_"})
"""Names under which SQLite and DuckDB show a row id, which may be the value of a key column."""
_VERDICTS_KEPT_MAX: Final = 10_000

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class LocalPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The policy file's content; every part absent allows everything but file-backed sources."""

    sources: tuple[str, ...] | None = None
    hosts: tuple[str, ...] | None = None
    ports: tuple[_Port, ...] | None = None
    tables: tuple[str, ...] | None = None
    withhold: tuple[str, ...] = ()
    rows_max: _Positive | None = None
    bytes_max: _Positive | None = None
    seconds_max: Annotated[float, msgspec.Meta(gt=0)] | None = None
    jobs_max: _Positive | None = None
    source_dirs: tuple[str, ...] = ()

    def allows_source(self, name: str) -> bool:
        """True when the runner may serve a source of this name."""
        return self.sources is None or _matches(name, self.sources)

    def allows_table(self, table: str) -> bool:
        """True when plans may read this table, ``name`` or ``schema.name``."""
        return self.tables is None or _matches(table, self.tables)

    def allows_column(self, table: TableName, column: str) -> bool:
        """True when plans may use this column.

        Names compare without case, as some databases do, and a table without a schema may be the one in any schema: a
        denial must not depend on the spelling.
        """
        if not self.withhold:
            return True
        verdict = self._verdicts.get((table, column))
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS_KEPT_MAX:
                self._verdicts.clear()
            verdict = self._verdicts[table, column] = not any(each.covers(table, column) for each in self._withheld)
        return verdict

    def forbidden_part(self, shape: Shape) -> str | None:
        """The first table or column of a plan that this policy does not allow, in words; None when it allows all."""
        if self.tables is None and not self.withhold:
            return None
        return forbidden_part(shape, self.allows_table, self.allows_column if self.withhold else None)

    def address_policy(self) -> AddressPolicy:
        """Where sources may point. A runner stands in the network of its databases: private addresses are what it is for."""
        return AddressPolicy(
            deny_private=False,
            is_runner=True,
            source_dirs=self.source_dirs,
            allowed_hosts=self.hosts,
            allowed_ports=self.ports,
            allows_sockets=True,
        )

    def rules(self) -> Iterator[str]:
        """Each rule as a sentence, in the order of the file."""
        yield f"Sources: {_listed(self.sources)}."
        yield f"Hosts: {_listed(self.hosts, 'any, except link-local and metadata addresses')}."
        yield f"Ports: {_listed(None if self.ports is None else tuple(map(str, self.ports)), 'any')}."
        yield f"Tables: {_listed(self.tables, 'every table that the login can read')}."
        yield f"Withheld columns: {_listed(self.withhold or None, 'none')}."
        yield f"Directories of file-backed sources: {_listed(self.source_dirs or None, 'none, so no such source is served')}."
        for name, value, unit in (
            ("Rows of one result", self.rows_max, ""),
            ("Bytes of one result", self.bytes_max, ""),
            ("Time of one job", self.seconds_max, " s"),
            ("Jobs at once", self.jobs_max, ""),
        ):
            yield f"{name}: {'no limit of this policy' if value is None else f'at most {value:,}{unit}'}."

    @functools.cached_property
    def _withheld(self) -> tuple[_Withheld, ...]:
        return tuple(map(_withheld, self.withhold))

    @functools.cached_property
    def _verdicts(self) -> dict[tuple[TableName, str], bool]:
        return {}


class _Withheld(msgspec.Struct, frozen=True):
    """One entry of ``withhold``, in parts that match."""

    schema: re.Pattern[str] | None
    table: re.Pattern[str]
    column: re.Pattern[str]

    def covers(self, table: TableName, column: str) -> bool:
        """True when the entry means this column."""
        name = column.casefold()
        is_schema = self.schema is None or table.schema is None or self.schema.match(table.schema.casefold())
        if not is_schema or not self.table.match(table.name.casefold()):
            return False
        return name in _ROW_IDS or self.column.match(name) is not None


def parse_policy(text: bytes, path: pathlib.Path) -> LocalPolicy:
    """The policy that the file at ``path`` holds.

    Raises:
        LenswayError: INVALID_REQUEST naming the file and the offending part.
    """
    try:
        policy = msgspec.toml.decode(text, type=LocalPolicy)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _invalid(path, str(error), f"Known keys: {', '.join(LocalPolicy.__struct_fields__)}.") from None
    for host in policy.hosts or ():
        if is_address_pattern(host) and not host.startswith("/"):
            # As a pattern for names it would admit names that a stranger can register.
            raise _invalid(
                path, f"hosts has {host!r}, which is not a network", "Write networks as CIDR, for example 10.0.0.0/8."
            )
    for entry in policy.withhold:
        if _parts(entry) is None:
            raise _invalid(
                path,
                f"withhold has {entry!r}, which is not a column",
                "Write column, table.column or schema.table.column, each with * as a wildcard.",
            )
    return policy


def read_policy(path: pathlib.Path | None) -> LocalPolicy:
    """The policy of this file; without one, everything is allowed but file-backed sources.

    Raises:
        LenswayError: INVALID_REQUEST naming the file and the offending part. A policy that cannot be read serves nothing.
    """
    return LocalPolicy() if path is None else parse_policy(_content(path), path)


class PolicyInForce:
    """The policy that applies now. Its file may change; one that is not valid leaves the policy before in force."""

    def __init__(self, policy: LocalPolicy, path: pathlib.Path | None = None) -> None:
        self.now = policy
        self.path = path
        self.problem: LenswayError | None = None
        """Why the file as it is cannot be used; None when it is in force."""
        self._content: bytes | None = None

    @classmethod
    def from_file(cls, path: pathlib.Path | None) -> PolicyInForce:
        """The policy of this file, to be looked at again. Raises LenswayError as `read_policy`."""
        found = cls(LocalPolicy(), path)
        if path is not None:
            content = _content(path)
            found.now, found._content = parse_policy(content, path), content
        return found

    def read(self) -> bytes | LenswayError | None:
        """What the file holds now, or why it cannot be read; None without a file. May wait for a disk."""
        if self.path is None:
            return None
        try:
            return _content(self.path)
        except LenswayError as error:
            return error

    def take(self, found: bytes | LenswayError | None) -> bool:
        """Use what `read` found; True when another policy is in force now, or the file became valid or invalid."""
        before = self.now, str(self.problem)
        if isinstance(found, LenswayError):
            self._content, self.problem = None, found
        elif found is not None and found != self._content and self.path is not None:
            self._content = found
            try:
                self.now, self.problem = parse_policy(found, self.path), None
            except LenswayError as error:
                self.problem = error
        return before != (self.now, str(self.problem))

    @property
    def notices(self) -> tuple[str, ...]:
        """What the runner reports of itself."""
        return () if self.problem is None else (POLICY_INVALID,)


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise LenswayError(
            ErrorCode.INVALID_REQUEST,
            f"the policy file {path} cannot be read",
            hint="Check that it exists and that the user of this runner may read it.",
        ) from None


def _withheld(entry: str) -> _Withheld:
    parts = _parts(entry)
    assert parts is not None, "the policy was checked when it was read"
    *place, column = parts
    return _Withheld(
        schema=_pattern(place[0]) if len(place) == 2 else None,
        table=_pattern(place[-1] if place else "*"),
        column=_pattern(column),
    )


def _parts(entry: str) -> tuple[str, ...] | None:
    parts = parts_of(entry)
    return parts if parts is not None and len(parts) <= 3 else None


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(text.casefold()))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _listed(entries: tuple[str, ...] | None, absent: str = "every assigned source") -> str:
    if entries is None:
        return absent
    return ", ".join(entries) if entries else "none"


def _invalid(path: pathlib.Path, what: str, hint: str) -> LenswayError:
    return LenswayError(ErrorCode.INVALID_REQUEST, f"the policy file {path} is not valid: {what}", hint=hint)
