"""Who makes the placement groups of a gang that was handed over."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the Ray job in which a holder makes its groups."""
    op.add_column("workloads", sa.Column("handed_over_job", sa.Text))
