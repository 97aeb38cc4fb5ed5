"""A process that is killed at a boundary between two things that it says to the database.

The processes are forks: nothing has to be imported again, so that a test can afford one for each boundary there is.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa


class Boundaries:
    """Counts the boundaries that an engine passes, and kills the process at one of them.

    Boundaries are before each statement (which is after the one before it), before COMMIT is said to the driver, on
    PostgreSQL when it is on its way and nobody waits for the answer, and after it.

    Args:
        engine: whose statements are counted.
        last: the number of the boundary at which the process is killed, from 1 on; None for none.
    """

    def __init__(self, engine: sa.Engine, last: int | None) -> None:
        self._last = last
        self._passed = 0
        sa.event.listen(engine, "before_cursor_execute", lambda *_: self._pass())
        dialect: Any = engine.dialect
        commit = dialect.do_commit

        def do_commit(connection: Any) -> None:
            self._pass()
            if (wire := getattr(connection.driver_connection, "pgconn", None)) is not None:
                self._pass(lambda: _send_commit(wire))
            commit(connection)
            self._pass()

        dialect.do_commit = do_commit

    def _pass(self, at_last: Callable[[], None] = lambda: None) -> None:
        self._passed += 1
        if self._passed == self._last:
            at_last()
            os.kill(os.getpid(), signal.SIGKILL)


def _send_commit(wire: Any) -> None:
    wire.send_query(b"COMMIT")
    wire.flush()


def survives(engine: sa.Engine, work: Callable[[], Any], last: int | None = None) -> bool:
    """Do some work in a process of its own, and return whether it got through before the boundary.

    Args:
        engine: that the work uses; of a SQLite file, no connection may be open, because a fork shares its locks.
        work: what it does.
        last: the boundary at which it is killed; None for none.
    """
    child = os.fork()
    if child == 0:
        try:
            engine.dispose(close=False)
            Boundaries(engine, last)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the work has failed before the boundary; its error is above"
    return True
