"""Which rows a bulk transition moves, and the queries that find, count and hold them."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute, Session

from statekit.bulk import condition
from statekit.bulk.transient import was_ended
from statekit.errors import StatekitError, show_states
from statekit.guards.attach import guard_on
from statekit.guards.current import asking, lock_database
from statekit.guards.guard import Guard
from statekit.guards.statements.by_keys import Key


class Selection:
    """The rows of a guarded column that are to move to a target.

    Without a condition they are all rows in a state from which the target is allowed. With one, they are those of the
    rows that it finds; the others that it finds are refused, and looked at once only.

    Args:
        attribute: a guarded attribute or column.
        target: the state, as the attribute has it or as text.
        where: the condition; None for none.
        call: what messages call the function that was called.

    Attributes:
        guard: of the column.
        table: the table of the column.
        key: its primary key, as a query names it.
        mapper: of the class whose attribute was given; None for a column.
        target: the text that the database stores for it.
        value: the target as the column's type binds it.
        model: the class whose attribute was given, whose rows alone are moved; of a column, the guard's.
        where: the condition.
        passes: whether rows move as well that must not: the job was begun in "observe" or inside of an override.

    Raises:
        StatekitError: the attribute has no guard; the table has no primary key; no state of that name; nothing may ever
            move there; or the condition is none.
    """

    def __init__(self, attribute: Any, target: Any, where: Any, call: str) -> None:
        if isinstance(attribute, type | str):
            name = getattr(attribute, "__name__", "Message")
            raise StatekitError(f"{call}(…, {attribute!r}): an attribute is asked for, such as {name}.status.")
        guard = guard_on(attribute)
        if guard is None:
            raise StatekitError(
                f"{call}(…, {attribute}): that has no guard. Declare a transition table for it: guard({attribute}, "
                "TransitionTable(…))."
            )
        self.guard: Guard = guard
        self.table: Any = guard.column.table
        self.mapper = attribute.parent.mapper if isinstance(attribute, QueryableAttribute) else None
        name = f"{call}(…, {guard.model}.{guard.attribute})"
        columns = list(self.table.primary_key)
        if not columns:
            raise StatekitError(f"{name}: the table {self.table.fullname} has no primary key to tell its rows apart.")
        self.target = guard.states.find(target, name)
        self.value = guard.states.values[self.target]
        self.sources = [source for source, to in guard.moves if to == self.target and source != self.target]
        if not self.sources:
            raise StatekitError(
                f"{name}: no transition of the table leads to {self.target}. Its targets: "
                f"{show_states(dict.fromkeys(to for _, to in guard.moves))}."
            )
        self.key: list[Any] = columns
        self.column: Any = guard.column
        self._start: Any = self.table
        self.model = guard.model if self.mapper is None else self.mapper.class_.__name__
        if self.mapper is not None:
            entity = attribute.parent.entity
            if attribute.parent.is_aliased_class:
                raise StatekitError(f"{name}: that is an alias; give the attribute of the class itself.")
            if not isinstance(self.mapper.persist_selectable, sa.Table | sa.Join):
                raise StatekitError(
                    f"{name}: the class is mapped to a query, whose rows nobody can hold. Give the column of the table "
                    f"beneath it: {self.table.name}.c.{guard.column.key}."
                )
            self.key = [getattr(entity, self.mapper.get_property_by_column(each).key) for each in columns]
            self.column = getattr(entity, attribute.key)
            self._start = entity
        self._plain_start = self.table if self.mapper is None else self.mapper.selectable
        self.passes = False
        self.where = None if where is None else self._in_its_own_query(condition.checked(where, self.table))

    def _in_its_own_query(self, where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        """Return a condition that names other tables as one that asks whether there is such a row.

        Joined, a row would be found once for each row of the other table, and a LIMIT would count all of those.
        """
        mappers = () if self.mapper is None else (self.mapper, *self.mapper.with_polymorphic_mappers)
        own = {self.table, *(table for mapper in mappers for table in mapper.tables)}
        froms = sa.select(sa.literal_column("1")).where(where).get_final_froms()
        if all(each in own for each in froms):
            return condition.in_brackets(where)
        condition.check_joined(where, self._plain_start, self.table)
        return sa.exists(sa.select(sa.literal_column("1")).where(where).correlate(*own))

    def rendered(self, dialect: Any) -> condition.Rendered | None:
        """Return the condition as text, or None if there is none."""
        return None if self.where is None else condition.rendered(self.where, self._plain_start, dialect)

    def go_on_with(self, sql: str | None, job: str) -> None:
        """Take the condition with which a job was begun.

        Args:
            sql: as text; None where it could not be kept.
            job: the token of the job.

        Raises:
            StatekitError: it could not be kept.
        """
        if sql is None:
            raise StatekitError(
                f"job={job!r} was begun with a condition whose values have no form in SQL: give it again, where=…."
            )
        self.where = condition.from_text(sql)

    # -- queries

    def count(self, session: Session) -> Counter[str | None]:
        """Return how many rows are in which state, of those that the condition finds and that are not at the target."""
        states = self.guard.states
        if self.where is None:
            found = self._is_in(self.sources)
        else:
            found = sa.and_(self.column.is_distinct_from(self.value), self.where)
        state = states.select(self.column).label("statekit_state")
        query: Any = sa.select(state, sa.func.count()).select_from(self._start).where(found).group_by(self.column)
        return Counter({states.selected(value): number for value, number in self._execute(session, query).all()})

    def finds_the_same(self, session: Session, sql: str, counted: Counter[str | None]) -> bool:
        """Return whether the condition as text counts the same rows: SQLAlchemy writes some values wrongly into SQL.

        Args:
            sql: the text.
            counted: what :meth:`count` has returned.
        """
        other = copy.copy(self)
        other.where = condition.from_text(sql)
        try:
            # An error in a transaction of PostgreSQL's would end that.
            is_sqlite = self.connection(session).dialect.name == "sqlite"
            with nullcontext() if is_sqlite else session.begin_nested():
                return other.count(session) == counted
        except sa.exc.SQLAlchemyError as error:
            if was_ended(error):
                raise
            return False

    def may_move(self, state: str | None) -> bool:
        """Return whether rows in a state are moved: legally, or because the mode lets them pass."""
        return state in self.sources or self.passes

    def refused(self, session: Session, source: str | None, number: int) -> list[Key]:
        """Return the primary keys of some rows that are in a state and are refused."""
        query: Any = sa.select(*self.key).select_from(self._start).where(self._is_in([source]))
        query = query if self.where is None else query.where(self.where)
        return [tuple(row) for row in self._execute(session, query.order_by(*self.key).limit(number))]

    def claim(
        self, session: Session, number: int, after: Key | None, *, waits: bool
    ) -> tuple[dict[str | None, list[Key]], Key | None]:
        """Hold the next rows until the transaction ends.

        Args:
            number: how many at most.
            after: the primary key after which to look; None to look from the first row on.
            waits: whether to wait for rows that somebody else holds, instead of leaving them out.

        Returns:
            The primary keys by state, and the last one of all.
        """
        states = self.guard.states
        query: Any = sa.select(states.select(self.column).label("statekit_state"), *self.key).select_from(self._start)
        query = query.where(self._movable()).order_by(*self.key).limit(number)
        if after is not None:
            query = query.where(_is_after(self.key, after))
        connection = self.connection(session)
        if connection.dialect.name == "sqlite":
            lock_database(asking(connection), self.table)  # there are no locks on rows
            query = query.where(*(each.is_not(None) for each in self.key))  # which a primary key may be there
        else:
            query = query.with_for_update(key_share=True, skip_locked=not waits, of=self.table)
        by_value: defaultdict[Any, list[Key]] = defaultdict(list)
        last: Key | None = None
        for value, *key in self._execute(session, query):
            last = tuple(key)
            by_value[value].append(last)
        rows: dict[str | None, list[Key]] = {}
        for value, keys in by_value.items():  # what a state is called is asked once, and not for each row
            rows.setdefault(states.selected(value), []).extend(keys)
        return rows, last

    def is_left(self, session: Session) -> bool:
        """Return whether a row is still to move, held by somebody or not."""
        query: Any = sa.select(sa.literal_column("1")).select_from(self._start).where(self._movable()).limit(1)
        return self._execute(session, query).first() is not None

    def connection(self, session: Session) -> sa.Connection:
        """Return the session's connection for the table, which everything in the session uses from then on.

        A session may send reads to another server than writes; what is read here has to be held where it is written.
        """
        bind = self.bind(session)
        session.get_bind = lambda *args, **options: bind  # type: ignore[method-assign]
        return session.connection()

    def bind(self, session: Session) -> sa.Engine | sa.Connection:
        """Return where the session writes the table.

        Raises:
            StatekitError: to several databases.
        """
        if any(each.__name__ == "ShardedSession" for each in type(session).__mro__):
            raise StatekitError(
                f"{type(session).__name__}: a job counts the rows of one database. Give the Engine of a shard, or a "
                "sessionmaker for it, and begin a job for each."
            )
        return session.get_bind(**self.bind_arguments)

    @property
    def bind_arguments(self) -> dict[str, Any]:
        """What a session is to find its engine by."""
        arguments = {"clause": sa.update(self.table)}
        return arguments if self.mapper is None else {"mapper": self.mapper, **arguments}

    def _execute(self, session: Session, query: Any) -> Any:
        self.connection(session)
        return session.execute(query)

    def _movable(self) -> sa.ColumnElement[bool]:
        if self.passes and self.where is not None:
            return sa.and_(self.column.is_distinct_from(self.value), self.where)
        found = self._is_in(self.sources)
        return found if self.where is None else sa.and_(found, self.where)

    def _is_in(self, states: Sequence[str | None]) -> sa.ColumnElement[bool]:
        values = self.guard.states.values
        known = [values[state] for state in states if state is not None and state in values]
        parts: list[sa.ColumnElement[bool]] = [self.column.in_(known)] if known else []
        parts += [self.column.is_(None)] if None in states else []
        # What is no state of the table has no value that the type binds; the database compares what it stores.
        parts += [
            sa.cast(sa.type_coerce(self.column, sa.String()), sa.Text()) == state
            for state in states
            if state is not None and state not in values
        ]
        return sa.or_(*parts)


def _is_after(key: Sequence[Any], after: Key) -> sa.ColumnElement[bool]:
    if len(key) == 1:
        return key[0] > sa.bindparam(None, after[0], key[0].type, unique=True)  # type: ignore[no-any-return]
    values = [sa.bindparam(None, part, each.type, unique=True) for part, each in zip(after, key, strict=True)]
    return sa.tuple_(*key) > sa.tuple_(*values)
