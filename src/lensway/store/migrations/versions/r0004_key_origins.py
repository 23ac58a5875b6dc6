"""Publishable keys list the origins of the web pages that may use them. Additive."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; keys of before list no origin."""
    op.add_column("keys", sa.Column("origins", sa.String(), nullable=True))
