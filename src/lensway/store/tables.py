"""The tables. The environment stands in every one and first in every key; nothing here is particular to SQLite."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
INSTANCE_WIDE: Final = ""
"""Stands for no environment: keys and audit entries of the whole deployment."""

environments = Table(
    "environments",
    METADATA,
    Column("environment", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_at", String, nullable=False),
)
sources = Table(
    "sources",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("bridge", String, nullable=False),
    Column("dialect", String, nullable=False, server_default=""),
    Column("credentials", String, nullable=False),
    Column("execution", String, nullable=False),
    Column("config_version", Integer, nullable=False),
    Column("created_at", String, nullable=False),
    PrimaryKeyConstraint("environment", "id"),
    UniqueConstraint("environment", "name"),
    ForeignKeyConstraint(["environment"], ["environments.environment"]),
)
source_configs = Table(
    "source_configs",
    METADATA,
    Column("environment", String, nullable=False),
    Column("source", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("environment", "source"),
    ForeignKeyConstraint(["environment", "source"], ["sources.environment", "sources.id"]),
)
lenses = Table(
    "lenses",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("source", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("document", Text, nullable=False),
    Column("created_at", String, nullable=False),
    PrimaryKeyConstraint("environment", "id"),
    UniqueConstraint("environment", "name"),
    ForeignKeyConstraint(["environment", "source"], ["sources.environment", "sources.id"]),
)
runners = Table(
    "runners",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("network", String, nullable=True),
    Column("set_revision", Integer, nullable=False),
    Column("is_revoked", Boolean, nullable=False),
    Column("is_draining", Boolean, nullable=False),
    Column("created_at", String, nullable=False),
    PrimaryKeyConstraint("environment", "id"),
    UniqueConstraint("environment", "name"),
    ForeignKeyConstraint(["environment"], ["environments.environment"]),
)
runner_tokens = Table(
    "runner_tokens",
    METADATA,
    Column("environment", String, nullable=False),
    Column("runner", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", String, nullable=False),
    Column("expires_at", String, nullable=True),
    PrimaryKeyConstraint("environment", "runner", "position"),
    ForeignKeyConstraint(["environment", "runner"], ["runners.environment", "runners.id"]),
)
runner_sightings = Table(
    "runner_sightings",
    METADATA,
    Column("environment", String, nullable=False),
    Column("runner", String, nullable=False),
    Column("at", String, nullable=False),
    Column("cause", String, nullable=False),
    PrimaryKeyConstraint("environment", "runner"),
    ForeignKeyConstraint(["environment", "runner"], ["runners.environment", "runners.id"]),
)
"""When a runner was last seen, and why it went; for people only, nothing is decided by it."""
assignments = Table(
    "assignments",
    METADATA,
    Column("environment", String, nullable=False),
    Column("source", String, nullable=False),
    Column("runner", String, nullable=False),
    Column("created_at", String, nullable=False),
    PrimaryKeyConstraint("environment", "source", "runner"),
    ForeignKeyConstraint(["environment", "source"], ["sources.environment", "sources.id"]),
    ForeignKeyConstraint(["environment", "runner"], ["runners.environment", "runners.id"]),
)
keys = Table(
    "keys",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("role", String, nullable=True),
    Column("created_at", String, nullable=False),
    Column("limits", String, nullable=True),
    Column("expires_at", String, nullable=True),
    Column("origins", String, nullable=True),
    PrimaryKeyConstraint("environment", "id"),
)
retired_keys = Table(
    "retired_keys",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("retired_at", String, nullable=False),
    PrimaryKeyConstraint("environment", "id"),
)
"""Deleted admin keys: the same text is never accepted again."""
key_uses = Table(
    "key_uses",
    METADATA,
    Column("environment", String, nullable=False),
    Column("key", String, nullable=False),
    Column("at", String, nullable=False),
    PrimaryKeyConstraint("environment", "key"),
    ForeignKeyConstraint(["environment", "key"], ["keys.environment", "keys.id"]),
)
"""When a key was last used, to a minute or so; for people only."""
sign_ins = Table(
    "sign_ins",
    METADATA,
    Column("environment", String, nullable=False),
    Column("id", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("entry", Text, nullable=False),
    PrimaryKeyConstraint("environment", "id"),
)
"""Sign-ins to the Console, by the hashes of their cookies."""
audit = Table(
    "audit",
    METADATA,
    Column("sequence", Integer, primary_key=True),
    Column("environment", String, nullable=False),
    Column("entry", Text, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Index(None, "environment", "sequence"),
)
deployment = Table(
    "deployment",
    METADATA,
    Column("environment", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("key_check", LargeBinary, nullable=False),
    Column("audit_anchor", Text, nullable=True),
    Column("audit_key", LargeBinary, nullable=True),
)
"""One row: the revision, a ciphertext that tells whether the master key is the one the data was written with, and where the
verification of the audit begins."""
