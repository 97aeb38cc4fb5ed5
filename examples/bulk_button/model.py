"""The messages of the inbox, guarded, and the ledger's tables, in which a bulk transition keeps how far it has come."""

from __future__ import annotations

import enum

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from statekit import Guarded, TransitionTable, ledger


class Status(enum.StrEnum):
    """Where a message is on its way through the office."""

    READY = "READY"
    SPAM_REVIEW = "SPAM_REVIEW"
    PROMOTED = "PROMOTED"
    COMPLETED = "COMPLETED"


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Message(Guarded, Base):
    """One mail; once it is promoted, it is the work of an agent."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str]
    status: Mapped[Status] = mapped_column(default=Status.READY)

    __transitions__ = {
        "status": TransitionTable(
            "READY → SPAM_REVIEW",
            "READY → PROMOTED → COMPLETED",
            initial="READY",
        ),
    }


ledger.add_to(Base.metadata)
