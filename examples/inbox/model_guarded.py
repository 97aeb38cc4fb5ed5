"""The inbox: messages that customers write and agents work on."""

from __future__ import annotations

import datetime as dt

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.inbox.states import Status
from statekit import Guarded, TransitionTable


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Message(Guarded, Base):
    """One mail; once it is promoted, it is the work of an agent."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    sender: Mapped[str]
    subject: Mapped[str]
    status: Mapped[Status] = mapped_column(default=Status.READY)
    agent: Mapped[str | None]
    finished_on: Mapped[dt.date | None]

    __transitions__ = {
        "status": TransitionTable(
            "READY → SPAM_REVIEW",
            "READY → PROMOTED → COMPLETED",
            initial="READY",
        ),
    }
