"""An inbox that is slow to move, and a platform that ends a call that takes too long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Engine, text, update

from examples.bulk_button.platform import PAGE
from examples.inbox import model
from examples.inbox.mails import new_inbox
from examples.inbox.model_guarded import Base
from examples.inbox.states import Status
from statekit import ledger

ledger.add_to(Base.metadata)  # where a job keeps how far it has come

_EVERY = 100
"""After how many of SQLite's steps the platform looks at the clock: some rows."""


@contextmanager
def new_slow_inbox(seconds: float) -> Iterator[Engine]:
    """Give a fresh inbox whose messages are all READY; it is gone after the block.

    A trigger makes each move take its time, and keeps it in the table ``moved``.

    Args:
        seconds: what it takes to move one message.
    """
    with new_inbox() as engine:
        Base.metadata.create_all(engine)
        with closing(engine.raw_connection()) as connection:
            _driver(connection).create_function("take_time", 0, lambda: time.sleep(seconds))
        with engine.begin() as connection:
            connection.execute(update(model.Message).values(status=Status.READY, agent=None, finished_on=None))
            connection.execute(text("CREATE TABLE moved (message INTEGER NOT NULL)"))
            connection.execute(
                text(
                    "CREATE TRIGGER message_takes_time AFTER UPDATE OF status ON message "
                    "BEGIN INSERT INTO moved VALUES (new.id); SELECT take_time(); END"
                )
            )
        yield engine


def moved_more_than_once(engine: Engine) -> int:
    """Return how many messages were moved several times, as the trigger has seen it."""
    query = "SELECT count(*) FROM (SELECT message FROM moved GROUP BY message HAVING count(*) > 1)"
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


class Answer(NamedTuple):
    """What a client gets.

    Attributes:
        body: JSON from the application, or a page in HTML from the platform.
        seconds: how long it took to come.
    """

    body: str
    seconds: float


class Platform:
    """What stands between the client and the application.

    Args:
        engine: what the application asks. What runs on it is interrupted when the time is over.
        seconds: how long a call may take.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self.seconds = seconds

    def call(self, work: Callable[[], Any]) -> Answer:
        """Call the application, and return its answer as JSON; after the time-out, a page in its place.

        Args:
            work: what the application does; it returns what JSON can hold.
        """
        began = time.monotonic()

        def is_over() -> bool:
            return time.monotonic() - began >= self.seconds

        self._ask_while_busy(is_over)
        try:
            body = json.dumps(work())
        except Exception:  # whatever the application makes of it that it was interrupted
            if not is_over():
                raise
        finally:
            self._ask_while_busy(None)
        seconds = time.monotonic() - began
        return Answer(PAGE.decode() if seconds >= self.seconds else body, seconds)

    def _ask_while_busy(self, is_over: Callable[[], bool] | None) -> None:
        """Have SQLite ask whether to stop."""
        with closing(self._engine.raw_connection()) as connection:
            _driver(connection).set_progress_handler(is_over, _EVERY)


def _driver(connection: Any) -> Any:
    return connection.driver_connection
