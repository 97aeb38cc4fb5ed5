"""Guard, question and fence agree on every move of every table: what one refuses, the others do not write."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, mapped_column

from statekit import IllegalTransition, TransitionTable, guard, operation
from tests.guards.inbox import new_base, stored, unguarded
from tests.support.databases import empty

names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda name: name == name.strip() and name != "*"
)
QUOTES = ["it's", 'a "b"', "100 %", "%(x)s", ":x", "a\\b", "__[POSTCOMPILE_x]", "🎉", "NULL", "--", "?"]


@st.composite
def tables(draw: st.DrawFn) -> TransitionTable:
    """Any table, of states with any text, NULL among them."""
    any_state = names | st.sampled_from(QUOTES)
    states = draw(
        st.lists(draw(st.sampled_from([any_state, any_state | st.none()])), min_size=2, max_size=5, unique=True)
    )
    pairs = [(source, target) for source in states for target in states if source != target]
    return TransitionTable(*draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=6, unique=True)))


@pytest.mark.parametrize("engine", ["sqlite", "psycopg", "psycopg2"], indirect=True)
@given(table=tables())
def test_on_every_move(engine: sa.Engine, table: TransitionTable) -> None:
    class Message(new_base()):  # type: ignore[misc]
        __tablename__ = "message"
        id = mapped_column(sa.Integer, primary_key=True)
        status = mapped_column(sa.String(20), nullable=True)

    guard(Message.status, table)
    empty(engine)
    Message.metadata.create_all(engine)
    states = [*table.states, "none of them"]
    moves = [(source, target) for source in states for target in states]
    rows = [{"id": number, "status": source} for number, (source, _) in enumerate(moves)]
    refused = Counter(pair for pair in moves if pair[0] != pair[1] and not table.allows(*pair))
    expected = [target if source == target or table.allows(source, target) else source for source, target in moves]

    # Rows are found by a parameter of any name, and by one that is called as in the statements of a flush: the fence
    # has a form of its own for those.
    for key in ("row", "message_id"):
        with engine.begin() as connection:
            connection.execute(sa.delete(Message.__table__))
            connection.execute(sa.insert(unguarded(Message)), rows)
        statement = sa.update(Message.__table__).where(Message.__table__.c.id == sa.bindparam(key))
        statement = statement.values(status=sa.bindparam("target"))
        parameters = [{key: number, "target": target} for number, (_, target) in enumerate(moves)]
        with engine.begin() as connection, pytest.raises(IllegalTransition) as caught:
            connection.execute(statement, parameters)
        assert caught.value.pairs == refused, key
        assert stored(engine, Message) == [source for source, _ in moves], key
        with engine.begin() as connection, operation("Moves", on_illegal="skip") as op:
            connection.execute(statement, parameters)
        assert stored(engine, Message) == expected, key
        assert op.blocked == refused, key

    with engine.begin() as connection:
        connection.execute(sa.delete(Message.__table__))
        connection.execute(sa.insert(unguarded(Message)), rows)
    verdicts: list[Any] = []
    with Session(engine) as session:
        for number, (_, target) in enumerate(moves):
            message = session.get_one(Message, number)
            message.status = target
            try:
                session.flush()
            except IllegalTransition:
                session.expire(message)
            verdicts.append(message.status)
    assert verdicts == expected
