"""Add the state ARCHIVED, after COMPLETED.

The way back has messages to move that the old rule does not know: they become COMPLETED, while a rule holds that allows
just that.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = [
    ("READY", "SPAM_REVIEW"),
    ("READY", "PROMOTED"),
    ("PROMOTED", "COMPLETED"),
]
AFTER = [
    ("READY", "SPAM_REVIEW"),
    ("READY", "PROMOTED"),
    ("PROMOTED", "COMPLETED"),
    ("COMPLETED", "ARCHIVED"),
]
BACK = [*BEFORE, ("ARCHIVED", "COMPLETED")]


def upgrade() -> None:
    replace(BEFORE, AFTER)


def downgrade() -> None:
    replace(AFTER, BACK)
    op.execute("UPDATE message SET status = 'COMPLETED' WHERE status = 'ARCHIVED'")
    replace(BACK, BEFORE)


def replace(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
    """Give message.status another rule."""
    op.replace_state_trigger(
        "message",
        "status",
        transitions=new,
        initial=["READY"],
        old={"transitions": old},
        version=1,
    )
