"""Keys expire, deleted admin keys stay deleted, each key's last use is kept, and the audit's chain has a key. Additive."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the tables; keys of before do not expire."""
    op.add_column("keys", sa.Column("expires_at", sa.String(), nullable=True))
    op.add_column("deployment", sa.Column("audit_anchor", sa.Text(), nullable=True))
    op.create_table(
        "retired_keys",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("retired_at", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_retired_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_retired_keys_hash")),
    )
    op.create_table(
        "key_uses",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment", "key"], ["keys.environment", "keys.id"], name=op.f("fk_key_uses_environment_key")
        ),
        sa.PrimaryKeyConstraint("environment", "key", name=op.f("pk_key_uses")),
    )
