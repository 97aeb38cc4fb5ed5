"""Guard message.status."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_state_trigger(
        "message",
        "status",
        transitions=[
            ("READY", "SPAM_REVIEW"),
            ("READY", "PROMOTED"),
            ("PROMOTED", "COMPLETED"),
        ],
        initial=["READY"],
        version=1,
    )


def downgrade() -> None:
    op.drop_state_trigger(
        "message",
        "status",
        transitions=[
            ("READY", "SPAM_REVIEW"),
            ("READY", "PROMOTED"),
            ("PROMOTED", "COMPLETED"),
        ],
        initial=["READY"],
        version=1,
    )
