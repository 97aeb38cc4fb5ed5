"""Version 2 of the triggers: the history of each row, and the way past for the members of a role."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import IllegalTransition, TableError, ledger, override
from statekit.trigger import StateTrigger
from statekit.trigger.catalog import blocked, installed
from statekit.trigger.status import findings
from tests.alembic.project import Project
from tests.guards.inbox import message_class
from tests.ledger.books import attached
from tests.support.databases import execute
from tests.trigger.by_hand import install
from tests.trigger.messages import MOVES, engine_of, fill, move, refused, role, stored, trigger
from tests.trigger.test_partitions import BY_MONTH, INHERITED

HISTORY = trigger(history=["id"])


def with_ledger(engine: sa.Engine, schema: str | None = None) -> sa.Engine:
    metadata = sa.MetaData()
    ledger.add_to(metadata, schema=schema)
    metadata.create_all(engine)
    return engine


def history(engine: sa.Engine, schema: str | None = None) -> list[tuple[Any, ...]]:
    """Return key, source, target and whether it is a new row, in the order in which they were written."""
    table = ledger.add_to(sa.MetaData(), schema=schema).history
    columns = (table.c.key, table.c.source, table.c.target, table.c.is_new)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(*columns).order_by(table.c.id))
        return [(*json.loads(key), *others) for key, *others in rows]


@contextmanager
def as_role(engine: sa.Engine, *grants: str) -> Iterator[sa.Engine]:
    """Return an engine for an ordinary role with these grants."""
    with role(engine, *grants) as name:
        other = engine_of(engine, name)
        yield other
        other.dispose()


class TestTheValue:
    def test_is_of_the_lowest_version_that_can_do_what_is_asked(self) -> None:
        assert [trigger().version, HISTORY.version, trigger(override_role="repair").version] == [1, 2, 2]

    def test_without_either_is_as_it_was(self) -> None:
        assert "history" not in trigger().as_data()

    def test_comes_back_from_its_data(self) -> None:
        made = trigger(history=["id", "day"], override_role="repair", ledger_schema="audit")
        assert StateTrigger.from_data(made.as_data()) == made

    def test_evaluates_from_its_repr(self) -> None:
        made = trigger(history=["id"], override_role="repair", ledger_schema="audit")
        assert eval(repr(made), {"StateTrigger": StateTrigger}) == made

    def test_of_version_1_cannot_do_it(self) -> None:
        with pytest.raises(TableError, match="came with version 2"):
            trigger(history=["id"], version=1)

    @pytest.mark.parametrize("options", [{"history": [""]}, {"override_role": ""}, {"ledger_schema": "\0"}])
    def test_refuses_names_that_are_none(self, options: Any) -> None:
        with pytest.raises(TableError):
            trigger(**options)

    def test_makes_the_same_triggers_as_version_1_on_sqlite(self) -> None:
        names = [statement.split()[2] for statement in HISTORY.create_sql("sqlite")]
        assert names == [statement.split()[2] for statement in trigger().create_sql("sqlite")]


class TestTheHistory:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        fill(with_ledger(each_postgres), "READY")
        install(each_postgres, HISTORY)
        return each_postgres

    def test_has_each_move_and_each_new_row(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail VALUES (2, 'READY')", "UPDATE mail SET status = 'PROMOTED'")
        assert history(mail) == [
            ("2", None, "READY", True),
            ("1", "READY", "PROMOTED", False),
            ("2", "READY", "PROMOTED", False),
        ]

    def test_has_nothing_of_what_is_refused(self, mail: sa.Engine) -> None:
        refused(mail, "UPDATE mail SET status = 'COMPLETED'")
        assert history(mail) == []

    def test_has_nothing_of_other_columns(self, mail: sa.Engine) -> None:
        execute(mail, "UPDATE mail SET subject = 'x', status = status")
        assert history(mail) == []

    def test_of_an_upsert_tells_new_rows_from_old_ones(self, mail: sa.Engine) -> None:
        execute(
            mail,
            "INSERT INTO mail VALUES (1, 'READY'), (2, 'READY') ON CONFLICT (id) DO UPDATE SET status = 'PROMOTED'",
        )
        assert sorted(history(mail)) == [("1", "READY", "PROMOTED", False), ("2", None, "READY", True)]

    def test_can_be_written_by_whoever_may_write_the_table(self, mail: sa.Engine) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}") as other:
            execute(other, "UPDATE mail SET status = 'PROMOTED'")
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                execute(other, "DELETE FROM statekit_history")
        assert history(mail) == [("1", "READY", "PROMOTED", False)]

    def test_cannot_be_forged_by_a_trigger_on_another_table(self, mail: sa.Engine) -> None:
        grants = "GRANT USAGE ON SCHEMA statekit TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
        with as_role(mail, *grants.split("; ")) as other:
            execute(other, "CREATE TABLE mine (id integer, status text)")
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied for function"):
                execute(
                    other,
                    "CREATE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW"
                    f" EXECUTE FUNCTION statekit.{HISTORY.name}_history()",
                )

    def test_is_as_it_was_made(self, mail: sa.Engine) -> None:
        with mail.connect() as connection:
            assert findings(connection, [HISTORY]) == []

    @pytest.mark.parametrize(
        ("damage", "kind"),
        [
            (f"DROP TRIGGER {HISTORY.name}_history ON mail", "incomplete"),
            (f"ALTER TABLE mail DISABLE TRIGGER {HISTORY.name}_history_new", "disabled"),
            (
                f"CREATE OR REPLACE FUNCTION statekit.{HISTORY.name}_history() RETURNS trigger LANGUAGE plpgsql"
                " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'",
                "edited",
            ),
        ],
    )
    def test_that_was_changed_by_hand_is_found_and_put_right(self, mail: sa.Engine, damage: str, kind: str) -> None:
        execute(mail, damage)
        with mail.connect() as connection:
            assert {finding.kind for finding in findings(connection, [HISTORY])} == {kind}
        execute(mail, f"ALTER TABLE mail ENABLE TRIGGER {HISTORY.name}_history_new")
        install(mail, HISTORY)
        with mail.connect() as connection:
            assert findings(connection, [HISTORY]) == []

    def test_is_dropped_with_the_trigger(self, mail: sa.Engine) -> None:
        execute(mail, *HISTORY.drop_sql("postgresql"))
        execute(mail, "UPDATE mail SET status = 'COMPLETED'")
        assert history(mail) == []
        with mail.connect() as connection:
            functions = sa.text("SELECT proname FROM pg_proc WHERE pronamespace = 'statekit'::regnamespace")
            assert set(connection.scalars(functions)) == {"counts_v1"}

    def test_comes_and_goes_with_a_replacement_which_keeps_the_counts(self, mail: sa.Engine) -> None:
        plain = trigger()
        refused(mail, "UPDATE mail SET status = 'COMPLETED'")
        execute(mail, *plain.replace_sql(HISTORY, "postgresql"))
        execute(mail, "UPDATE mail SET status = 'PROMOTED'")
        assert history(mail) == []
        execute(mail, *HISTORY.replace_sql(plain, "postgresql"))
        execute(mail, "UPDATE mail SET status = 'COMPLETED'")
        assert history(mail) == [("1", "PROMOTED", "COMPLETED", False)]
        with mail.connect() as connection:
            assert blocked(connection, [HISTORY]) == {("READY", "COMPLETED"): 1}
            assert findings(connection, [HISTORY]) == []

    def test_stays_with_another_rule(self, mail: sa.Engine) -> None:
        other = trigger(history=["id"], transitions=[*MOVES, ("READY", "COMPLETED")])
        execute(mail, *other.replace_sql(HISTORY, "postgresql"))
        execute(mail, "UPDATE mail SET status = 'COMPLETED'")
        assert history(mail) == [("1", "READY", "COMPLETED", False)]

    def test_is_written_in_the_mode_skip(self, each_postgres: sa.Engine) -> None:
        fill(with_ledger(each_postgres), "READY", "PROMOTED")
        install(each_postgres, trigger(history=["id"], on_illegal="skip"))
        execute(each_postgres, "UPDATE mail SET status = 'COMPLETED'")
        assert history(each_postgres) == [("2", "PROMOTED", "COMPLETED", False)]

    def test_is_written_with_inline_rules(self, each_postgres: sa.Engine) -> None:
        fill(with_ledger(each_postgres), "READY")
        install(each_postgres, trigger(history=["id"], inline=True))
        execute(each_postgres, "UPDATE mail SET status = 'PROMOTED'")
        assert history(each_postgres) == [("1", "READY", "PROMOTED", False)]

    def test_is_in_the_ledgers_schema(self, each_postgres: sa.Engine) -> None:
        execute(each_postgres, 'CREATE SCHEMA "An audit"')
        fill(with_ledger(each_postgres, "An audit"), "READY")
        install(each_postgres, trigger(history=["id"], ledger_schema="An audit"))
        execute(each_postgres, "UPDATE mail SET status = 'PROMOTED'")
        assert history(each_postgres, "An audit") == [("1", "READY", "PROMOTED", False)]


class TestTheHistoryOfPartitions:
    @pytest.fixture
    def mail(self, each_postgres: sa.Engine) -> sa.Engine:
        fill(with_ledger(each_postgres), ddl=BY_MONTH)
        install(each_postgres, trigger(history=["id", "month"]))
        return each_postgres

    def test_has_new_rows_and_moves(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail (id, status) VALUES (1, 'READY')", "UPDATE mail SET status = 'PROMOTED'")
        assert history(mail) == [("1", "1", None, "READY", True), ("1", "1", "READY", "PROMOTED", False)]

    def test_has_a_row_that_changes_its_partition_once(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO mail (id, status) VALUES (1, 'READY')")
        execute(mail, "UPDATE mail SET status = 'PROMOTED', month = 2")
        assert history(mail)[1:] == [("1", "2", "READY", "PROMOTED", False)]

    def test_has_what_is_written_to_a_partition_itself(self, mail: sa.Engine) -> None:
        execute(mail, "INSERT INTO february_all (id, month, status) VALUES (1, 2, 'READY')")
        assert history(mail) == [("1", "2", None, "READY", True)]

    def test_is_as_it_was_made(self, mail: sa.Engine) -> None:
        with mail.connect() as connection:
            assert findings(connection, [trigger(history=["id", "month"])]) == []

    def test_is_gone_after_a_replacement(self, mail: sa.Engine) -> None:
        execute(mail, *trigger().replace_sql(trigger(history=["id", "month"]), "postgresql"))
        execute(mail, "INSERT INTO mail (id, status) VALUES (1, 'READY')", "UPDATE mail SET status = 'PROMOTED'")
        assert history(mail) == []

    def test_of_children_is_written_as_well(self, postgres_engine: sa.Engine) -> None:
        fill(with_ledger(postgres_engine), ddl=INHERITED)
        install(postgres_engine, HISTORY)
        execute(postgres_engine, "INSERT INTO most_urgent (id, status) VALUES (1, 'READY')")
        execute(postgres_engine, "UPDATE mail SET status = 'PROMOTED'")
        assert history(postgres_engine) == [("1", None, "READY", True), ("1", "READY", "PROMOTED", False)]


class TestTheOverride:
    @pytest.fixture
    def repair(self, each_postgres: sa.Engine) -> Iterator[str]:
        """Return the name of a role whose members may override the trigger; roles belong to the whole server."""
        with each_postgres.connect() as connection:
            name = "repair_" + connection.execute(sa.text("SELECT current_database()")).scalar_one()[-16:]
        execute(each_postgres, f"CREATE ROLE {name}")
        yield name
        execute(each_postgres, f"DROP OWNED BY {name}", f"DROP ROLE {name}")

    @pytest.fixture
    def mail(self, each_postgres: sa.Engine, repair: str) -> sa.Engine:
        fill(with_ledger(each_postgres), "READY", "PROMOTED", "COMPLETED")
        install(each_postgres, trigger(override_role=repair, history=["id"]))
        return each_postgres

    SAY = "SELECT set_config('statekit.reason', 'wrong queue', true), set_config('statekit.actor', 'ada', true)"

    def test_passes_for_a_member_who_says_why(self, mail: sa.Engine, repair: str) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}", f"GRANT {repair} TO {{role}}") as member:
            with member.begin() as connection:
                connection.exec_driver_sql(self.SAY)
                connection.exec_driver_sql("UPDATE mail SET status = 'READY' WHERE id = 3")
        assert stored(mail) == ["READY", "PROMOTED", "READY"]

    def test_leaves_an_entry_and_a_history(self, mail: sa.Engine, repair: str) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}", f"GRANT {repair} TO {{role}}") as member:
            name = member.url.username
            with member.begin() as connection:
                connection.exec_driver_sql(self.SAY)
                connection.exec_driver_sql("UPDATE mail SET status = 'READY' WHERE id = 3")
        table = ledger.add_to(sa.MetaData()).ledger
        columns = [table.c[n] for n in "kind source target number reason actor identities detail".split()]
        with mail.connect() as connection:
            (entry,) = connection.execute(sa.select(*columns)).all()
        assert tuple(entry)[:7] == ("overridden", "COMPLETED", "READY", 1, "wrong queue", "ada", [[3]])
        assert (entry.detail["by"], entry.detail["role"]) == ("trigger", name)
        assert history(mail) == [("3", "COMPLETED", "READY", False)]

    def test_passes_not_for_others(self, mail: sa.Engine) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}") as stranger:
            error = refused(stranger, self.SAY, "UPDATE mail SET status = 'READY' WHERE id = 3")
        assert move(error) == ("COMPLETED", "READY")

    def test_passes_not_for_a_member_who_says_nothing(self, mail: sa.Engine, repair: str) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}", f"GRANT {repair} TO {{role}}") as member:
            refused(member, "UPDATE mail SET status = 'READY' WHERE id = 3")

    def test_ends_with_the_transaction(self, mail: sa.Engine, repair: str) -> None:
        with as_role(mail, "GRANT SELECT, UPDATE ON mail TO {role}", f"GRANT {repair} TO {{role}}") as member:
            with member.connect() as connection:
                connection.exec_driver_sql(self.SAY)
                connection.commit()
                with pytest.raises(IllegalTransition):
                    connection.exec_driver_sql("UPDATE mail SET status = 'READY' WHERE id = 3")

    def test_passes_for_nobody_where_the_role_is_gone(self, each_postgres: sa.Engine) -> None:
        fill(with_ledger(each_postgres), "READY")
        install(each_postgres, trigger(override_role="nobody's role"))
        with as_role(each_postgres, "GRANT SELECT, UPDATE ON mail TO {role}") as other:
            refused(other, self.SAY, "UPDATE mail SET status = 'COMPLETED'")

    def test_of_a_new_row_passes_too(self, mail: sa.Engine, repair: str) -> None:
        with mail.begin() as connection:  # the owner of everything
            connection.exec_driver_sql(self.SAY)
            connection.exec_driver_sql("INSERT INTO mail VALUES (9, 'COMPLETED')")
        assert history(mail) == [("9", None, "COMPLETED", True)]

    def test_in_the_mode_skip_is_recorded_once(self, each_postgres: sa.Engine, repair: str) -> None:
        fill(with_ledger(each_postgres), "READY", "PROMOTED")
        install(each_postgres, trigger(override_role=repair, on_illegal="skip"))
        with each_postgres.begin() as connection:
            connection.exec_driver_sql(self.SAY)
            connection.exec_driver_sql("UPDATE mail SET status = 'SPAM_REVIEW'")
        assert stored(each_postgres) == ["SPAM_REVIEW", "SPAM_REVIEW"]
        with each_postgres.connect() as connection:
            assert connection.scalars(sa.text("SELECT number FROM statekit_ledger")).all() == [1]

    def test_of_the_guard_opens_the_trigger_and_is_recorded_once(self, each_postgres: sa.Engine, repair: str) -> None:
        message = message_class(trigger=True, override_role=repair, history=True)
        ledger.add_to(message.metadata)
        message.metadata.create_all(each_postgres)
        with attached(each_postgres):
            with Session(each_postgres) as session:
                session.add(message(id=1))
                session.commit()
            with override("wrong queue", actor="ada"):
                with Session(each_postgres) as session:
                    session.get(message, 1).status = "COMPLETED"
                    session.commit()
                    session.execute(sa.update(message).values(status="READY"))
                    session.commit()
                    session.add(message(id=2, status="PROMOTED"))
                    session.commit()
            with Session(each_postgres) as session:  # what was said does not outlive the write
                with override("again"):
                    session.get(message, 1).status = "SPAM_REVIEW"
                    session.flush()
                with pytest.raises(IllegalTransition):
                    session.execute(sa.text("UPDATE message SET status = 'READY'"))
        with each_postgres.connect() as connection:
            found = connection.execute(
                sa.text("SELECT source, target, number FROM statekit_ledger WHERE kind = 'overridden' ORDER BY id")
            ).all()
            assert [tuple(row) for row in found] == [
                ("READY", "COMPLETED", 1),
                ("COMPLETED", "READY", 1),
                (None, "PROMOTED", 1),
            ]
            kinds = connection.scalars(sa.text("SELECT kind FROM statekit_history ORDER BY id")).all()
            assert kinds == ["allowed", "overridden", "overridden", "overridden"]


def test_of_a_tenant_is_in_the_tenants_schema(postgres_engine: sa.Engine) -> None:
    message = message_class(trigger=True, history=True)
    ledger.add_to(message.metadata)
    execute(postgres_engine, "CREATE SCHEMA tenant")
    tenant = postgres_engine.execution_options(schema_translate_map={None: "tenant"})
    message.metadata.create_all(tenant)
    with Session(tenant) as session:
        session.add(message(id=1))
        session.commit()
        session.get(message, 1).status = "PROMOTED"
        session.commit()
    assert len(history(postgres_engine, "tenant")) == 2


class TestAMigration:
    def declared(self, **options: Any) -> sa.MetaData:
        message = message_class(**options)
        ledger.add_to(message.metadata)
        return message.metadata  # type: ignore[no-any-return]

    def test_delivers_the_history_and_is_empty_the_second_time(self, engine: sa.Engine, tmp_path: Path) -> None:
        project = Project(tmp_path, engine, self.declared(history=True))
        script = project.autogenerate()
        assert "history=['id'], version=2" in " ".join(script.split())
        project.upgrade()
        project.check()

    def test_adds_it_to_a_trigger_of_version_1_and_takes_it_back(self, engine: sa.Engine, tmp_path: Path) -> None:
        project = Project(tmp_path, engine, self.declared())
        project.migrate()
        project.metadata = self.declared(history=True)
        script = project.autogenerate()
        assert "'history': [], 'version': 1" in " ".join(script.split())
        project.upgrade()
        project.check()
        project.downgrade()
        with engine.connect() as connection:
            (there,) = installed(connection)
            assert (there.trigger.version, there.problems) == (1, ())

    def test_names_the_schema_where_tables_without_one_are_elsewhere(
        self, postgres_engine: sa.Engine, tmp_path: Path
    ) -> None:
        execute(postgres_engine, "CREATE SCHEMA app")
        url = postgres_engine.url.update_query_dict({"options": "-c search_path=app"})
        engine = sa.create_engine(url)
        project = Project(tmp_path, engine, self.declared(history=True))
        assert "ledger_schema='app'" in project.autogenerate()
        project.upgrade()
        project.check()
        execute(engine, "INSERT INTO message (id, status) VALUES (1, 'READY')")
        assert history(engine) == [("1", None, "READY", True)]
        engine.dispose()
