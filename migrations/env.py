"""What Alembic runs: on the engine that a test hands over, or on the database of ``-x url=…``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

import statekit.alembic  # noqa: F401 (the operations and the comparison of triggers)
from migrations.inbox import Base

given = context.config.attributes


def url() -> sa.URL:
    """Return the database to migrate."""
    if (chosen := context.get_x_argument(as_dictionary=True).get("url")) is None:
        raise SystemExit(
            "Name the database: alembic -c migrations/alembic.ini -x url=sqlite:///inbox.sqlite upgrade head"
        )
    return sa.make_url(chosen)


if context.is_offline_mode():
    dialect = given["connection"].dialect.name if "connection" in given else url().get_backend_name()
    context.configure(dialect_name=dialect, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = given.get("connection") or sa.create_engine(url())
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
