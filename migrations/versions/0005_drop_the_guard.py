"""Drop the guard of message.status, and what it has counted."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TRANSITIONS = [
    ("READY", "SPAM_REVIEW"),
    ("READY", "ASSIGNED"),
    ("ASSIGNED", "COMPLETED"),
    ("COMPLETED", "ARCHIVED"),
]


def upgrade() -> None:
    op.drop_state_trigger("message", "status", transitions=TRANSITIONS, initial=["READY"], version=1)


def downgrade() -> None:
    op.create_state_trigger("message", "status", transitions=TRANSITIONS, initial=["READY"], version=1)
