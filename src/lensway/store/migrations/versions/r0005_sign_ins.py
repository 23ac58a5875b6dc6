"""Sign-ins of the Console are rows, and the audit's key is stored, so that the master key can be rotated. Additive."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column; cookies of before open nothing."""
    op.add_column("deployment", sa.Column("audit_key", sa.LargeBinary(), nullable=True))
    op.create_table(
        "sign_ins",
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment", "id", name=op.f("pk_sign_ins")),
        sa.UniqueConstraint("hash", name=op.f("uq_sign_ins_hash")),
    )
