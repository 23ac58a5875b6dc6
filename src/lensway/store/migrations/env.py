"""Runs migrations on the connection that `lensway.store.migrate` gives."""

from alembic import context

from lensway.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=False)
context.run_migrations()
