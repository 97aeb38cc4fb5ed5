"""What reaches the database past SQLAlchemy: a script of the operations team, in plain SQL."""

from __future__ import annotations

from sqlalchemy import Engine, text

import statekit
from examples.inbox.model_guarded import Message
from statekit.trigger import StateTrigger

SCRIPT = "UPDATE message SET status = 'SPAM_REVIEW' WHERE agent IS NOT NULL AND subject LIKE '%rize%'"


def add_trigger(engine: Engine) -> StateTrigger:
    """Put the model's table into the database, as a migration would."""
    trigger = StateTrigger.of(Message.status)
    with engine.begin() as connection:
        for statement in trigger.create_sql(engine.dialect):
            connection.exec_driver_sql(statement)
    return trigger


def run_script(engine: Engine) -> Exception | None:
    """Run the script on the driver's own connection, and return the driver's error; None if it was let through."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute(SCRIPT)
        connection.commit()
    except Exception as error:
        connection.rollback()
        return error
    finally:
        connection.close()
    return None


def run_as_text(engine: Engine) -> statekit.IllegalTransition | None:
    """Run the script as ``text()`` through SQLAlchemy, and return the error; None if it was let through."""
    try:
        with engine.begin() as connection:
            connection.execute(text(SCRIPT))
    except statekit.IllegalTransition as error:
        return error
    return None
