"""Records ↔ rows, one pair of functions for each kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

import msgspec
from sqlalchemy import Connection, Table, delete, insert, select

from lensway.catalog.ports import SignIn
from lensway.catalog.records import (
    AnyRecord,
    Assignment,
    Credentials,
    Environment,
    ExecutionMode,
    Key,
    KeyKind,
    KeyLimits,
    Lens,
    LensLimits,
    QueryGrant,
    RetiredKey,
    RetryMode,
    Role,
    Runner,
    RunnerToken,
    Source,
)
from lensway.ids import EnvironmentId, KeyId, LensId, RunnerId, SourceId
from lensway.query.fields import Field, LensDefinition
from lensway.store import tables as t


class _LensDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What of a lens no query of ours ever filters by. Fields are a list: their order is part of the lens."""

    table: str
    fields: list[Field]
    query_grant: QueryGrant
    limits: LensLimits
    relations: dict[str, Any]
    retry: RetryMode


def put(connection: Connection, record: AnyRecord) -> None:
    """Write the record, replacing one with the same identity."""
    values: dict[str, Any]
    match record:
        case Environment():
            values = {"environment": record.id, "name": record.name, "created_at": record.created_at}
            _replace(connection, t.environments, {"environment": record.id}, values)
        case Source():
            values = {
                "name": record.name,
                "bridge": record.bridge,
                "dialect": record.dialect,
                "credentials": record.credentials.value,
                "execution": record.execution.value,
                "config_version": record.config_version,
                "created_at": record.created_at,
            }
            _replace(connection, t.sources, {"environment": record.environment, "id": record.id}, values)
        case Lens():
            _put_lens(connection, record)
        case Runner():
            _put_runner(connection, record)
        case Assignment():
            key = {"environment": record.environment, "source": record.source, "runner": record.runner}
            _replace(connection, t.assignments, key, {"created_at": record.created_at})
        case Key():
            values = {
                "kind": record.kind.value,
                "name": record.name,
                "hash": record.hash,
                "role": None if record.role is None else record.role.value,
                "limits": None if record.limits == KeyLimits() else msgspec.json.encode(record.limits).decode(),
                "created_at": record.created_at,
                "expires_at": record.expires_at,
                "origins": msgspec.json.encode(record.origins).decode() if record.origins else None,
            }
            _replace(connection, t.keys, {"environment": _owner(record), "id": record.id}, values)
        case RetiredKey():
            values = {"hash": record.hash, "retired_at": record.retired_at}
            _replace(connection, t.retired_keys, {"environment": _owner(record), "id": record.id}, values)
        case _:
            assert_never(record)


def remove(connection: Connection, record: AnyRecord) -> None:
    """Delete the record."""
    match record:
        case Environment():
            _delete(connection, t.environments, environment=record.id)
        case Source():
            _delete(connection, t.source_configs, environment=record.environment, source=record.id)
            _delete(connection, t.sources, environment=record.environment, id=record.id)
        case Lens():
            _delete(connection, t.lenses, environment=record.environment, id=record.id)
        case Runner():
            _delete(connection, t.runner_tokens, environment=record.environment, runner=record.id)
            _delete(connection, t.runner_sightings, environment=record.environment, runner=record.id)
            _delete(connection, t.runners, environment=record.environment, id=record.id)
        case Assignment():
            _delete(
                connection, t.assignments, environment=record.environment, source=record.source, runner=record.runner
            )
        case Key():
            _delete(connection, t.key_uses, environment=_owner(record), key=record.id)
            _delete(connection, t.keys, environment=_owner(record), id=record.id)
        case RetiredKey():
            _delete(connection, t.retired_keys, environment=_owner(record), id=record.id)
        case _:
            assert_never(record)


def put_sighting(connection: Connection, runner: Runner, at: str, cause: str) -> None:
    """Write when and how a runner was last seen."""
    key = {"environment": runner.environment, "runner": runner.id}
    _replace(connection, t.runner_sightings, key, {"at": at, "cause": cause})


def load_sightings(connection: Connection) -> dict[RunnerId, tuple[str, str]]:
    """When and how each runner was last seen."""
    return {RunnerId(row.runner): (row.at, row.cause) for row in connection.execute(select(t.runner_sightings))}


def put_key_use(connection: Connection, key: Key, at: str) -> None:
    """Write when a key was last used."""
    _replace(connection, t.key_uses, {"environment": _owner(key), "key": key.id}, {"at": at})


def load_key_uses(connection: Connection) -> dict[KeyId, str]:
    """When each key was last used."""
    return {KeyId(row.key): row.at for row in connection.execute(select(t.key_uses))}


def write_sign_ins(connection: Connection, put: Iterable[SignIn], ended: Iterable[SignIn]) -> None:
    """Write new sign-ins, delete ended ones."""
    for each in ended:
        _delete(connection, t.sign_ins, environment=each.environment or t.INSTANCE_WIDE, id=each.id)
    for each in put:
        key = {"environment": each.environment or t.INSTANCE_WIDE, "id": each.id}
        _replace(connection, t.sign_ins, key, {"hash": each.hash, "entry": msgspec.json.encode(each).decode()})


