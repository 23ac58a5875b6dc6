"""Brings a database to the newest schema, and refuses one that is newer than this program."""

from __future__ import annotations

import pathlib

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from lensway.errors import ErrorCode, LenswayError
from lensway.store.backup import before_migration

_SCRIPTS = pathlib.Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's configuration, made in code: nothing of it lies in a working directory."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def upgrade(engine: Engine, database: pathlib.Path | None = None) -> None:
    """Run what is missing, all in one transaction, after a copy of the file ``database`` was kept beside it.

    Raises:
        LenswayError: CONFLICT for a newer database, INVALID_REQUEST when the copy cannot be written.
    """
    config = configuration()
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_heads()
    if database is not None and present and known.issuperset(present) and set(present) != set(scripts.get_heads()):
        before_migration(database, present[0])
    with engine.begin() as connection:
        if any(revision not in known for revision in present):
            raise LenswayError(
                ErrorCode.CONFLICT,
                "The data directory was written by a newer release",
                hint="Start that release, or restore the backup from before the upgrade.",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
