"""A ready test of a model's every edge."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import QueryableAttribute, Session

from statekit.errors import IllegalTransition, Pair, StatekitError, TransitionRefused, show_state, show_states
from statekit.guards import current
from statekit.guards.asking import watch_of
from statekit.guards.attach import guard_on
from statekit.guards.guard import Guard
from statekit.guards.watch import Watch
from statekit.observe.operation import operation
from statekit.testing.placing import in_state, start_value

_Outcome = tuple[IllegalTransition | TransitionRefused | None, bool]


class _Given:
    """An attribute of a model as one of another class, whose objects give it as well: they hold no value for it."""

    def __init__(self, attribute: QueryableAttribute[Any]) -> None:
        self._attribute = attribute

    def __get__(self, obj: object, owner: type) -> QueryableAttribute[Any]:
        return self._attribute


class EdgeTests:
    """Test a guarded attribute from every state to every other one, and every state as a start; to be subclassed.

    A legal move must be written, by an assignment and by an UPDATE statement. An illegal one must leave the row as it
    is, and raise unless the guard's mode is "skip"; in "observe" it must be let through and counted. It asks the guard,
    the fence and, where the database has one, the trigger: a table that a trigger disagrees with fails here.

    The tests take a fixture ``session``, which gives a ``Session`` on a database with the model's table. Define it in
    your ``conftest.py``, or in the class.

    Attributes:
        attribute: the guarded attribute, such as ``Message.status``.

    Raises:
        TypeError: at its definition, if a subclass lacks ``attribute`` or ``make``, or the attribute has no guard.

    A whole test module::

        class TestMessageStatus(EdgeTests):
            attribute = Message.status

            def make(self):
                return Message(author="Ada")
    """

    attribute: ClassVar[QueryableAttribute[Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        attribute = getattr(cls, "attribute", None)
        if not cls.__name__.startswith("Test") and (attribute is None or cls.make is EdgeTests.make):
            return  # for others to derive from
        if attribute is None or not isinstance(attribute, QueryableAttribute) or guard_on(attribute) is None:
            raise TypeError(
                f"{cls.__name__}.attribute is {attribute}, which has no guard; allowed is a guarded attribute of a "
                "mapped class, such as attribute = Message.status."
            )
        if cls.make is EdgeTests.make:
            raise TypeError(f"{cls.__name__} lacks make(): define it, to return a new object of the model.")
        cls.attribute = _Given(attribute)  # type: ignore[assignment]

    def make(self) -> Any:
        """Return a new object of the model, with everything but the state."""
        raise NotImplementedError

    def prepare(self, obj: Any, source: Any, target: Any) -> None:
        """Make an object fit for a legal move, before it is made; for those with conditions.

        Args:
            obj: the object, which is in the source.
            source: the state that it is in, as the attribute gives it.
            target: the state that it is to enter.
        """

    def move(self, obj: Any, source: Any, target: Any) -> None:
        """Make a legal move by something else than an assignment, such as an event with arguments.

        Args:
            obj: the object, which is in the source and prepared.
            source: the state that it is in, as the attribute gives it.
            target: the state that it is to enter.
        """
        setattr(obj, type(self).attribute.key, target)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Give each test its states; called by pytest."""
        if getattr(type(self), "attribute", None) is None:
            return
        texts = list(self._guard().states.values)
        if "edge" in metafunc.fixturenames:
            edges = list(itertools.permutations(texts, 2))
            metafunc.parametrize("edge", edges, ids=["-".join(map(show_state, edge)) for edge in edges])
        if "start" in metafunc.fixturenames:
            metafunc.parametrize("start", texts, ids=map(show_state, texts))

    def test_an_assignment(self, session: Session, edge: Pair) -> None:
        """An object moves by assignment and flush where the table allows it, and only there."""
        source, target = map(self._value, edge)
        obj = in_state(session, self._made(), source, self._key())
        if edge in self._guard().legal:
            self.prepare(obj, source, target)
            session.flush()
            outcome = self._attempt(session, lambda: self.move(obj, source, target))
        else:
            outcome = self._attempt(session, lambda: setattr(obj, self._key(), target))
        self._check(session, obj, edge, outcome)

    def test_a_statement(self, session: Session, edge: Pair) -> None:
        """A row moves by an UPDATE statement where the table allows it, and only there."""
        source, target = map(self._value, edge)
        obj = in_state(session, self._made(), source, self._key())
        watch = self._watch(obj)
        key = zip(watch.primary_key, watch.row_key(sa.inspect(obj)), strict=True)
        statement = sa.update(watch.table).where(*(column == part for column, part in key))
        statement = statement.values({watch.column: target})
        binding = {"mapper": watch.mapper}
        outcome = self._attempt(session, lambda: session.execute(statement, bind_arguments=binding))
        self._check(session, obj, edge, outcome)

    def test_a_start(self, session: Session, start: str | None) -> None:
        """A new row starts in an initial state, and in no other."""
        guard, obj = self._guard(), self._made()
        setattr(obj, self._key(), start_value(guard, start))
        error, observed = self._attempt(session, lambda: session.add(obj))
        shown = f"a new {guard.model} in {show_state(start)}"
        if start in guard.initial:
            assert error is None, f"{shown} was refused: {error}"
            now = self._row(session, obj)
            assert now == start, f"{shown} was not written: the row is in {show_state(now)}"
        elif guard.mode == "observe" and error is None:
            assert observed, f"{shown} was inserted and not observed"
        else:
            assert error is not None, f"{shown} was inserted; allowed: {show_states(guard.initial)}"

    def _made(self) -> Any:
        obj, class_ = self.make(), type(self).attribute.parent.class_
        if not isinstance(obj, class_):
            raise TypeError(f"{type(self).__name__}.make() has returned {obj!r}; allowed is a new {class_.__name__}.")
        return obj

    def _attempt(self, session: Session, write: Callable[[], object]) -> _Outcome:
        with operation(type(self).__name__) as op:
            try:
                with session.begin_nested():
                    write()  # and flushed with the end of the block
            except (IllegalTransition, TransitionRefused) as error:
                return error, bool(op.observed)
        return None, bool(op.observed)

    def _check(self, session: Session, obj: Any, edge: Pair, outcome: _Outcome) -> None:
        __tracebackhide__ = True
        guard, shown = self._guard(), " → ".join(map(show_state, edge))
        error, observed = outcome
        now = self._row(session, obj)
        if edge in guard.legal:
            hint = ""
            if isinstance(error, TransitionRefused):
                hint = " Make the object fit in prepare(), or call the event in move()."
            assert error is None, f"{shown} was refused, and the table allows it: {error}{hint}"
            assert now == edge[1], f"{shown} was not written: the row is in {show_state(now)}"
        elif guard.mode == "observe" and error is None:
            assert observed, f"{shown} is illegal, and was not observed"
        else:
            assert now == edge[0], f"{shown} is illegal, and the row is in {show_state(now)}"
            assert error is not None or guard.mode == "skip", f"{shown} is illegal, and nothing was raised"

    def _row(self, session: Session, obj: Any) -> str | None:
        watch, state = self._watch(obj), sa.inspect(obj)
        key = watch.row_key(state)
        connection = session.connection(bind_arguments={"mapper": watch.mapper})
        rows = current.read(connection, watch, [key], lock=False)
        if key not in rows:
            raise StatekitError(f"{watch.model}{key}: the row is gone.")
        return rows[key]

    def _guard(self) -> Guard:
        guard = guard_on(type(self).attribute)
        assert guard is not None
        return guard

    def _key(self) -> str:
        return type(self).attribute.key

    def _value(self, text: str | None) -> Any:
        return self._guard().states.values[text]

    def _watch(self, obj: Any) -> Watch:
        return watch_of(obj, self._key())[0]
