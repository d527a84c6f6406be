"""What is in the way of a deployment."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add why the scheduler has no machines for a deployment."""
    op.add_column("deployments", sa.Column("obstacle", sa.Text))
