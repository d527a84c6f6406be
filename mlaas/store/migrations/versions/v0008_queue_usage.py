"""What each queue has had lately, kept beside who leads."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the usage of queues and its time to the leader's row, which every write of the scheduler changes."""
    op.add_column("scheduler_leader", sa.Column("queue_usage", sa.JSON))
    op.add_column("scheduler_leader", sa.Column("queue_usage_at", sa.DateTime(timezone=True)))
