"""Keys may have bounds of their own. Additive: the release before reads and writes keys as it did."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; keys of before have no bounds."""
    op.add_column("keys", sa.Column("limits", sa.String(), nullable=True))
