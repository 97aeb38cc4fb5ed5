"""The inbox as the last revision leaves it: a table without a guard."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Message(Base):
    """One mail; once it is assigned, it is the work of an agent."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    sender: Mapped[str]
    subject: Mapped[str]
    status: Mapped[str] = mapped_column(sa.String(20))
    agent: Mapped[str | None]
    finished_on: Mapped[dt.date | None]
