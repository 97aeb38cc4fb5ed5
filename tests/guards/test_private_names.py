"""Names of SQLAlchemy that are not public, and on which statekit stands.

When one of these tests fails with a new SQLAlchemy, the name has gone or means something else. Each says who uses it
and what to look at.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import sqlite3
import sys
import weakref
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, RootTransaction, TwoPhaseTransaction
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, persistence, session, unitofwork
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, QueuePool, StaticPool
from sqlalchemy.sql.base import CompileState
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.sql.lambdas import StatementLambdaElement
from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

from tests.guards.inbox import fill, message_class


@pytest.fixture
def message() -> Any:
    return message_class(table=None)


def test_the_compiler_dispatches_through_a_method_of_the_class() -> None:
    """``fence._wrap`` replaces it. Look at sqlalchemy/sql/visitors.py and ext/compiler.py."""
    assert callable(Update._compiler_dispatch)
    assert "_compiler_dispatch" in inspect.getsource(sa.sql.visitors)


def test_an_update_keeps_its_values_in_one_of_two_places(message: Any) -> None:
    """``fence._new_value`` reads both. Look at sqlalchemy/sql/dml.py, ``ValuesBase``."""
    table = message.__table__
    for update in (sa.update(table).values(status="x"), sa.update(table).ordered_values(("status", "x"))):
        values: Any = dict(getattr(update, "_ordered_values", None) or update._values)
        assert [getattr(key, "key", key) for key in values] == ["status"]


def test_the_parameter_of_a_set_clause_is_marked(message: Any) -> None:
    """``fence._new_value`` tells it from one in the WHERE by this. Look at sqlalchemy/sql/crud.py, ``_is_crud``."""
    compiled = sa.update(message.__table__).compile(column_keys=["status"])
    assert compiled.binds["status"]._is_crud


def test_the_statement_being_compiled_is_on_the_stack() -> None:
    """``fence._render_fence`` asks for it. Look at ``SQLCompiler.visit_update``."""
    assert '"selectable": update_stmt' in inspect.getsource(SQLCompiler.visit_update)


def test_where_is_rendered_after_set() -> None:
    """Only so does the fence find the parameter that SET made."""
    source = inspect.getsource(SQLCompiler.visit_update)
    assert source.index("_get_crud_params") < source.index("_where_criteria")


def test_a_parameter_without_a_type_can_be_given_one() -> None:
    """``fence._new_value`` does. Look at ``BindParameter._with_binary_element_type``."""
    parameter = sa.bindparam("x", "y", type_=sa.types.NULLTYPE)
    assert parameter.type._isnull
    assert isinstance(parameter._with_binary_element_type(sa.String()).type, sa.String)


def test_a_compiled_statement_can_be_made_again_from_its_attributes(message: Any) -> None:
    """``compiled.renew`` does so for a guard that comes late. Look at ``SQLCompiler.__init__``."""
    compiled = sa.update(message.__table__).compile(column_keys=["status"])
    for name in ("dialect", "statement", "cache_key", "column_keys", "for_executemany", "linting"):
        assert hasattr(compiled, name)
    assert {"cache_key", "column_keys", "for_executemany", "linting"} <= {
        *inspect.signature(SQLCompiler.__init__).parameters
    }


def test_a_flush_calls_execute_of_its_context_inside_of_the_transaction() -> None:
    """``Flush.take_over`` puts itself in its place. Look at ``Session._flush``."""
    source = inspect.getsource(session.Session._flush)
    assert source.index("dispatch.before_flush") < source.index("_begin()") < source.index("flush_context.execute()")
    assert source.index("flush_context.execute()") < source.index("finalize_flush_changes")


def test_a_flush_context_knows_what_it_writes() -> None:
    """``Flush._written`` asks it. Look at ``UOWTransaction.register_object``."""
    source = inspect.getsource(unitofwork.UOWTransaction)
    assert "self.mappers[mapper].add(state)" in source
    assert "self.states[state] = (isdelete, listonly)" in source


def test_a_short_count_names_the_table() -> None:
    """``Flush._explain_stale`` reads it. Look at ``persistence._emit_update_statements``."""
    source = inspect.getsource(persistence._emit_update_statements)
    assert "UPDATE statement on table '%s' expected to " in source


def test_what_is_equal_to_the_committed_value_is_not_written() -> None:
    """``Judging._is_unchanged`` counts on it. Look at ``persistence._collect_update_commands``."""
    source = inspect.getsource(persistence._collect_update_commands)
    assert "state.committed_state" in source
    assert "is_equal" in source


def test_a_session_knows_its_changed_new_and_deleted_objects() -> None:
    """``objects._before_flush`` asks it."""
    with Session() as empty:
        assert not empty._dirty_states
        assert not empty._new
        assert not empty._deleted


def test_a_mapper_knows_the_primary_key_of_each_of_its_tables(message: Any) -> None:
    """``watch.Watch`` asks it. Look at ``Mapper._configure_pks``."""
    assert list(sa.inspect(message)._pks_by_table[message.__table__]) == [message.__table__.c.id]


def test_the_unit_of_work_finds_rows_by_parameters_called_after_key_columns(message: Any) -> None:
    """``fence._is_of_a_flush`` knows its statements by that. Look at ``persistence._emit_update_statements``."""
    assert message.__table__.c.id._label == "message_id"
    assert "col == sql.bindparam(col._label, type_=col.type)" in inspect.getsource(persistence)


def test_a_statement_keeps_its_criteria_in_a_tuple_that_a_clone_may_replace(message: Any) -> None:
    """``fence._fenced`` puts text in parentheses there. Look at ``DMLWhereBase.where``."""
    statement = sa.update(message.__table__).where(sa.text("x"))
    clone = statement._clone()
    clone._where_criteria = ()
    assert len(statement._where_criteria) == 1


def test_the_stack_knows_the_other_tables_of_an_update() -> None:
    """``fence._new_value`` asks for them. Look at ``SQLCompiler.visit_update``."""
    assert '"correlate_froms": correlate_froms' in inspect.getsource(SQLCompiler.visit_update)


def test_a_mapper_knows_orphans_and_keys(message: Any) -> None:
    """``objects._without_orphans`` and ``Flush._replaces_a_deleted_row`` ask it."""
    mapper = sa.inspect(message)
    assert not mapper._delete_orphans
    obj = message(id=1)
    assert mapper._is_orphan(sa.inspect(obj)) is False
    assert mapper._identity_key_from_state(sa.inspect(obj))[1] == (1,)


# -- what statements are judged by (ring 3)


@pytest.mark.parametrize("construct", [Update, Insert, StatementLambdaElement])
def test_a_connection_executes_a_statement_through_a_method_of_its_class(
    construct: Any, message: Any, memory_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``statements._wrap`` replaces it. Look at ``Connection.execute`` and ``ClauseElement._execute_on_connection``.

    If it goes, look for another place that every execution of one statement passes, with its parameters and options.
    """
    table = message.__table__
    statement: Any = {
        Update: sa.update(table).values(status="x"),
        Insert: sa.insert(table).values(status="x"),
        StatementLambdaElement: sa.lambda_stmt(lambda: sa.update(table).values(status="x")),
    }[construct]
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(construct, "_execute_on_connection", lambda *args: called.append(args))
    with memory_engine.connect() as connection:
        connection.execute(statement, {"id": 1}, execution_options={"own": 1})
        ((of, on, parameters, options),) = called
    assert (of, on, list(parameters), options["own"]) == (statement, connection, [{"id": 1}], 1)
    assert set(inspect.signature(Connection._execute_clauseelement).parameters) == {
        "self",
        "elem",
        "distilled_parameters",
        "execution_options",
    }


