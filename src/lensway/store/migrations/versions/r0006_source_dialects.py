"""Sources name the dialect that their database speaks. Additive."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; each kind of before has one dialect, of the same name."""
    op.add_column("sources", sa.Column("dialect", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE sources SET dialect = bridge")