def load_sign_ins(connection: Connection) -> dict[bytes, SignIn]:
    """Every sign-in, by the hash of its cookie."""
    return {row.hash: msgspec.json.decode(row.entry, type=SignIn) for row in connection.execute(select(t.sign_ins))}


def load(connection: Connection) -> Iterator[AnyRecord]:
    """Every record of the database."""
    for row in connection.execute(select(t.environments)):
        yield Environment(id=EnvironmentId(row.environment), name=row.name, created_at=row.created_at)
    for row in connection.execute(select(t.sources)):
        yield Source(
            environment=EnvironmentId(row.environment),
            id=SourceId(row.id),
            name=row.name,
            bridge=row.bridge,
            dialect=row.dialect,
            credentials=Credentials(row.credentials),
            execution=ExecutionMode(row.execution),
            config_version=row.config_version,
            created_at=row.created_at,
        )
    yield from _load_runners(connection)
    yield from map(_lens_of, connection.execute(select(t.lenses)))
    for row in connection.execute(select(t.assignments)):
        yield Assignment(
            environment=EnvironmentId(row.environment),
            source=SourceId(row.source),
            runner=RunnerId(row.runner),
            created_at=row.created_at,
        )
    yield from map(_key_of, connection.execute(select(t.keys)))
    for row in connection.execute(select(t.retired_keys)):
        yield RetiredKey(id=KeyId(row.id), environment=_environment_of(row), hash=row.hash, retired_at=row.retired_at)


def _key_of(row: Any) -> Key:
    return Key(
        id=KeyId(row.id),
        environment=_environment_of(row),
        kind=KeyKind(row.kind),
        name=row.name,
        hash=row.hash,
        role=None if row.role is None else Role(row.role),
        limits=KeyLimits() if row.limits is None else msgspec.json.decode(row.limits, type=KeyLimits),
        created_at=row.created_at,
        expires_at=row.expires_at,
        origins=() if row.origins is None else msgspec.json.decode(row.origins, type=tuple[str, ...]),
    )


def _owner(key: Key | RetiredKey) -> str:
    return key.environment or t.INSTANCE_WIDE


def _environment_of(row: Any) -> EnvironmentId | None:
    return EnvironmentId(row.environment) if row.environment else None


def _put_lens(connection: Connection, lens: Lens) -> None:
    document = _LensDocument(
        table=lens.definition.table,
        fields=list(lens.definition.fields.values()),
        query_grant=lens.query_grant,
        limits=lens.limits,
        relations=dict(lens.relations),
        retry=lens.retry,
    )
    values = {
        "name": lens.name,
        "source": lens.source,
        "version": lens.version,
        "document": msgspec.json.encode(document).decode(),
        "created_at": lens.created_at,
    }
    _replace(connection, t.lenses, {"environment": lens.environment, "id": lens.id}, values)


def _lens_of(row: Any) -> Lens:
    document = msgspec.json.decode(row.document, type=_LensDocument)
    fields = {field.name: field for field in document.fields}
    return Lens(
        environment=EnvironmentId(row.environment),
        id=LensId(row.id),
        name=row.name,
        source=SourceId(row.source),
        definition=LensDefinition(name=row.name, table=document.table, fields=fields),
        query_grant=document.query_grant,
        limits=document.limits,
        relations=document.relations,
        retry=document.retry,
        version=row.version,
        created_at=row.created_at,
    )


def _put_runner(connection: Connection, runner: Runner) -> None:
    values = {
        "name": runner.name,
        "network": runner.network,
        "set_revision": runner.set_revision,
        "is_revoked": runner.is_revoked,
        "is_draining": runner.is_draining,
        "created_at": runner.created_at,
    }
    _replace(connection, t.runners, {"environment": runner.environment, "id": runner.id}, values)
    _delete(connection, t.runner_tokens, environment=runner.environment, runner=runner.id)
    for position, token in enumerate(runner.tokens):
        connection.execute(
            insert(t.runner_tokens).values(
                environment=runner.environment,
                runner=runner.id,
                position=position,
                hash=token.hash,
                created_at=token.created_at,
                expires_at=token.expires_at,
            )
        )


def _load_runners(connection: Connection) -> Iterator[Runner]:
    tokens: dict[tuple[str, str], list[RunnerToken]] = {}
    for row in connection.execute(select(t.runner_tokens).order_by(t.runner_tokens.c.position)):
        token = RunnerToken(hash=row.hash, created_at=row.created_at, expires_at=row.expires_at)
        tokens.setdefault((row.environment, row.runner), []).append(token)
    for row in connection.execute(select(t.runners)):
        yield Runner(
            environment=EnvironmentId(row.environment),
            id=RunnerId(row.id),
            name=row.name,
            network=row.network,
            tokens=tuple(tokens.get((row.environment, row.id), ())),
            set_revision=row.set_revision,
            is_revoked=row.is_revoked,
            is_draining=row.is_draining,
            created_at=row.created_at,
        )


def _replace(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    # Update, else insert: the same on every database.
    condition = [table.c[name] == value for name, value in key.items()]
    if not connection.execute(table.update().where(*condition).values(**values)).rowcount:
        connection.execute(insert(table).values(**{**key, **values}))


def _delete(connection: Connection, table: Table, **key: Any) -> None:
    connection.execute(delete(table).where(*(table.c[name] == value for name, value in key.items())))
