"""Events of models of every shape: what is inherited, which type the column has, and what states are called."""

from __future__ import annotations

import enum
import inspect
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, Session, configure_mappers, mapped_column

import statekit
from statekit import (
    Guarded,
    IllegalTransition,
    StatekitError,
    TableError,
    Transition,
    TransitionRefused,
    TransitionTable,
    counts,
    guard,
)
from tests.support.databases import all_sync_backends

SHUT = TransitionTable(Transition("OPEN", "SHUT", "shut"), initial="OPEN")


def round_trip(engine: sa.Engine, obj: Any, *events: str, attribute: str = "state") -> Any:
    """Insert an object, call events on it, each in a transaction of its own, and return what its row then holds."""
    type(obj).metadata.create_all(engine)
    with Session(engine) as session:
        session.add(obj)
        session.commit()
        for name in events:
            assert getattr(obj, name)() is True
            session.commit()
        session.expire_all()
        return getattr(obj, attribute)


class TestASubclass:
    @pytest.fixture(params=["single", "joined"])
    def classes(self, request: pytest.FixtureRequest, base: Any) -> Any:
        """A class, one derived from it with a body of its own, and one derived from that with none."""

        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str] = mapped_column(default="door")
            state: Mapped[str] = mapped_column(default="OPEN")
            by: Mapped[str | None]
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "door"}
            __transitions__ = {
                "state": TransitionTable(Transition("OPEN", "SHUT", "shut", conditions="may_shut"), initial="OPEN")
            }

            def may_shut(self) -> bool:
                return True

            @statekit.event
            def shut(self, by: str) -> None:
                self.by = f"{self.by or ''}door:{by}"

        own: dict[str, Any] = {}
        if request.param == "joined":
            own = {"__tablename__": "gate", "id": mapped_column(sa.ForeignKey("door.id"), primary_key=True)}

        class GateBody:
            def may_shut(self) -> bool:
                return self.by != "stuck"  # type: ignore[attr-defined, no-any-return]

        def shut(self: Any, by: str) -> None:
            super(gate, self).shut(by)
            self.by = f"{self.by} gate:{by}@{self.state}"

        gate: Any = type(
            "Gate",
            (GateBody, Door),
            {**own, "__mapper_args__": {"polymorphic_identity": "gate"}, "shut": statekit.event(shut)},
        )

        class Wicket(gate):
            __mapper_args__ = {"polymorphic_identity": "wicket"}

        return Door, gate, Wicket

    @all_sync_backends
    def test_calls_the_body_of_its_parent_by_super_and_moves_once(self, engine: sa.Engine, classes: Any) -> None:
        door, gate, wicket = classes
        door.metadata.create_all(engine)
        with Session(engine) as session:
            rows = [door(), gate(), wicket()]
            session.add_all(rows)
            session.commit()
            assert [each.shut("Ada") for each in rows] == [True, True, True]
            session.commit()
            assert [(each.state, each.by) for each in rows] == [
                ("SHUT", "door:Ada"),
                ("SHUT", "door:Ada gate:Ada@OPEN"),
                ("SHUT", "door:Ada gate:Ada@OPEN"),
            ]

    def test_that_overrides_a_condition_is_asked_its_own(self, memory_engine: sa.Engine, classes: Any) -> None:
        door, gate, wicket = classes
        door.metadata.create_all(memory_engine)
        with Session(memory_engine) as session:
            plain, own, inherited = rows = [door(by="stuck"), gate(by="stuck"), wicket(by="stuck")]
            session.add_all(rows)
            session.commit()
            assert plain.shut("Ada") is True
            for each in (own, inherited):
                with pytest.raises(TransitionRefused) as caught:
                    each.shut("Ada")
                assert caught.value.model == "Door"  # whose guard it is, as in a flush
                assert each.by == "stuck"
                each.state = "SHUT"
                with pytest.raises(TransitionRefused), session.no_autoflush:
                    session.flush()
                session.refresh(each)

    def test_is_refused_from_another_state_before_any_body(self, classes: Any) -> None:
        _, gate, _ = classes
        obj = gate(state="SHUT")
        with pytest.raises(IllegalTransition) as caught:
            obj.shut("Ada")
        assert (caught.value.source, obj.by) == ("SHUT", None)

    def test_whose_body_fails_leaves_the_state(self, classes: Any) -> None:
        door, _, _ = classes

        class Stuck(door):
            __mapper_args__ = {"polymorphic_identity": "stuck"}

            @statekit.event
            def shut(self, by: str) -> None:
                super().shut(by)
                raise RuntimeError("it is stuck")

        obj = Stuck(state="OPEN")
        with pytest.raises(RuntimeError, match="it is stuck"):
            obj.shut("Ada")
        assert (obj.state, obj.by) == ("OPEN", "door:Ada")

    def test_that_is_declared_after_others_were_used_has_its_own_body(self, classes: Any) -> None:
        door, _, _ = classes
        assert door(state="OPEN").shut("Ada") is True
        configure_mappers()

        class Late(door):
            __mapper_args__ = {"polymorphic_identity": "late"}

            @statekit.event
            def shut(self, by: str) -> None:
                self.by = f"late:{by}"

        obj = Late(state="OPEN")
        assert (obj.shut("Ada"), obj.state, obj.by) == (True, "SHUT", "late:Ada")

    def test_that_was_there_before_its_parent_was_guarded_has_its_own_body(self, base: Any) -> None:
        class Door(base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            by: Mapped[str | None]

        class Gate(Door):
            @statekit.event
            def shut(self) -> None:
                self.by = "gate"

        guard(Door.state, SHUT)
        gate, door = Gate(state="OPEN"), Door(state="OPEN")
        assert (gate.shut(), gate.by, gate.state) == (True, "gate", "SHUT")
        assert (door.shut(), door.by, door.state) == (True, None, "SHUT")  # type: ignore[attr-defined]


class TestABody:
    def test_of_an_abstract_base_serves_each_class_with_its_own_guard(self, base: Any) -> None:
        class Closing(Guarded, base):
            __abstract__ = True
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            by: Mapped[str | None]
            __transitions__ = {"state": SHUT}

            @statekit.event
            def shut(self, by: str) -> None:
                self.by = f"{type(self).__name__} {by}"

        class Door(Closing):
            __tablename__ = "door"

        class Window(Closing):
            __tablename__ = "window"

        door, window = Door(), Window()
        door.shut("Ada")
        window.shut("Bob")
        assert (door.by, door.state, window.by, window.state) == ("Door Ada", "SHUT", "Window Bob", "SHUT")
        with pytest.raises(IllegalTransition):
            door.shut("Ada")
        assert dict(counts(Door.state)) == {("SHUT", "SHUT"): 1}
        assert not counts(Window.state)

    def test_of_a_mixin_is_called_by_super_and_moves_once(self, base: Any) -> None:
        class Closing:
            @statekit.event
            def shut(self, by: str) -> None:
                self.by = f"mixin {by}"

        class Door(Guarded, Closing, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            by: Mapped[str | None]
            __transitions__ = {"state": SHUT}

            @statekit.event
            def shut(self, by: str) -> None:
                super().shut(by)
                self.by = f"{self.by}, door @{self.state}"

        door = Door(state="OPEN")
        assert (door.shut("Ada"), door.by, door.state) == (True, "mixin Ada, door @OPEN", "SHUT")

    def test_keeps_name_docstring_and_signature(self, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            __transitions__ = {
                "state": TransitionTable(Transition("OPEN", "SHUT", "shut"), Transition("SHUT", "OPEN", "open"))
            }

            @statekit.event
            def shut(self, by: str, *, hard: bool = False) -> None:
                """Shut it."""

        method: Any = Door.shut
        assert (method.__name__, method.__doc__, method.__qualname__.rpartition(".")[2]) == ("shut", "Shut it.", "shut")
        assert list(inspect.signature(method).parameters) == ["self", "by", "hard"]
        assert Door.open.__name__ == "open"  # type: ignore[attr-defined]

    def test_is_given_positional_and_named_arguments(self, base: Any) -> None:
        got: list[Any] = []

        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            __transitions__ = {
                "state": TransitionTable(
                    Transition(
                        "OPEN",
                        "SHUT",
                        "shut",
                        conditions=lambda door, *args, **kwargs: got.append(("condition", args, kwargs)) or True,  # type: ignore[func-returns-value]
                        before=lambda door: got.append(("before",)),
                        after=lambda door, *args, **kwargs: got.append(("after", args, kwargs)),
                    )
                )
            }

            @statekit.event
            def shut(self, by: str, *, obj: str, call: str) -> None:
                got.append(("body", by, obj, call))

        Door(state="OPEN").shut("Ada", obj="o", call="c")
        given = (("Ada",), {"obj": "o", "call": "c"})
        assert got == [("condition", *given), ("before",), ("body", "Ada", "o", "c"), ("after", *given)]

    def test_of_a_class_that_nothing_guards_is_an_error_at_the_call(self, base: Any) -> None:
        class Door(base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]

            @statekit.event
            def shut(self, by: str) -> None: ...

        with pytest.raises(StatekitError, match=r"Door\.shut is an event of no table.*event='shut'"):
            Door(state="OPEN").shut("Ada")

    @pytest.mark.parametrize("what", [1, "shut", property(lambda self: 1), staticmethod(print)])
    def test_is_a_function(self, what: Any) -> None:
        with pytest.raises(TableError, match="is no function"):
            statekit.event(what)

    def test_what_it_returns_is_not_used(self, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            __transitions__ = {"state": SHUT}

            @statekit.event
            def shut(self) -> Any:
                return False

        door = Door(state="OPEN")
        assert (door.shut(), door.state) == (True, "SHUT")


class Traffic(enum.Enum):
    STOP = "red"
    GO = "green"
    YIELD = "yellow"


class Code(sa.TypeDecorator[str]):
    """Stores the states as numbers."""

    impl = sa.Integer
    cache_ok = True
    numbers = {"OPEN": 10, "SHUT": 20, "GONE": 30}

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else self.numbers[value]

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else next(name for name, number in self.numbers.items() if number == value)


@all_sync_backends
class TestAColumn:
    @pytest.mark.parametrize("by_value", [False, True], ids=["names", "values_callable"])
    def test_of_an_enum_is_set_to_its_member(self, engine: sa.Engine, base: Any, by_value: bool) -> None:
        stores = sa.Enum(Traffic, values_callable=lambda cls: [m.value for m in cls]) if by_value else sa.Enum(Traffic)

        class Light(Guarded, base):
            __tablename__ = "light"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[Traffic] = mapped_column(stores, default=Traffic.STOP)
            __transitions__ = {
                "state": TransitionTable(
                    Transition(Traffic.STOP, Traffic.GO, "go"),
                    Transition(Traffic.GO, Traffic.YIELD, "slow", conditions=lambda obj: obj.state is Traffic.GO),
                    initial=Traffic.STOP,
                )
            }

        assert round_trip(engine, Light(), "go", "slow") is Traffic.YIELD

    def test_of_integers_is_set_to_an_integer(self, engine: sa.Engine, base: Any) -> None:
        class Step(Guarded, base):
            __tablename__ = "step"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[int] = mapped_column(default=1)
            __transitions__ = {
                "state": TransitionTable(
                    Transition("1", "2", "go"), Transition("2", "-3", "on", conditions=lambda obj: obj.state == 2)
                )
            }

        assert round_trip(engine, Step(), "go", "on") == -3

    def test_of_a_type_of_its_own_is_set_to_what_python_has(self, engine: sa.Engine, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(Code(), default="OPEN")
            __transitions__ = {
                "state": TransitionTable(Transition("OPEN", "SHUT", "shut"), Transition("SHUT", "GONE", "lose"))
            }

        assert round_trip(engine, Door(), "shut", "lose") == "GONE"
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT state FROM door").scalar() == 30

    def test_may_have_states_that_pytransitions_would_read_as_something_else(
        self, engine: sa.Engine, base: Any
    ) -> None:
        names = ["=", "a_b", "with space", "to_x", "dot.ted", "ö→", "initial", "NULL"]
        odd: Any = enum.Enum("Odd", names)

        class Odd(Guarded, base):
            __tablename__ = "odd"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[Any] = mapped_column(sa.Enum(odd, native_enum=False, length=20), default=odd["="])
            __transitions__ = {
                "state": TransitionTable(
                    *(Transition(odd[a], odd[b], f"e{n}") for n, (a, b) in enumerate(itertools.pairwise(names)))
                )
            }

        assert round_trip(engine, Odd(), *(f"e{n}" for n in range(len(names) - 1))) is odd["NULL"]

    def test_called_something_else_than_its_attribute_is_set_by_the_attribute(
        self, engine: sa.Engine, base: Any
    ) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            condition: Mapped[str] = mapped_column("c_state", default="OPEN")
            __transitions__ = {"condition": SHUT}

        assert round_trip(engine, Door(), "shut", attribute="condition") == "SHUT"

    def test_of_a_row_with_several_keys_is_named_by_all_of_them(self, engine: sa.Engine, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            house: Mapped[str] = mapped_column(sa.String(9), primary_key=True)
            number: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            locked: Mapped[bool] = mapped_column(default=False)
            __transitions__ = {
                "state": TransitionTable(
                    Transition("OPEN", "SHUT", "shut", conditions=lambda obj: not obj.locked), initial="OPEN"
                )
            }

        base.metadata.create_all(engine)
        with Session(engine) as session:
            free, locked = Door(house="A", number=1), Door(house="A", number=2, locked=True)
            session.add_all([free, locked])
            session.commit()
            assert free.shut() is True  # type: ignore[attr-defined]
            with pytest.raises(TransitionRefused, match=r"house='A', number=2") as caught:
                locked.shut()  # type: ignore[attr-defined]
            assert caught.value.identity == ("A", 2)
            session.commit()
            with pytest.raises(IllegalTransition) as refused:
                free.shut()  # type: ignore[attr-defined]
            assert refused.value.identity == ("A", 1)


class TestTwoGuardedColumns:
    def test_have_events_that_do_not_mix(self, memory_engine: sa.Engine, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN")
            lock: Mapped[str] = mapped_column(default="OPEN")
            key: Mapped[bool] = mapped_column(default=False)
            __transitions__ = {
                "state": SHUT,
                "lock": TransitionTable(Transition("OPEN", "SHUT", "turn", conditions="key"), initial="OPEN"),
            }

        base.metadata.create_all(memory_engine)
        with Session(memory_engine) as session:
            door: Any = Door()
            session.add(door)
            session.commit()
            assert door.shut() is True
            assert (door.state, door.lock) == ("SHUT", "OPEN")
            with pytest.raises(TransitionRefused) as caught:
                door.turn()
            assert (caught.value.attribute, caught.value.condition) == ("lock", "key")
            door.key = True
            assert door.turn() is True
            door.key = False
            session.commit()  # neither is asked again because of the other
            assert (door.state, door.lock) == ("SHUT", "SHUT")
            assert dict(counts(Door.lock)) == {("OPEN", "SHUT"): 1}
            assert not counts(Door.state)

    @pytest.mark.parametrize("decorated", [False, True])
    def test_cannot_have_an_event_of_one_name(self, base: Any, decorated: bool) -> None:
        class Door(base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            lock: Mapped[str]

            def body(self) -> None: ...

            if decorated:
                shut = statekit.event(body)

        guard(Door.state, SHUT)
        method = Door.shut
        with pytest.raises(TableError, match="'shut' is an event of Door.* already"):
            guard(Door.lock, TransitionTable(Transition("A", "B", "first"), Transition("OPEN", "SHUT", "shut")))
        assert Door.shut is method
        assert not hasattr(Door, "first")
        guard(Door.lock, TransitionTable("OPEN → SHUT"))  # the column was left free
        door: Any = Door(state="OPEN", lock="OPEN")
        door.shut()
        assert (door.state, door.lock) == ("SHUT", "OPEN")


class TestNothingIsHalfApplied:
    def test_where_a_callback_is_unknown(self, base: Any) -> None:
        class Door(base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            by: Mapped[str | None]

            @statekit.event
            def shut(self) -> None:
                self.by = "body"

        broken: Any = TransitionTable(
            Transition("OPEN", "AJAR", "open_a_bit"), Transition("OPEN", "SHUT", "shut", after="no_such_method")
        )
        decorated = vars(Door)["shut"]
        with pytest.raises(TableError, match=r"callback of .*has no method 'no_such_method'"):
            guard(Door.state, broken)
        assert vars(Door)["shut"] is decorated
        assert not hasattr(Door, "open_a_bit")
        guard(Door.state, SHUT)
        door = Door(state="OPEN")
        assert (door.shut(), door.by) == (True, "body")

    def test_where_what_follows_the_methods_fails(self, base: Any) -> None:
        class Door(base):
            __tablename__ = "do\0or"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]

            @statekit.event
            def shut(self) -> None: ...

        class Gate(Door):
            @statekit.event
            def shut(self) -> None: ...

        decorated = vars(Door)["shut"], vars(Gate)["shut"]
        table = TransitionTable(Transition("OPEN", "SHUT", "shut"), Transition("SHUT", "OPEN", "open"))
        with pytest.raises(TableError, match="NUL"):
            guard(Door.state, table, trigger=True)
        assert (vars(Door)["shut"], vars(Gate)["shut"]) == decorated
        assert not hasattr(Door, "open")
        guard(Door.state, table)  # the column was left free


class TestWhatIsNamedByText:
    def test_may_be_a_property_a_hybrid_a_column_and_a_static_or_class_method(self, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            column: Mapped[bool]
            answers: Any = {"plain": True, "hybrid": True, "static": True, "of_class": True}

            @property
            def plain(self) -> bool:
                return bool(self.answers["plain"])

            @hybrid_property
            def hybrid(self) -> bool:
                return bool(self.answers["hybrid"])

            @staticmethod
            def static() -> bool:
                return bool(Door.answers["static"])

            @classmethod
            def of_class(cls) -> bool:
                return bool(cls.answers["of_class"])

            __transitions__ = {
                "state": TransitionTable(
                    Transition("OPEN", "SHUT", "shut", conditions=["column", "plain", "hybrid", "static", "of_class"])
                )
            }

        def refused(**answers: bool) -> Any:
            column = answers.pop("column", True)
            Door.answers = {"plain": True, "hybrid": True, "static": True, "of_class": True, **answers}
            door: Any = Door(state="OPEN", column=column)
            try:
                door.shut("an argument that none of them takes")
            except TransitionRefused as error:
                return error.condition
            return door.state

        names = ["column", "plain", "hybrid", "static", "of_class"]
        assert [refused(**{name: False}) for name in names] == names
        assert refused() == "SHUT"

    def test_is_looked_up_in_the_subclass(self, base: Any) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str]
            told = None
            __transitions__ = {"state": TransitionTable(Transition("OPEN", "SHUT", "shut", after="tell"))}

            def tell(self) -> None:
                self.told = "door"

        class Gate(Door):
            def tell(self, by: str) -> None:  # type: ignore[override]
                self.told = f"gate {by}"

        door, gate = Door(state="OPEN"), Gate(state="OPEN")
        door.shut("Ada")  # type: ignore[attr-defined]
        gate.shut("Ada")  # type: ignore[attr-defined]
        assert (door.told, gate.told) == ("door", "gate Ada")


class TestAColumnThatIsNotLoaded:
    @all_sync_backends
    @pytest.mark.parametrize("how", ["expired", "deferred"])
    def test_is_loaded_by_the_event(self, engine: sa.Engine, base: Any, how: str) -> None:
        class Door(Guarded, base):
            __tablename__ = "door"
            id: Mapped[int] = mapped_column(primary_key=True)
            state: Mapped[str] = mapped_column(default="OPEN", deferred=how == "deferred")
            __transitions__ = {"state": SHUT}

        base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Door())
            session.commit()
        with Session(engine) as session:
            door: Any = session.scalars(sa.select(Door)).one()
            if how == "expired":
                session.expire(door)
            assert "state" not in vars(door)
            assert door.shut() is True
            session.commit()
            with pytest.raises(IllegalTransition):
                door.shut()
