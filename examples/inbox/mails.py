"""The content of the inbox, the same at every run, and the questions that are asked of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, func, insert, select
from sqlalchemy.orm import Session

from examples.inbox.model import Base, Message
from examples.inbox.states import Status

_AGENTS = ("Ana", "Bert", "Chidi", "Dora")
_QUESTIONS = (
    "Where is my order {}?",
    "Invoice {} lacks a page",
    "Change of address, customer {}",
    "Order {} arrived broken",
    "Cancel my booking {}",
    "Question about contract {}",
    "Thank you for the help with ticket {}",
)
_SPAM = (
    ("Your crypto wallet {} is waiting", "team{}@wallets.example"),
    ("You are winner number {}!", "office{}@lucky-day.example"),
    ("{} free games in our casino", "play{}@games.example"),
    ("Only today: {} % off everything", "shop{}@bulk-offers.example"),
    ("Claim your prize no. {}", "claims{}@notices.example"),
)
# Honest mails that the spam rule hits all the same. Agents answered them weeks ago.
_FINISHED_WORK = (
    ("Lottery terminal in shop 12 does not print", "shop12@kiosks.example"),
    ("Refund for the crypto course that I cancelled", "j.moreau@post.example"),
    ("Prize voucher 3301 was refused at the till", "lena.koch@post.example"),
    ("Bill for the casino night of our staff party", "office@harbour-bank.example"),
    ("Send the cup to the winner of the school race", "sports@north-school.example"),
)


def _mail(status: Status, subject: str, sender: str, number: int) -> dict[str, Any]:
    worked_on = status in (Status.PROMOTED, Status.COMPLETED)
    finished = status is Status.COMPLETED or (status is Status.PROMOTED and number % 2 == 0)
    return {
        "sender": sender.format(number),
        "subject": subject.format(number),
        "status": status,
        "agent": _AGENTS[number % len(_AGENTS)] if worked_on else None,
        "finished_on": dt.date(2025, 9, 1) + dt.timedelta(days=number % 60) if finished else None,
    }


def _question(status: Status, number: int) -> dict[str, Any]:
    return _mail(status, _QUESTIONS[number % len(_QUESTIONS)], "customer{}@post.example", number)


def _spam(status: Status, number: int) -> dict[str, Any]:
    return _mail(status, *_SPAM[number % len(_SPAM)], number)


def _mails() -> list[dict[str, Any]]:
    mails = [
        *(_question(Status.READY, n) for n in range(700)),
        *(_spam(Status.READY, n) for n in range(150)),
        *(_question(Status.PROMOTED, n) for n in range(145)),
        *(_mail(Status.PROMOTED, *mail, 14 * n) for n, mail in enumerate(_FINISHED_WORK, start=1)),
        *(_question(Status.COMPLETED, n) for n in range(358)),
        *(_spam(Status.SPAM_REVIEW, n) for n in range(150, 210)),
    ]
    # Mixed as in a real inbox: 617 is a prime that does not divide their number, so each comes exactly once.
    return [mails[n * 617 % len(mails)] for n in range(len(mails))]


@contextmanager
def new_inbox() -> Iterator[Engine]:
    """Give a fresh copy of the inbox, in memory; it is gone after the block."""
    engine = create_engine("sqlite://")
    try:
        fill(engine)
        yield engine
    finally:
        engine.dispose()


def fill(engine: Engine) -> None:
    """Make the table, and put the messages into it.

    The rows were there before statekit came, so they are written through the model that does not know it.
    """
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Message), _mails())


def count_states(engine: Engine) -> dict[Status, int]:
    """Return how many messages are in each state, as the database has it."""
    with engine.connect() as connection:
        found = connection.execute(select(Message.status, func.count().label("number")).group_by(Message.status))
        numbers = {row.status: row.number for row in found}
    return {status: numbers.get(status, 0) for status in Status}


def work_in_spam_review(engine: Engine) -> Sequence[Message]:
    """Return the messages in the spam review that were promoted once, as they have an agent."""
    with Session(engine) as session:
        return session.scalars(
            select(Message)
            .where(Message.status == Status.SPAM_REVIEW, Message.agent.is_not(None))
            .order_by(Message.finished_on)
        ).all()
