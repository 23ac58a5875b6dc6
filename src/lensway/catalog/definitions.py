"""What callers declare, checked: documents of sources and lenses become drafts, and records become documents again.

The same for `PUT /v1/lenses/{lens}`, for `POST /v1/sources` and for the file that `push` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from lensway.catalog.names import check_field_name, check_name, invalid, shown
from lensway.catalog.reading import Section, joined, mapping
from lensway.catalog.records import (
    Credentials,
    ExecutionMode,
    KeyLimits,
    Lens,
    LensLimits,
    QueryGrant,
    Record,
    RetryMode,
    Source,
)
from lensway.kinds import BUILT_IN, Kinds
from lensway.limits import (
    CONFIG_BYTES_MAX,
    FIELDS_PER_LENS_MAX,
    KEY_CONCURRENT_REQUESTS_MAX,
    KEY_REQUESTS_PER_MINUTE_MAX,
    LENS_BYTES_MAX,
    LENS_ROWS_MAX,
    NAME_CHARACTERS_MAX,
    QUERY_TIMEOUT_MS_MAX,
    REQUEST_NESTING_MAX,
    ROW_BYTES_MAX,
)
from lensway.query import table_names, unavailable
from lensway.query.fields import Field, FieldType, LensDefinition

PLACEHOLDER: Final = "${"
"""Only the command line expands ``${VAR}``; one that reaches the server was never expanded."""


class SourceDraft(Record, frozen=True, kw_only=True):
    """A source as it was declared. ``config`` None: none was given, keep the stored one."""

    name: str
    bridge: str
    credentials: Credentials = Credentials.MANAGED
    execution: ExecutionMode = ExecutionMode.AUTO
    config: Mapping[str, object] | None = None
    dialect: str = ""

    def __repr__(self) -> str:
        """Without the config: it may hold a password."""
        return f"SourceDraft({self.name!r}, {self.bridge!r}, {self.credentials!r}, {self.execution!r})"


class LensDraft(Record, frozen=True, kw_only=True):
    """A lens as it was declared; ``source`` is a name."""

    name: str
    source: str
    definition: LensDefinition
    query_grant: QueryGrant = QueryGrant.NONE
    limits: LensLimits = LensLimits()
    retry: RetryMode = RetryMode.AUTO


SOURCE_KEYS: Final = frozenset({"bridge", "dialect", "credentials", "config", "execution"})
LENS_KEYS: Final = frozenset({"source", "table", "fields", "grants", "limits", "retry"})
FIELD_KEYS: Final = frozenset({"type", "column", "primaryKey", "nullable", "list"})
LIMIT_KEYS: Final = frozenset({"maxRows", "maxBytes", "maxRowBytes", "timeoutMs"})
KEY_LIMIT_KEYS: Final = LIMIT_KEYS | {"requestsPerMinute", "concurrentRequests"}


# --- sources --------------------------------------------------------------------------------------------------------------


def read_source(
    name: object, value: object, *, path: str = "", name_path: str = "name", kinds: Kinds = BUILT_IN
) -> SourceDraft:
    """The source that this document declares. ``path`` is where it stands, for errors; ``kinds`` are those it may name.

    Raises:
        LenswayError: INVALID_REQUEST with the path of what is wrong.
    """
    checked_name = check_name(name, kind="source", path=name_path)
    section = Section(value, path, SOURCE_KEYS)
    bridge = section.word("bridge", kinds.names)
    draft = SourceDraft(
        name=checked_name,
        bridge=bridge,
        dialect=_dialect(section, bridge, kinds),
        credentials=section.choice("credentials", Credentials, Credentials.MANAGED),
        execution=section.choice("execution", ExecutionMode, ExecutionMode.AUTO),
        config=read_config(section.get("config"), path=section.path("config")) if "config" in section else None,
    )
    if draft.credentials is Credentials.RUNNER_LOCAL and draft.config is not None:
        raise runner_local_config(draft.name, section.path("config"))
    return draft


def read_source_patch(source: Source, value: object, *, kinds: Kinds = BUILT_IN) -> SourceDraft:
    """The source that a PATCH makes of this one: absent keys stay as they are. Raises LenswayError INVALID_REQUEST."""
    section = Section(value, "", SOURCE_KEYS | {"name"})
    if "name" in section and section.get("name") != source.name:
        raise invalid("name", "a source cannot be renamed", hint="Create a source with the new name and assign it.")
    config = read_config(section.get("config"), path="config") if "config" in section else None
    credentials = section.choice("credentials", Credentials, source.credentials)
    if credentials is Credentials.RUNNER_LOCAL and config is not None:
        raise runner_local_config(source.name, "config")
    bridge = section.word("bridge", kinds.names, source.bridge)
    return SourceDraft(
        name=source.name,
        bridge=bridge,
        dialect=_dialect(section, bridge, kinds, source.dialect if bridge == source.bridge else ""),
        credentials=credentials,
        execution=section.choice("execution", ExecutionMode, source.execution),
        config=config,
    )


def _dialect(section: Section, bridge: str, kinds: Kinds, present: str = "") -> str:
    """The declared dialect, which must be one of the bridge's; otherwise the present one, or the bridge's first."""
    kind = kinds.get(bridge)
    known = () if kind is None else kind.dialects
    default = present if present in known else next(iter(known), "")
    return section.word("dialect", known, default) if "dialect" in section else default


def read_config(value: object, *, path: str) -> Mapping[str, object]:
    """The settings of a source, free of placeholders and of bounded size. The bridge checks the keys.

    Raises:
        LenswayError: INVALID_REQUEST with the path, never with a value.
    """
    config = mapping(value, path)
    if not config:
        raise invalid(path, "must not be empty")
    _refuse_placeholders(config, path, depth=0)
    if len(encode_config(config)) > CONFIG_BYTES_MAX:
        raise invalid(path, f"must not be larger than {CONFIG_BYTES_MAX:,} bytes")
    return config


def encode_config(config: Mapping[str, object]) -> bytes:
    """The one encoding of a config that is stored and compared: JSON with sorted keys."""
    return msgspec.json.encode(config, order="sorted")


def runner_local_config(name: str, path: str) -> Exception:
    """The error for a config on a source whose credentials live on its runners."""
    variable = f"LENSWAY_SOURCE_{name.upper().replace('-', '_')}_URL"
    return invalid(
        path,
        f"source {name!r} has runner-local credentials, so the service accepts no config for it",
        hint=f"Set {variable} on each of its runners, or make `credentials` managed.",
    )


def _refuse_placeholders(value: object, path: str, *, depth: int) -> None:
    if depth > REQUEST_NESTING_MAX:
        raise invalid(path, f"nested deeper than {REQUEST_NESTING_MAX} levels")
    match value:
        case str() if PLACEHOLDER in value:
            raise invalid(
                path,
                f"holds an unexpanded {PLACEHOLDER}…}}",
                hint="`lensway push` expands ${VAR} from its own environment ($$ is $); the server never does.",
            )
        case Mapping():
            for key, member in value.items():
                _refuse_placeholders(member, joined(path, str(key)), depth=depth + 1)
        case list() | tuple():
            for number, member in enumerate(value):
                _refuse_placeholders(member, joined(path, str(number)), depth=depth + 1)
        case None | bool() | int() | float() | str():
            pass
        case _:
            raise invalid(path, "must be text, a number, a boolean, a list or an object")


# --- lenses ---------------------------------------------------------------------------------------------------------------


def read_lens(name: object, value: object, *, path: str = "", name_path: str = "name") -> LensDraft:
    """The lens that this document declares. ``path`` is where it stands, for errors.

    Raises:
        LenswayError: INVALID_REQUEST with the path of what is wrong.
    """
    checked_name = check_name(name, kind="lens", path=name_path)
    section = Section(value, path, LENS_KEYS, unlisted=frozenset({"relations"}))
    if mapping(section.get("relations") if "relations" in section else {}, section.path("relations")):
        raise unavailable.relations_refusal(section.path("relations"))
    fields = _read_fields(section.required("fields"), section.path("fields"))
    grants = Section(section.get("grants") if "grants" in section else {}, section.path("grants"), frozenset({"query"}))
    return LensDraft(
        name=checked_name,
        source=section.text("source"),
        definition=LensDefinition(
            name=checked_name, table=_read_table(section.text("table"), section.path("table")), fields=fields
        ),
        query_grant=grants.choice("query", QueryGrant, QueryGrant.NONE),
        limits=_read_limits(section),
        retry=section.choice("retry", RetryMode, RetryMode.AUTO),
    )


def _read_table(table: str, path: str) -> str:
    parts = table_names.parts_of(table)
    if parts is None or len(parts) > 2 or not all(map(_is_identifier, parts)):
        raise invalid(path, f"{shown(table)} is not the name of a table", hint=table_names.GRAMMAR)
    return table_names.written(*parts)


def _is_identifier(name: str) -> bool:
    # The compiler quotes identifiers; only names that no database accepts are refused here.
    return 0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()


def _read_fields(value: object, path: str) -> Mapping[str, Field]:
    members = mapping(value, path)
    if not members:
        raise invalid(path, "a lens needs at least one field")
    if len(members) > FIELDS_PER_LENS_MAX:
        raise invalid(path, f"must not have more than {FIELDS_PER_LENS_MAX:,} fields")
    return {name: _read_field(name, member, joined(path, name)) for name, member in members.items()}


def _read_field(name: str, value: object, path: str) -> Field:
    check_field_name(name, path=path)
    section = Section(value, path, FIELD_KEYS)
    column = section.text("column") if "column" in section else name
    if not _is_identifier(column):
        raise invalid(section.path("column"), f"{shown(column)} is not the name of a column")
    field = Field(
        name=name,
        type=section.choice("type", FieldType),
        column=column,
        nullable=section.flag("nullable", default=True),
        primary_key=section.flag("primaryKey", default=False),
        is_list=section.flag("list", default=False),
    )
    if field.primary_key and (field.is_list or field.type is FieldType.JSON):
        kind = "list" if field.is_list else "json"
        raise invalid(section.path("primaryKey"), f"a {kind} field has no order, so it cannot be part of the key")
    return field


def _read_limits(lens: Section) -> LensLimits:
    section = Section(lens.get("limits") if "limits" in lens else {}, lens.path("limits"), LIMIT_KEYS)
    return LensLimits(
        max_rows=section.whole("maxRows", maximum=LENS_ROWS_MAX),
        max_bytes=section.whole("maxBytes", maximum=LENS_BYTES_MAX),
        max_row_bytes=section.whole("maxRowBytes", maximum=ROW_BYTES_MAX),
        timeout_ms=section.whole("timeoutMs", maximum=QUERY_TIMEOUT_MS_MAX),
    )


def read_key_limits(value: object, path: str) -> KeyLimits:
    """The bounds of a key as they were asked for. Raises LenswayError INVALID_REQUEST."""
    section = Section(value, path, KEY_LIMIT_KEYS)
    return KeyLimits(
        max_rows=section.whole("maxRows", maximum=LENS_ROWS_MAX),
        max_bytes=section.whole("maxBytes", maximum=LENS_BYTES_MAX),
        max_row_bytes=section.whole("maxRowBytes", maximum=ROW_BYTES_MAX),
        timeout_ms=section.whole("timeoutMs", maximum=QUERY_TIMEOUT_MS_MAX),
        requests_per_minute=section.whole("requestsPerMinute", maximum=KEY_REQUESTS_PER_MINUTE_MAX),
        concurrent_requests=section.whole("concurrentRequests", maximum=KEY_CONCURRENT_REQUESTS_MAX),
    )


# --- and back -------------------------------------------------------------------------------------------------------------


def source_document(source: Source) -> dict[str, object]:
    """The source as `push` would declare it, never with its config; defaults are left out."""
    document: dict[str, object] = {"bridge": source.bridge, "credentials": source.credentials.value}
    kind = BUILT_IN.get(source.bridge)
    if source.dialect and (kind is None or source.dialect not in kind.dialects[:1]):
        document["dialect"] = source.dialect
    if source.execution is not ExecutionMode.AUTO:
        document["execution"] = source.execution.value
    return document


def lens_document(lens: Lens, *, source: str) -> dict[str, object]:
    """The lens as it would be declared; ``source`` is the source's name. Defaults are left out."""
    document: dict[str, object] = {
        "source": source,
        "table": lens.definition.table,
        "grants": {"query": lens.query_grant.value},
        "fields": {field.name: _field_document(field) for field in lens.definition.fields.values()},
    }
    if given := limits_document(lens.limits):
        document["limits"] = given
    if lens.relations:
        document["relations"] = dict(lens.relations)
    if lens.retry is not RetryMode.AUTO:
        document["retry"] = lens.retry.value
    return document


def _field_document(field: Field) -> dict[str, object]:
    document: dict[str, object] = {"type": field.type.value}
    if field.column != field.name:
        document["column"] = field.column
    if field.primary_key:
        document["primaryKey"] = True
    if not field.nullable:
        document["nullable"] = False
    if field.is_list:
        document["list"] = True
    return document


def limits_document(limits: LensLimits | KeyLimits) -> dict[str, int]:
    """The bounds that were given, as they are written."""
    values = {
        "maxRows": limits.max_rows,
        "maxBytes": limits.max_bytes,
        "maxRowBytes": limits.max_row_bytes,
        "timeoutMs": limits.timeout_ms,
    }
    if isinstance(limits, KeyLimits):
        values["requestsPerMinute"] = limits.requests_per_minute
        values["concurrentRequests"] = limits.concurrent_requests
    return {name: value for name, value in values.items() if value is not None}