def test_a_lambda_knows_the_statement_that_it_stands_for(message: Any) -> None:
    """``statements._wrap`` asks for it. Look at ``LambdaElement._resolved``."""
    table = message.__table__
    assert isinstance(sa.lambda_stmt(lambda: sa.update(table))._resolved, Update)


def test_a_statement_gives_what_it_was_compiled_to_and_its_own_parameters(
    message: Any, memory_engine: sa.Engine
) -> None:
    """``execution.CompiledUpdate`` asks for the first two items, and must find what is executed afterwards.

    Look at ``ClauseElement._compile_w_cache``, and at its call in ``Connection._execute_clauseelement``: the key in the
    cache is made of the arguments.
    """
    source = inspect.getsource(Connection._execute_clauseelement)
    for argument in (
        "dialect=dialect",
        "compiled_cache=compiled_cache",
        "column_keys=keys",
        "for_executemany=for_executemany",
        "schema_translate_map=schema_translate_map",
        "linting=self.dialect.compiler_linting | compiler.WARN_LINTING",
    ):
        assert argument in source
    assert "keys = sorted(distilled_parameters[0])" in source
    cache: dict[Any, Any] = {}
    found = []
    for state in ("x", "y"):
        compiled, extracted, *_ = (
            sa.update(message.__table__)
            .values(status=state)
            ._compile_w_cache(memory_engine.dialect, compiled_cache=cache, column_keys=[])  # type: ignore[arg-type]
        )
        assert isinstance(compiled, SQLCompiler)
        found.append((compiled, [parameter.value for parameter in extracted or ()]))
    assert found[0][0] is found[1][0]
    assert [values for _, values in found] == [["x"], ["y"]]


