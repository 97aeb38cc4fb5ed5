"""Rename the state PROMOTED to ASSIGNED.

The trigger would refuse the rows that are renamed. So there is, for as long as this migration takes, a rule that allows
just this one move, besides those of before; on PostgreSQL nobody else sees it, as all of this is one transaction.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BEFORE = [
    ("READY", "SPAM_REVIEW"),
    ("READY", "PROMOTED"),
    ("PROMOTED", "COMPLETED"),
    ("COMPLETED", "ARCHIVED"),
]
AFTER = [
    ("READY", "SPAM_REVIEW"),
    ("READY", "ASSIGNED"),
    ("ASSIGNED", "COMPLETED"),
    ("COMPLETED", "ARCHIVED"),
]


def upgrade() -> None:
    rename("PROMOTED", "ASSIGNED", BEFORE, AFTER)


def downgrade() -> None:
    rename("ASSIGNED", "PROMOTED", AFTER, BEFORE)


def rename(old: str, new: str, before: list[tuple[str, str]], after: list[tuple[str, str]]) -> None:
    """Give the rows in a state another one, past a rule that allows it."""
    between = [*before, (old, new)]
    replace(before, between)
    op.execute(f"UPDATE message SET status = '{new}' WHERE status = '{old}'")
    replace(between, after)


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
