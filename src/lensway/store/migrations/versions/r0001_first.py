"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, each after the ones it points at."""
    _audit()
    _deployment()
    _environments()
    _keys()
    _runners()
    _sources()
    _assignments()
    _lenses()
    _runner_sightings()
    _runner_tokens()
    _source_configs()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_environment_sequence"), "audit", ["environment", "sequence"], unique=False)


def _deployment() -> None:
    op.create_table(
        "deployment",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("key_check", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("environment", name=op.f("pk_deployment")),
    )


def _environments() -> None:
    op.create_table(
        "environments",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("environment", name=op.f("pk_environments")),
        sa.UniqueConstraint("name", name=op.f("uq_environments_name")),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_keys_hash")),
    )


def _runners() -> None:
    op.create_table(
        "runners",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("network", sa.String(), nullable=True),
        sa.Column("set_revision", sa.Integer(), nullable=False),
        sa.Column("is_revoked", sa.Boolean(), nullable=False),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["environment"], ["environments.environment"], name=op.f("fk_runners_environment")),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_runners")),
        sa.UniqueConstraint("environment", "name", name=op.f("uq_runners_environment_name")),
    )


def _sources() -> None:
    op.create_table(
        "sources",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bridge", sa.String(), nullable=False),
        sa.Column("credentials", sa.String(), nullable=False),
        sa.Column("execution", sa.String(), nullable=False),
        sa.Column("config_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["environment"], ["environments.environment"], name=op.f("fk_sources_environment")),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_sources")),
        sa.UniqueConstraint("environment", "name", name=op.f("uq_sources_environment_name")),
    )


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment", "runner"],
            ["runners.environment", "runners.id"],
            name=op.f("fk_assignments_environment_runner"),
        ),
        sa.ForeignKeyConstraint(
            ["environment", "source"],
            ["sources.environment", "sources.id"],
            name=op.f("fk_assignments_environment_source"),
        ),
        sa.PrimaryKeyConstraint("environment", "source", "runner", name=op.f("pk_assignments")),
    )


def _lenses() -> None:
    op.create_table(
        "lenses",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment", "source"], ["sources.environment", "sources.id"], name=op.f("fk_lenses_environment_source")
        ),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_lenses")),
        sa.UniqueConstraint("environment", "name", name=op.f("uq_lenses_environment_name")),
    )


def _runner_sightings() -> None:
    op.create_table(
        "runner_sightings",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment", "runner"],
            ["runners.environment", "runners.id"],
            name=op.f("fk_runner_sightings_environment_runner"),
        ),
        sa.PrimaryKeyConstraint("environment", "runner", name=op.f("pk_runner_sightings")),
    )


def _runner_tokens() -> None:
    op.create_table(
        "runner_tokens",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("runner", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("expires_at", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["environment", "runner"],
            ["runners.environment", "runners.id"],
            name=op.f("fk_runner_tokens_environment_runner"),
        ),
        sa.PrimaryKeyConstraint("environment", "runner", "position", name=op.f("pk_runner_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_runner_tokens_hash")),
    )


def _source_configs() -> None:
    op.create_table(
        "source_configs",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment", "source"],
            ["sources.environment", "sources.id"],
            name=op.f("fk_source_configs_environment_source"),
        ),
        sa.PrimaryKeyConstraint("environment", "source", name=op.f("pk_source_configs")),
    )
