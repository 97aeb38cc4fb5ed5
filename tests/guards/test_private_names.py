"""Names of SQLAlchemy that are not public, and on which statekit stands.

When one of these tests fails with a new SQLAlchemy, the name has gone or means something else. Each says who uses it
and what to look at.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, persistence, session, unitofwork
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Update

from tests.guards.inbox import message_class


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