def test_a_compiled_statement_gives_the_values_of_its_parameters(message: Any) -> None:
    """``execution.CompiledUpdate.values`` asks. Look at ``SQLCompiler.construct_params`` and ``bind_names``.

    Without ``_check``, a parameter that has no value yet is no error; without ``escape_names``, names are those of
    ``bind_names``.
    """
    table = message.__table__
    statement = sa.update(table).where(table.c.id == sa.bindparam("no value")).values(status=sa.bindparam("a b", "x"))
    compiled = statement.compile(dialect=postgresql.psycopg.dialect())  # its driver could not take such a name
    named = compiled.construct_params({}, extracted_parameters=None, escape_names=False, _check=False)
    assert {bind.key: named[name] for bind, name in compiled.bind_names.items()} == {"a b": "x", "no value": None}
    named = compiled.construct_params({"a b": "y"}, extracted_parameters=None, escape_names=False, _check=False)
    assert named["a b"] == "y"


def test_a_parameter_gives_its_value_or_that_of_its_function() -> None:
    """``inserts.Row`` and ``upserts._Upsert`` ask for it. Look at ``BindParameter.effective_value``."""
    assert sa.bindparam("x", "y").effective_value == "y"
    assert sa.bindparam("x", callable_=lambda: "z").effective_value == "z"


@pytest.mark.parametrize("by_key", [False, True], ids=["with its WHERE", "by primary key"])
def test_an_orm_update_is_executed_by_a_plugin(
    message: Any, memory_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, by_key: bool
) -> None:
    """``statements.orm`` wraps it. Look at ``Session._execute_internal`` and ``orm_execute_statement``.

    When it returns, the UPDATE must be executed and objects in the session must have been given the new values.
    """
    fill(memory_engine, message, "x")
    plugin: Any = CompileState.plugins["orm", "update"]
    inner = plugin.orm_execute_statement
    seen: list[Any] = []

    def execute(cls: Any, session: Session, statement: Any, *args: Any, **kw: Any) -> Any:
        seen.extend([session, statement.is_update, sa.inspect(one).dict["status"]])
        result = inner(session, statement, *args, **kw)
        seen.append(sa.inspect(one).dict["status"])
        return result

    monkeypatch.setattr(plugin, "orm_execute_statement", classmethod(execute))
    with Session(memory_engine) as own:
        one = own.get_one(message, 1)
        if by_key:
            own.execute(sa.update(message), [{"id": 1, "status": "y"}])
        else:
            own.execute(sa.update(message).values(status="y"), execution_options={"synchronize_session": "evaluate"})
        assert seen == [own, True, "x", "y"]


def test_the_row_count_of_a_result_can_be_set(message: Any, memory_engine: sa.Engine) -> None:
    """``updates`` does so, for rows that were left out. Look at ``CursorResult.rowcount`` (a memoized property)."""
    message.metadata.create_all(memory_engine)
    for read_before in (True, False):
        with memory_engine.begin() as connection:
            result = connection.execute(sa.update(message.__table__).values(subject="x"))
            assert not read_before or result.rowcount == 0
            result.rowcount = 7
            assert result.rowcount == 7
    source = inspect.getsource(persistence._emit_update_statements)
    assert "c.rowcount" in source, "SQLAlchemy's own persistence code asks the result, and not the cursor"


def test_a_connection_knows_whether_it_is_in_autocommit(memory_engine: sa.Engine) -> None:
    """``savepoint.savepoint`` asks it: there, nothing can be taken back. Look at ``Connection._begin_nested_impl``."""
    with memory_engine.connect() as connection:
        assert connection._is_autocommit_isolation() is False
        connection.execution_options(isolation_level="AUTOCOMMIT")
        assert connection._is_autocommit_isolation() is True


