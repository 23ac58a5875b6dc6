"""Brings a database to the newest schema, and refuses one that is newer than this program."""

from __future__ import annotations

import pathlib

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from lensway.errors import ErrorCode, LenswayError

_SCRIPTS = pathlib.Path(__file__).parent / "migrations"


def configuration() -> Config:
    """Alembic's configuration, made in code: nothing of it lies in a working directory."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def upgrade(engine: Engine) -> None:
    """Run what is missing, all in one transaction. Raises LenswayError CONFLICT for a newer database."""
    config = configuration()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        present = MigrationContext.configure(connection).get_current_heads()
        if any(revision not in known for revision in present):
            raise LenswayError(
                ErrorCode.CONFLICT,
                "The data directory was written by a newer release",
                hint="Start that release, or restore the backup from before the upgrade.",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
