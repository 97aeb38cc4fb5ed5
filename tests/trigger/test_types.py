"""Types of columns that can hold states exactly, those that cannot, and NULL."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import MOVES, TABLE, counts, fill, inbox, move, refused, stored, trigger

ENUM = "CREATE TYPE status AS ENUM ('READY', 'SPAM_REVIEW', 'PROMOTED', 'COMPLETED')"


def table(type_: str) -> str:
    return f"CREATE TABLE mail (id integer PRIMARY KEY, status {type_}, subject text DEFAULT '')"


def created(engine: sa.Engine, type_: str, *before: str, **options: Any) -> sa.Engine:
    """Make the inbox with a column of this type; some types must exist first."""
    execute(engine, *before)
    return inbox(engine, ddl=table(type_), **options)


@pytest.mark.parametrize("inline", [False, True])
class TestATypeOfText:
    TYPES = {
        "text": (),
        "varchar": (),
        "varchar(20)": (),
        "char(20)": (),
        '"char varying"': ('CREATE DOMAIN "char varying" AS varchar(20)',),
        "state": ("CREATE DOMAIN state AS text CHECK (VALUE <> '')",),
        "status": (ENUM,),
        '"Odd Type".status': ('CREATE SCHEMA "Odd Type"', ENUM.replace("TYPE ", 'TYPE "Odd Type".')),
        'text COLLATE "C"': (),
        "name": (),
    }

    @pytest.fixture(params=TYPES)
    def mail(self, request: pytest.FixtureRequest, each_postgres: sa.Engine, inline: bool) -> sa.Engine:
        """Return an engine on the inbox with a status of each of these types."""
        return created(each_postgres, request.param, *self.TYPES[request.param], inline=inline)

    def test_is_held(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'READY' WHERE id = 3")) == ("COMPLETED", "READY")
        assert refused(mail, "INSERT INTO mail VALUES (4, 'COMPLETED')").new
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "INSERT INTO mail VALUES (4, 'READY')")
        assert counts(mail) == {("COMPLETED", "READY"): 1, (None, "COMPLETED"): 1}

    def test_may_be_updated_to_the_same_state(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = status, subject = 'x'")
        assert counts(mail) == {}


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("type_", ["smallint", "integer", "bigint", "numeric(5, 0)"])
def test_a_type_of_numbers_is_held(each_postgres: sa.Engine, type_: str, inline: bool) -> None:
    execute(each_postgres, table(type_), "INSERT INTO mail VALUES (1, 1), (2, -2)")
    install(each_postgres, trigger(transitions=[(1, -2)], initial=[1], inline=inline))
    assert move(refused(each_postgres, "UPDATE mail SET status = 1 WHERE id = 2")) == ("-2", "1")
    assert refused(each_postgres, "INSERT INTO mail VALUES (3, -2)").new
    execute(each_postgres, "UPDATE mail SET status = -2", "INSERT INTO mail VALUES (3, 1)")


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(
    ("type_", "source", "target"),
    [
        ("boolean", "false", "true"),
        ("uuid", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
        ("date", "2024-01-01", "2024-01-02"),
    ],
)
def test_a_type_that_can_hold_the_states_exactly_is_held(
    each_postgres: sa.Engine, type_: str, source: str, target: str, inline: bool
) -> None:
    execute(each_postgres, table(type_), f"INSERT INTO mail VALUES (1, '{source}')")
    install(each_postgres, trigger(transitions=[(source, target)], initial=[source], inline=inline))
    execute(each_postgres, f"UPDATE mail SET status = '{target}'")
    assert move(refused(each_postgres, f"UPDATE mail SET status = '{source}'")) == (target, source)


@pytest.mark.parametrize("inline", [False, True])
class TestATypeForWhichCaseDoesNotMatter:
    """For citext, "ready" equals "READY"; for the trigger they are two texts, and only one of them is a state."""

    @pytest.fixture
    def mail(self, each_postgres: sa.Engine, inline: bool) -> sa.Engine:
        with each_postgres.connect() as connection:
            known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"
            if not connection.exec_driver_sql(known).scalar_one():
                pytest.skip("this server has no citext")
        return created(each_postgres, "citext", "CREATE EXTENSION citext", inline=inline)

    def test_is_held_to_the_exact_text(self, mail: sa.Engine) -> None:
        assert move(refused(mail, "UPDATE mail SET status = 'completed' WHERE id = 2")) == ("PROMOTED", "completed")
        assert move(refused(mail, "UPDATE mail SET status = 'ready' WHERE id = 1")) == ("READY", "ready")
        assert move(refused(mail, "INSERT INTO mail VALUES (4, 'ready')")) == (None, "ready")

    def test_may_move_along_a_transition(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2", "INSERT INTO mail VALUES (4, 'READY')")
        assert stored(mail) == ["READY", "COMPLETED", "COMPLETED", "READY"]


class TestATypeThatCannotHoldTheStates:
    @pytest.mark.parametrize(
        ("type_", "state"),
        [
            ("varchar(5)", "PROMOTED"),
            ("char(5)", "PROMOTED"),
            ("char(20)", "trailing "),
            ("integer", "READY"),
            ("integer", "01"),
            ("integer", "99999999999"),
            ("boolean", "yes"),
            ("date", "1 January 2024"),
            ("uuid", "READY"),
            ("json", "READY"),
            ("json", "1"),
            ("jsonb", "READY"),
            ("xml", "<a>"),
            ("point", "(1,2)"),
            ("status", "ARCHIVED"),
            ("status", "ready"),
            ("checked", "ARCHIVED"),
        ],
    )
    def test_is_refused_with_the_state_that_it_cannot_hold(
        self, each_postgres: sa.Engine, type_: str, state: str
    ) -> None:
        execute(each_postgres, ENUM, "CREATE DOMAIN checked AS text CHECK (VALUE IN ('READY'))", table(type_))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            install(each_postgres, trigger(transitions=[], initial=[state]))
        said = str(caught.value.orig)
        assert "mail.status" in said
        assert type_.split("(")[0].replace("varchar", "character varying").replace("char(", "character(") in said

    def test_is_refused_before_anything_is_made(self, each_postgres: sa.Engine) -> None:
        execute(each_postgres, table("varchar(5)"))
        with pytest.raises(sa.exc.DBAPIError):
            install(each_postgres, trigger())
        with each_postgres.connect() as connection:
            assert connection.exec_driver_sql("SELECT to_regnamespace('statekit')").scalar_one() is None

    def test_whose_collation_takes_different_texts_for_the_same_is_refused(self, each_postgres: sa.Engine) -> None:
        collation = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        try:
            execute(each_postgres, collation)
        except sa.exc.DBAPIError as error:
            pytest.skip(f"this server has no such collations: {error.orig}")
        execute(each_postgres, table("text COLLATE loose"))
        with pytest.raises(sa.exc.NotSupportedError, match="different texts are equal"):
            install(each_postgres, trigger())

    def test_may_be_a_column_that_is_not_there(self, each_postgres: sa.Engine) -> None:
        execute(each_postgres, TABLE)
        with pytest.raises(sa.exc.ProgrammingError, match="mail has no column state"):
            install(each_postgres, trigger(column="state"))

    def test_may_be_a_table_that_is_not_there(self, each_postgres: sa.Engine) -> None:
        with pytest.raises(sa.exc.ProgrammingError, match="There is no table mail\n.*schema=") as caught:
            install(each_postgres, trigger())
        assert "public" in str(caught.value.orig)  # where it was looked for

    def test_may_be_an_enum_whose_label_is_to_be_added(self, each_postgres: sa.Engine) -> None:
        execute(each_postgres, ENUM, table("status"))
        with pytest.raises(sa.exc.NotSupportedError, match="ALTER TYPE public.status ADD VALUE IF NOT EXISTS 'LATE';"):
            install(each_postgres, trigger(transitions=[("READY", "LATE")]))

    @pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
    def test_may_be_something_else_than_a_table(self, each_postgres: sa.Engine, kind: str) -> None:
        execute(each_postgres, TABLE, f"CREATE {kind} mails AS SELECT * FROM mail")
        with pytest.raises(sa.exc.DBAPIError, match="mails is no table"):
            install(each_postgres, trigger(table="mails"))


class TestANewLabelOfAnEnum:
    NEW = [*MOVES, ("COMPLETED", "ARCHIVED")]

    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        return created(each_postgres, "status", ENUM)

    def test_is_taken_in_the_transaction_that_adds_it(self, mail: sa.Engine) -> None:
        """PostgreSQL lets nobody use it before the commit; a migration adds the label and the rule at once."""
        new = trigger(transitions=self.NEW)
        execute(mail, "ALTER TYPE status ADD VALUE 'ARCHIVED'", *new.replace_sql(trigger(), "postgresql"))
        execute(mail, "UPDATE mail SET status = 'ARCHIVED' WHERE id = 3")
        assert move(refused(mail, "UPDATE mail SET status = 'ARCHIVED' WHERE id = 1")) == ("READY", "ARCHIVED")

    def test_that_is_renamed_is_followed_by_the_rule(self, mail: sa.Engine) -> None:
        new = trigger(transitions=[("READY", "SPAM_REVIEW"), ("READY", "OPEN"), ("OPEN", "COMPLETED")])
        rename = "ALTER TYPE status RENAME VALUE 'PROMOTED' TO 'OPEN'"
        execute(mail, rename, *new.replace_sql(trigger(), "postgresql"))
        execute(mail, "UPDATE mail SET status = 'COMPLETED' WHERE id = 2")
        assert move(refused(mail, "UPDATE mail SET status = 'OPEN' WHERE id = 3")) == ("COMPLETED", "OPEN")


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("type_", ["text", "status"])
class TestNull:
    """NULL is a state like any other where it is named, and else none."""

    def test_is_a_source_and_a_target_where_it_is_a_state(
        self, each_postgres: sa.Engine, type_: str, inline: bool
    ) -> None:
        execute(each_postgres, ENUM)
        fill(each_postgres, None, "READY", "PROMOTED", ddl=table(type_))
        moves = [(None, "READY"), ("PROMOTED", None), ("READY", "PROMOTED")]
        install(each_postgres, trigger(transitions=moves, initial=[None], inline=inline))
        execute(each_postgres, "UPDATE mail SET status = 'READY' WHERE id = 1", "INSERT INTO mail VALUES (4, NULL)")
        execute(each_postgres, "UPDATE mail SET status = NULL WHERE id = 3")
        assert move(refused(each_postgres, "UPDATE mail SET status = NULL WHERE id = 2")) == ("READY", None)
        assert move(refused(each_postgres, "UPDATE mail SET status = 'PROMOTED' WHERE id = 3")) == (None, "PROMOTED")
        assert move(refused(each_postgres, "INSERT INTO mail VALUES (5, 'READY')")) == (None, "READY")

    def test_is_refused_where_it_is_none(self, each_postgres: sa.Engine, type_: str, inline: bool) -> None:
        execute(each_postgres, ENUM)
        fill(each_postgres, None, "READY", ddl=table(type_))
        install(each_postgres, trigger(inline=inline))
        assert move(refused(each_postgres, "UPDATE mail SET status = 'READY' WHERE id = 1")) == (None, "READY")
        assert move(refused(each_postgres, "UPDATE mail SET status = NULL WHERE id = 2")) == ("READY", None)
        assert move(refused(each_postgres, "INSERT INTO mail VALUES (3, NULL)")) == (None, None)
        assert counts(each_postgres) == {(None, "READY"): 1, ("READY", None): 1, (None, None): 1}

    def test_may_stay(self, each_postgres: sa.Engine, type_: str, inline: bool) -> None:
        execute(each_postgres, ENUM)
        fill(each_postgres, None, ddl=table(type_))
        install(each_postgres, trigger(inline=inline))
        execute(each_postgres, "UPDATE mail SET status = NULL, subject = 'x'")
        assert stored(each_postgres) == [None]
