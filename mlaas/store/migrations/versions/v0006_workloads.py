"""Workloads of the global scheduler, their events, who leads, and the queues that were applied."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the four tables."""
    _create_workloads()
    _create_beside()


def _create_workloads() -> None:
    op.create_table(
        "workloads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("preempts", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("submitted_at", _TIME, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("array_index", sa.Integer),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("num_failures", sa.Integer, nullable=False),
        sa.Column("num_preemptions", sa.Integer, nullable=False),
        sa.Column("not_before_at", _TIME),
        sa.Column("started_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.Column("yield_by_at", _TIME),
        sa.Column("placement", sa.JSON),
        sa.Column("holder", sa.Text),
        sa.Column("holder_seen_at", _TIME),
        sa.Column("handed_over", sa.Boolean, nullable=False),
        sa.Column("attained_s", sa.Double, nullable=False),
        sa.Column("waited_s", sa.Double, nullable=False),
        sa.Column("restart_owed_s", sa.Double, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("ix_workloads_state_sequence", "workloads", ["state", "sequence"])
    op.create_index("ix_workloads_tenant_sequence", "workloads", ["tenant", "sequence"])
    op.create_index("ix_workloads_sequence", "workloads", ["sequence"], unique=True)
    op.create_index("ix_workloads_parent_id", "workloads", ["parent_id"])
    op.create_index("ix_workloads_ended_at", "workloads", ["ended_at"])


def _create_beside() -> None:
    op.create_table(
        "workload_events",
        sa.Column("workload_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    leader = op.create_table(
        "scheduler_leader",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("last_event", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(leader, [{"name": "scheduler", "epoch": 0, "last_sequence": 0, "last_event": 0}])
    op.create_table(
        "queue_documents",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("applied_at", _TIME, nullable=False),
        sa.Column("applied_by", sa.Text, nullable=False),
    )
