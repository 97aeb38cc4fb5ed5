"""A batch is never larger than asked, whatever plan PostgreSQL chooses for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Session, mapped_column, relationship

from statekit import guard, ledger, transition_all
from statekit.bulk import Batch
from statekit.bulk.selection import Selection
from statekit.bulk.sizing import FIRST
from tests.guards.inbox import TABLE, new_base
from tests.support.databases import Databases, execute

ROWS, ASKED = 1_418, 100

NESTED_LOOP = dict.fromkeys(["hashjoin", "mergejoin", "material", "hashagg", "memoize", "sort"], False)
SWITCHES = ["hashjoin", "mergejoin", "nestloop", "indexscan", "seqscan", "sort", "bitmapscan", "material", "hashagg"]
PLANS: dict[str, dict[str, bool]] = {
    "as it likes": {},
    "nested loop": NESTED_LOOP,
    "nested loop without an index": NESTED_LOOP | {"indexscan": False, "indexonlyscan": False, "bitmapscan": False},
    **{f"without {name}": {name: False} for name in SWITCHES},
    **{f"without {one} and {two}": {one: False, two: False} for one, two in itertools.combinations(SWITCHES[:6], 2)},
}


def settings(plan: dict[str, bool], mode: str = "auto") -> list[str]:
    """Return the statements that ask for a plan."""
    switched = [f"SET enable_{name} = {'on' if is_on else 'off'}" for name, is_on in plan.items()]
    return [*switched, f"SET plan_cache_mode = {mode}"]


class Mail:
    """Messages in threads, in a table of which PostgreSQL knows nothing yet."""

    def __init__(self, engine: sa.Engine) -> None:
        base = new_base()

        class Thread(base):  # type: ignore[misc, valid-type]
            __tablename__ = "thread"
            id = mapped_column(sa.Integer, primary_key=True)
            folder = mapped_column(sa.String(20))

        class Message(base):  # type: ignore[misc, valid-type]
            __tablename__ = "message"
            id = mapped_column(sa.Integer, primary_key=True)
            status = mapped_column(sa.String(20))
            subject = mapped_column(sa.String(50), default="")
            thread_id = mapped_column(ForeignKey("thread.id"))
            thread = relationship(Thread)

        guard(Message.status, TABLE)
        ledger.add_to(base.metadata)
        base.metadata.create_all(engine)
        self.thread: Any = Thread
        self.message: Any = Message
        execute(
            engine,
            "ALTER TABLE message SET (autovacuum_enabled = off)",
            "INSERT INTO thread SELECT n, CASE WHEN mod(n, 2) = 0 THEN 'inbox' ELSE 'later' END "
            "FROM generate_series(1, 40) n",
            "INSERT INTO message "
            f"SELECT n, 'READY', 'offer ' || mod(n, 7), 1 + mod(n, 40) FROM generate_series(1, {ROWS}) n",
        )

    def conditions(self) -> dict[str, Any]:
        """Return conditions of each kind, by name."""
        message, thread = self.message, self.thread
        twin = sa.orm.aliased(message)
        return {
            "none": None,
            "a column": message.subject == "offer 3",
            "a join": [message.thread_id == thread.id, thread.folder == "inbox"],
            "a join that multiplies": [message.thread_id <= thread.id, thread.folder == "inbox"],
            "a relationship": message.thread.has(folder="inbox"),
            "a subquery": message.thread_id.in_(sa.select(thread.id).where(thread.folder == "inbox")),
            "the table itself": sa.exists().where(twin.thread_id == message.thread_id, twin.id != message.id),
        }


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Return the databases of this module: each plan is asked for on the same rows."""
    postgres = request.getfixturevalue("postgres")
    databases = Databases(tmp_path_factory.mktemp("plans"), lambda: postgres)
    yield databases
    databases.close()


@pytest.fixture(scope="module")
def engine(shared: Databases) -> sa.Engine:
    """Return an engine with one connection a checkout, which no settings outlive."""
    return shared.engine("psycopg", poolclass=sa.NullPool)


@pytest.fixture(scope="module")
def mail(engine: sa.Engine) -> Mail:
    """Return the messages; each test leaves them as they were."""
    return Mail(engine)


def by_hand(connection: sa.Connection) -> int:
    """Move a batch as everybody writes it, and return how many rows it had."""
    ids = f"SELECT id FROM message WHERE status = 'READY' LIMIT {ASKED} FOR UPDATE SKIP LOCKED"
    return connection.exec_driver_sql(f"UPDATE message SET status = 'SPAM_REVIEW' WHERE id IN ({ids})").rowcount


def test_the_update_that_everybody_writes_exceeds_its_limit_under_a_nested_loop(engine: sa.Engine, mail: Mail) -> None:
    """These rows and this plan can show that a batch is too large: else the tests below would say nothing."""
    with engine.connect() as connection:
        for each in settings(PLANS["nested loop without an index"]):
            connection.exec_driver_sql(each)
        assert by_hand(connection) > ASKED
        connection.rollback()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_batch_is_never_larger_than_asked(engine: sa.Engine, mail: Mail, plan: str, mode: str) -> None:
    with Session(engine) as session:
        for each in settings(PLANS[plan], mode):
            session.connection().exec_driver_sql(each)
        for name, where in mail.conditions().items():
            selection = Selection(mail.message.status, "SPAM_REVIEW", where, "transition_all")
            for number, after in ((1, None), (ASKED, None), (ASKED, (700,))):
                rows, _ = selection.claim(session, number, after, waits=False)
                keys = [key for of_state in rows.values() for key in of_state]
                assert len(keys) == len(set(keys)) == number, name
        session.rollback()


@pytest.mark.parametrize("plan", ["as it likes", "nested loop", "nested loop without an index", "without sort"])
@pytest.mark.parametrize("condition", ["none", "a join that multiplies", "the table itself"])
def test_a_whole_job_moves_in_batches_of_the_size_that_was_asked(
    databases: Databases, plan: str, condition: str
) -> None:
    """Counted by the database: the rows that one transaction has written."""
    engine = databases.engine("psycopg")
    mail = Mail(engine)
    execute(engine, "DELETE FROM message WHERE id > 150", "ALTER TABLE message ADD by_transaction xid8")
    execute(
        engine,
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.by_transaction = pg_current_xact_id(); RETURN NEW; END'",
        "CREATE TRIGGER note BEFORE UPDATE ON message FOR EACH ROW EXECUTE FUNCTION note()",
    )
    engine = databases.engine("psycopg")
    sa.event.listen(
        engine, "connect", lambda connection, _: [connection.execute(each) for each in settings(PLANS[plan])]
    )
    sizes: list[int] = []

    def note(batch: Batch) -> None:
        sizes.append(len(batch.identities))

    result = transition_all(
        engine,
        mail.message.status,
        "SPAM_REVIEW",
        where=mail.conditions()[condition],
        on_batch=note,
    )
    with engine.connect() as connection:
        counted = "SELECT count(*) FROM message WHERE status = 'SPAM_REVIEW' GROUP BY by_transaction ORDER BY "
        written = list(connection.scalars(sa.text(counted + "by_transaction::text::bigint")))
    assert result.finished
    assert result.done == 150
    assert written == sizes
    assert sizes[0] <= FIRST
    assert all(size <= 2 * before for before, size in itertools.pairwise(sizes))