def test_an_insert_keeps_what_it_inserts_in_one_of_three_places(message: Any) -> None:
    """``inserts.Inserting`` reads them. Look at sqlalchemy/sql/dml.py, ``ValuesBase``."""
    table = message.__table__
    insert = sa.insert(table)
    assert (insert._values, insert._multi_values, insert._select_names) == (None, (), None)
    values: Any = insert.values(status="x")._values
    assert {getattr(key, "key", key): value.value for key, value in values.items()} == {"status": "x"}
    several: Any = insert.values([{"status": "x"}, {"status": "y"}])._multi_values
    assert [[{getattr(k, "key", k): v for k, v in row.items()} for row in rows] for rows in several] == [
        [{"status": "x"}, {"status": "y"}]
    ]
    by_position: Any = insert.values([(1, "x", ""), (2, "y", "")])._multi_values
    assert [[list(getattr(row, "values", lambda row=row: row)()) for row in rows] for rows in by_position] == [
        [[1, "x", ""], [2, "y", ""]]
    ]
    from_select = insert.from_select([table.c.id, "status"], sa.select(table.c.id, table.c.status))
    names: Any = from_select._select_names
    assert [getattr(name, "key", name) for name in names] == ["id", "status"]
    assert from_select.select is not None


@pytest.mark.parametrize("dialect", [sqlite, postgresql])
def test_an_upsert_keeps_its_clause_after_the_values(message: Any, dialect: Any) -> None:
    """``upserts`` reads it, and ``fence._fenced_upsert``. Look at ``OnConflictClause`` in dialects/*/dml.py."""
    table = message.__table__
    insert = dialect.insert(table)
    assert insert._post_values_clause is None
    upsert = insert.on_conflict_do_update(
        index_elements=["id", table.c.subject],
        index_where=table.c.id > 0,
        set_={"status": "x", table.c.subject: insert.excluded.subject},
        where=table.c.id > 1,
    )
    (clause,) = [
        each
        for each in sa.sql.visitors.iterate(upsert._post_values_clause)
        if isinstance(each, dialect.dml.OnConflictDoUpdate)
    ]
    assert [getattr(element, "key", element) for element in clause.inferred_target_elements] == ["id", "subject"]
    assert str(clause.inferred_target_whereclause) == "message.id > :id_1"
    assert [getattr(key, "key", key) for key in dict(clause.update_values_to_set)] == ["status", "subject"]
    assert str(clause.update_whereclause) == "message.id > :id_1"
    (nothing,) = [
        each
        for each in sa.sql.visitors.iterate(insert.on_conflict_do_nothing()._post_values_clause)
        if isinstance(each, dialect.dml.OnConflictDoNothing)
    ]
    assert (nothing.inferred_target_elements, nothing.inferred_target_whereclause) == (None, None)
    assert insert.excluded.status.table.name == "excluded"


def test_a_postgresql_upsert_may_name_a_constraint(message: Any) -> None:
    """``upserts._Conflict`` reads it. Look at ``OnConflictClause`` in dialects/postgresql/dml.py."""
    upsert = postgresql.insert(message.__table__).on_conflict_do_nothing(constraint="one_each")
    clauses = [
        each for each in sa.sql.visitors.iterate(upsert._post_values_clause) if hasattr(each, "constraint_target")
    ]
    assert [clause.constraint_target for clause in clauses] == ["one_each"]


