"""The states of a message."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """Where a message is on its way through the office."""

    READY = "READY"
    SPAM_REVIEW = "SPAM_REVIEW"
    PROMOTED = "PROMOTED"
    COMPLETED = "COMPLETED"
