"""The job "Spam capture", with its bug: the same function runs without statekit and with it."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from examples.inbox import model, model_guarded
from examples.inbox.states import Status

AnyMessage = TypeVar("AnyMessage", model.Message, model_guarded.Message)

SPAM_WORDS = ("casino", "crypto", "lottery", "prize", "winner")
SPAM_SENDERS = ("@bulk-offers.example", "@lucky-day.example")


def is_spam(sender: str, subject: str) -> bool:
    """Return whether a mail matches the spam rule: a simple one, that also hits some honest mails."""
    return sender.endswith(SPAM_SENDERS) or any(word in subject.lower() for word in SPAM_WORDS)


def capture_spam(session: Session, message: type[AnyMessage]) -> int:
    """Move what looks like spam to the spam review, and return how many messages were looked at."""
    # The bug: a promoted message is an agent's work already. It should be READY alone.
    scanned = session.scalars(select(message).where(message.status.in_([Status.READY, Status.PROMOTED]))).all()
    for each in scanned:
        if is_spam(each.sender, each.subject):
            each.status = Status.SPAM_REVIEW
    session.commit()
    return len(scanned)
