"""Deployments whose replicas come and go with their load."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add what a deployment may take of the cluster, and what it owes its callers."""
    op.add_column("deployments", sa.Column("max_replicas", sa.Integer))
    op.add_column("deployments", sa.Column("ttft_slo_s", sa.Double))
    op.add_column("deployments", sa.Column("queue", sa.Text))
