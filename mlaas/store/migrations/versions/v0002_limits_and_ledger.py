"""Limits of API keys, and the ledger of budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Give the keys limits, none for those that exist, and create the ledger's two tables."""
    op.add_column("api_keys", sa.Column("models", sa.JSON))
    op.add_column("api_keys", sa.Column("rpm", sa.BigInteger))
    op.add_column("api_keys", sa.Column("tpm", sa.BigInteger))
    op.add_column("api_keys", sa.Column("concurrency", sa.BigInteger))
    op.add_column("api_keys", sa.Column("budget_usd", sa.Text))
    op.add_column("api_keys", sa.Column("budget_per", sa.Text))
    op.add_column("api_keys", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "budget_leases",
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("replica_id", sa.Text, primary_key=True),
        sa.Column("granted_nanos", sa.BigInteger, nullable=False),
        sa.Column("returned_nanos", sa.BigInteger, nullable=False),
        sa.Column("spent_nanos", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ledger_shards",
        sa.Column("shard", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