def test_types_that_do_the_same_have_the_same_key() -> None:
    """``execution.is_known`` compares them. Look at ``TypeEngine._static_cache_key``."""
    keys = [each._static_cache_key for each in (sa.String(20), sa.String(20), sa.String(30), sa.Enum("a", "b"))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_select_keeps_its_criteria_and_is_one_of_the_orm_by_its_attributes(message: Any) -> None:
    """``question.Question`` puts those of the UPDATE in, and takes the ORM's part out: it would add criteria.

    Look at ``Select._where_criteria`` and ``Executable._propagate_attrs``.
    """
    table = message.__table__
    select = sa.select(table.c.id)
    select._where_criteria = sa.update(message).where(message.id > 7)._where_criteria
    assert "WHERE message.id > :id_1" in str(select)
    orm_update = sa.update(message)
    assert orm_update._propagate_attrs["plugin_subject"].mapper is sa.inspect(message)
    assert sa.select(message.id)._propagate_attrs["compile_state_plugin"] == "orm"
    select._propagate_attrs = sa.util.immutabledict()
    assert not select._propagate_attrs


def test_the_persistence_code_brings_a_cache_of_its_own() -> None:
    """``Execution.is_persistence`` and ``Flush.uses`` know its statements by that option.

    Look at ``execution_options`` in ``persistence._emit_update_statements`` and ``_emit_insert_statements``.
    """
    for function in (persistence._emit_update_statements, persistence._emit_insert_statements):
        assert '{"compiled_cache": base_mapper._compiled_cache}' in inspect.getsource(function)


def test_orm_bulk_statements_say_which_table_they_are_about() -> None:
    """``statements._tables`` and ``inserts.Inserting`` ask: a class may be mapped to several tables.

    Look for ``_annotate`` in ``persistence._emit_update_statements`` and ``_emit_insert_statements``.
    """
    assert '"_emit_update_table": table' in inspect.getsource(persistence._emit_update_statements)
    assert '"_emit_insert_table": table' in inspect.getsource(persistence._emit_insert_statements)
    assert sa.insert(sa.table("x"))._annotate({"_emit_insert_table": 1})._annotations["_emit_insert_table"] == 1


def test_a_result_keeps_the_parameters_that_functions_have_filled(message: Any, memory_engine: sa.Engine) -> None:
    """``Inserting.judge_late`` reads defaults that are functions there. Look at ``_process_execute_defaults``."""
    table = sa.Table(
        "late",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("status", sa.String, default=lambda: "x"),
    )
    with memory_engine.begin() as connection:
        table.create(connection)
        result = connection.execute(sa.insert(table), [{"id": 1}, {"id": 2}])
        assert [each["status"] for each in result.context.compiled_parameters] == ["x", "x"]


def test_a_connection_calls_the_listeners_of_its_dispatcher_once(message: Any, memory_engine: sa.Engine) -> None:
    """``listeners`` calls them itself, and then has others in their place. Look at ``_invoke_before_exec_event``.

    The dispatcher must be an attribute of the instance, by which ``before_execute`` is asked for once an execution.
    """
    message.metadata.create_all(memory_engine)
    calls: list[Any] = []

    @sa.event.listens_for(memory_engine, "before_execute", retval=True)
    def listen(connection: Any, statement: Any, several: Any, one: Any, options: Any) -> Any:
        calls.append(options)
        return statement.values(subject="x"), several, one

    statement = sa.update(message.__table__)
    with memory_engine.connect() as connection:
        assert connection._has_events or memory_engine._has_events
        assert list(connection.dispatch.before_execute)
        options = statement._execution_options.merge_with(connection._execution_options, {"own": 1})
        changed, sets, *_ = connection._invoke_before_exec_event(statement, [{"id": 1}], options)
        assert "subject" in str(changed)
        assert list(sets) == [{"id": 1}]
        assert [each["own"] for each in calls] == [1]

        class Dispatch:
            asked = 0

            @property
            def before_execute(self) -> tuple[Any, ...]:
                self.asked += 1
                return ()

            def __getattr__(self, name: str) -> Any:
                return getattr(before, name)

        calls.clear()
        before = connection.dispatch
        connection.__dict__["dispatch"] = mine = Dispatch()
        # Beneath our own hook, which asks for them as well.
        connection._execute_clauseelement(sa.update(message.__table__).values(subject="y"), [], {})
    assert (mine.asked, calls) == (1, [])


def test_an_object_can_be_told_that_an_attribute_is_written(message: Any) -> None:
    """``statements.orm`` does so after ``bulk_save_objects()``. Look at ``InstanceState._commit``."""
    one = message(id=1, status="x")
    state = sa.inspect(one)
    assert "status" in state.committed_state
    state._commit(state.dict, ["status"])
    assert "status" not in state.committed_state
    assert {each.key for each in sa.inspect(message)._identity_key_props} == {"id"}


def test_a_statement_knows_what_it_returns(message: Any) -> None:
    """``updates`` asks: a result with rows has no row count. Look at ``UpdateBase._returning``."""
    table = message.__table__
    statement = sa.update(table).values(status="x")
    assert not statement._returning
    assert not statement._return_defaults
    assert statement.returning(table.c.id)._returning
    assert statement.return_defaults(table.c.id)._return_defaults


def test_a_compiled_statement_knows_its_ctes_and_which_of_them_write(message: Any) -> None:
    """``CompiledUpdate.writes_within`` asks. Look at ``SQLCompiler.ctes`` and ``Executable.is_dml``."""
    table = message.__table__
    for inner, writes in ((sa.select(table.c.id), False), (sa.delete(table).returning(table.c.id), True)):
        cte = inner.cte("ids")
        outer = sa.update(table).values(status="x").where(table.c.id.in_(sa.select(cte.c.id)))
        compiled = outer.compile(dialect=postgresql.dialect())
        assert [each.element.is_dml for each in compiled.ctes] == [writes]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_machine_asks_for_the_source_and_changes_the_state(awaited: bool) -> None:
    """``machine`` puts its own in their place. Look at ``Event._is_valid_source`` and ``Transition._change_state``."""
    from transitions import Event, Machine
    from transitions import Transition as Step
    from transitions.extensions.asyncio import AsyncEvent, AsyncMachine, AsyncTransition

    called: list[Any] = []

    class Watched:
        def _is_valid_source(self, state: Any) -> bool:
            called.append(state.name)
            return True

    class Changing:
        def _change_state(self, event_data: Any) -> Any:
            called.append((self.source, self.dest))
            return asyncio.sleep(0) if awaited else None

    event, step, machine = (AsyncEvent, AsyncTransition, AsyncMachine) if awaited else (Event, Step, Machine)
    made = type("Made", (machine,), {
        "event_cls": type("E", (Watched, event), {}), "transition_cls": type("T", (Changing, step), {})
    })(model=None, states=["A", "B"], initial="A", auto_transitions=False)  # fmt: skip
    made.add_transition("go", "A", "B")
    answer = made.events["go"].trigger(type("Model", (), {"state": "A"})())
    assert (asyncio.run(answer) if awaited else answer) is True
    assert called == ["A", ("A", "B")]


def test_a_transaction_and_a_savepoint_end_where_commits_looks(message: Any) -> None:
    """``commits`` wraps these. Look at ``RootTransaction._do_commit`` and ``Connection._savepoint_impl``."""
    assert list(inspect.signature(Connection._savepoint_impl).parameters)[1:] == ["name"]
    assert list(inspect.signature(Connection._rollback_to_savepoint_impl).parameters)[1:] == ["name"]
    assert "_do_commit" not in vars(TwoPhaseTransaction)
    with Session(sa.create_engine("sqlite://")) as one:
        connection = one.connection()
        assert connection._savepoint_impl().startswith("sa_savepoint_")
        transaction = one.get_transaction()
        assert transaction is one._transaction
        _, root, should_commit, _ = transaction._connections[connection]
        assert root is connection.get_transaction()
        assert should_commit


# -- what the ledger and the history stand on


def test_every_end_of_a_transaction_leads_to_one_method(
    memory_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ledger.ends`` wraps it. Look at ``RootTransaction._do_commit`` and ``_close_impl``.

    The database must have committed or rolled back by then, also where that failed. A savepoint and PREPARE must not
    lead there.
    """
    inner = RootTransaction._deactivate_from_connection
    ended: list[Any] = []

    def deactivate(transaction: RootTransaction) -> None:
        inner(transaction)
        ended.append((transaction.connection, transaction.is_active))

    monkeypatch.setattr(RootTransaction, "_deactivate_from_connection", deactivate)
    for how in ("commit", "rollback", "close", "close the connection", "invalidate", "fail"):
        ended.clear()
        connection = memory_engine.connect()
        transaction = connection.begin()
        connection.begin_nested().commit()
        connection.begin_nested().rollback()
        assert ended == []
        if how == "close the connection":
            connection.close()
        elif how == "invalidate":
            connection.invalidate()
            transaction.rollback()
        elif how == "fail":
            with monkeypatch.context() as patch:
                patch.setattr(connection.dialect, "do_commit", lambda _: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    transaction.commit()
        else:
            getattr(transaction, how)()
        assert ended[0] == (connection, False), how
        connection.close()
    # The text of the module: an on_commit() of this process may have wrapped the methods.
    text = inspect.getsource(sys.modules[RootTransaction.__module__])
    text = text[text.index("class RootTransaction(") : text.index("class NestedTransaction(")]
    for name, does in (("_do_commit", "_connection_commit_impl"), ("_close_impl", "_connection_rollback_impl")):
        source = text[text.index(f"def {name}(") :]
        assert source.index(f"{does}()") < source.index("_deactivate_from_connection()")
    assert "_deactivate" not in inspect.getsource(TwoPhaseTransaction.prepare)


def test_a_connection_takes_an_attribute_and_a_finalizer(memory_engine: sa.Engine) -> None:
    """``ledger.ends.wait`` gives it both. Look for ``__slots__`` and ``__del__`` in sqlalchemy/engine/base.py."""
    connection = memory_engine.connect()
    connection.__dict__["_statekit"] = 1
    gone: list[int] = []
    weakref.finalize(connection, gone.append, 1).atexit = False
    connection.close()
    del connection
    gc.collect()
    assert gone == [1]


def test_what_execution_options_make_of_an_engine_shares_its_dialect(memory_engine: sa.Engine) -> None:
    """``ledger.attach`` knows an engine by its dialect, and finds the one behind. Look at ``OptionEngineMixin``."""
    made = memory_engine.execution_options(own=1)
    assert made.dialect is memory_engine.dialect
    assert made._proxied is memory_engine
    assert not hasattr(memory_engine, "_proxied")
    assert create_async_engine("sqlite+aiosqlite://").sync_engine.dialect is not memory_engine.dialect


@pytest.mark.parametrize("pool", [NullPool, QueuePool, AsyncAdaptedQueuePool], ids=lambda pool: pool.__name__)
def test_a_pool_can_be_made_of_what_another_one_makes_its_connections_with(pool: Any) -> None:
    """``ledger.stores`` makes the ledger's own so. Look at ``Pool._creator``, ``Pool.__init__`` and ``Pool.recreate``.

    The listeners of the first one must hear of the connections of the second one, and an Engine must be made of a pool,
    a dialect and a URL alone.
    """
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    heard: list[str] = []
    for name in ("connect", "checkout", "checkin"):
        sa.event.listen(engine, name, lambda *args, name=name: heard.append(name))
    known: Any = engine.pool
    assert {"dialect", "_dispatch"} <= {*inspect.signature(Pool.__init__).parameters}
    own = sa.Engine(pool(known._creator, dialect=engine.dialect, _dispatch=known.dispatch), engine.dialect, engine.url)
    if pool is not AsyncAdaptedQueuePool:  # whose queue wants an event loop
        with own.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1
        assert heard == ["connect", "checkout", "checkin"]
        own.dispose()
    # A new pool of the same engine keeps the listeners of ``ledger.usage``.
    heard.clear()
    engine.dispose()
    with engine.connect():
        pass
    assert heard == ["connect", "checkout", "checkin"]


def test_it_is_known_whether_something_can_be_awaited_here() -> None:
    """``ledger.stores.Server`` asks. Look at ``in_greenlet`` in sqlalchemy/util/concurrency.py (no public name)."""

    async def ask() -> tuple[bool, bool]:
        return in_greenlet(), await greenlet_spawn(in_greenlet)

    assert in_greenlet() is False
    assert asyncio.run(ask()) == (False, True)


def test_a_session_knows_its_connection_by_the_engine_and_by_the_connection(memory_engine: sa.Engine) -> None:
    """``watch.written_on`` looks for both. Look at ``SessionTransaction._connection_for_bind``.

    The outermost transaction must know a connection that was first asked for in a savepoint.
    """
    with Session(memory_engine) as one:
        one.begin()
        with one.begin_nested():
            connection = one.connection()
        transaction: Any = one.get_transaction()
        for bind in (memory_engine, connection):
            assert transaction._connections[bind][0] is connection
    with memory_engine.connect() as connection, Session(connection) as one:
        assert one.connection() is connection
        transaction = one.get_transaction()
        assert transaction._connections[connection][0] is connection


def test_a_session_may_choose_a_connection_for_each_object() -> None:
    """``Flush._connections`` and ``Flush._where`` ask. Look for ``connection_callable`` in orm/persistence.py."""
    with Session() as one:
        assert one.connection_callable is None
    assert "uowtransaction.session.connection_callable" in inspect.getsource(persistence)


def test_an_insert_knows_what_it_returns_and_whether_it_fetches_the_key(message: Any) -> None:
    """``new_rows`` asks it for the way to the keys. Look at ``UpdateBase.return_defaults`` and ``Insert.inline``."""
    insert = sa.insert(message.__table__)
    assert (insert._returning, insert._return_defaults, insert._inline) == ((), False, False)
    assert insert.returning(message.__table__.c.id)._returning
    assert insert.return_defaults()._return_defaults
    assert insert.inline()._inline


@pytest.mark.parametrize("scalars", [False, True])
def test_a_result_can_be_given_its_rows_back(message: Any, memory_engine: sa.Engine, scalars: bool) -> None:
    """``new_rows.run`` reads the keys and does so. Look at ``CursorResult._rewind``.

    Types must not convert a value a second time.
    """

    class Twice(sa.TypeDecorator[str]):
        impl = sa.String
        cache_ok = True

        def process_result_value(self, value: Any, dialect: Any) -> str:
            return f"{value}!"

    table = sa.Table("given", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", Twice))
    with memory_engine.begin() as connection:
        table.create(connection)
        insert = sa.insert(table).returning(table.c.text, table.c.id)
        result = connection.execute(insert, [{"text": "x"}, {"text": "y"}])
        rows = result.fetchall()
        assert [row._mapping[table.c.id] for row in rows] == [1, 2]
        result._rewind(rows)
        found: Any = result.scalars().all() if scalars else [tuple(row) for row in result]
    assert found == (["x!", "y!"] if scalars else [("x!", 1), ("y!", 2)])


def test_a_table_without_the_annotations_of_a_statement_is_the_table(message: Any) -> None:
    """``inserts.Inserting`` asks for it. Look at ``SupportsAnnotations._deannotate``."""
    table = message.__table__
    annotated = table._annotate({"own": 1})
    assert annotated._annotations["own"] == 1
    assert not annotated._deannotate()._annotations
    assert annotated._deannotate().c.id is table.c.id
    assert table._deannotate() is table


def test_a_pool_says_how_many_connections_it_may_have() -> None:
    """``bulk.pressure`` asks whether all are in use. Look at sqlalchemy/pool/impl.py, ``QueuePool``."""
    pool = QueuePool(lambda: None, pool_size=3, max_overflow=4)  # type: ignore[arg-type, return-value]
    assert (pool.size(), pool._max_overflow, pool.checkedout()) == (3, 4, 0)


@pytest.mark.parametrize("dialect", [postgresql.asyncpg.dialect(), postgresql.psycopg.dialect(), postgresql.dialect()])
def test_a_copy_of_a_dialect_writes_parameters_in_another_way(dialect: Any, message: Any) -> None:
    """``bulk.condition`` has texts without a driver's ways. Look at ``PGCompiler`` and ``DefaultDialect``."""
    plain = copy.copy(dialect)
    plain.paramstyle, plain.positional, plain._bind_typing_render_casts = "named", False, False
    plain.identifier_preparer = plain.preparer(plain)
    where = sa.and_(message.id == 7, message.subject.like("100%"))
    assert str(where.compile(dialect=plain)) == "message.id = :id_1 AND message.subject LIKE :subject_1"
    literal = where.compile(dialect=plain, compile_kwargs={"literal_binds": True})
    assert str(literal) == "message.id = 7 AND message.subject LIKE '100%'"
    assert not literal.binds
    assert "%(" in str(where.compile(dialect=dialect)) or "$1" in str(where.compile(dialect=dialect))


def test_brackets_without_an_operator_stay_within_others(message: Any) -> None:
    """``bulk.condition`` keeps a text with OR together by it. Look at ``BooleanClauseList._construct``."""

    class Brackets(sa.sql.elements.Grouping[Any]):
        inherit_cache = True
        operator = None

    where = sa.and_(message.id == 1, Brackets(sa.and_(sa.text("a OR b"), message.id == 2)))
    assert str(where) == "message.id = :id_1 AND (a OR b AND message.id = :id_2)"


def test_a_connection_of_aiosqlite_has_one_of_pythons_own() -> None:
    """``bulk.limits`` interrupts it from a thread, where nothing can be awaited."""
    aiosqlite = pytest.importorskip("aiosqlite")

    async def body() -> bool:
        async with aiosqlite.connect(":memory:") as connection:
            return isinstance(connection._conn, sqlite3.Connection)

    assert asyncio.run(body())


def test_there_is_a_way_to_every_registry() -> None:
    """``cli.resume`` looks for the classes of a table. Look at sqlalchemy/orm/mapper.py."""
    from sqlalchemy.orm.mapper import _all_registries

    message = message_class(table=None)
    assert message.registry in _all_registries()
