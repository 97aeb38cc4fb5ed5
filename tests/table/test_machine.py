"""Tables from pytransitions machines, and machines from tables."""

from __future__ import annotations

import asyncio
import enum
import itertools
import keyword
import os.path
import pickle
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transitions import Machine, State
from transitions.extensions import GraphMachine, LockedMachine
from transitions.extensions.asyncio import AsyncMachine
from transitions.extensions.nesting import HierarchicalMachine
from transitions.extensions.states import Timeout, add_state_features

from statekit import StatekitError, TableError, Transition, TransitionTable
from statekit.table.callbacks import Callback

STATES = ["READY", "SPAM_REVIEW", "PROMOTED", "COMPLETED"]
MOVES: list[Any] = [
    ["capture", "READY", "SPAM_REVIEW"],
    {"trigger": "promote", "source": "READY", "dest": "PROMOTED", "conditions": "has_author", "after": "tell"},
    ["complete", "PROMOTED", "COMPLETED"],
]


class Status(enum.Enum):
    READY = 1
    PROMOTED = 2
    COMPLETED = 3


class Message:
    """A plain object, as a model of pytransitions."""

    state: Any
    author = "Ada"

    def __init__(self) -> None:
        self.told: list[object] = []

    def has_author(self, *args: object) -> bool:
        return bool(self.author)

    def tell(self, *args: object) -> None:
        self.told.append(self.state)


def machine(*moves: Any, model: Any = None, states: Any = STATES, initial: Any = "READY", **options: Any) -> Machine:
    return Machine(model, states, initial, list(moves or MOVES), **options)


def refusal(*moves: Any, **options: Any) -> str:
    with pytest.raises(TableError) as caught:
        TransitionTable.from_machine(machine(*moves, **options))
    return str(caught.value)


class TestFromMachine:
    def test_states_moves_events_conditions_and_initial_are_those_of_the_machine(self) -> None:
        assert TransitionTable.from_machine(machine()) == TransitionTable(
            Transition("READY", "SPAM_REVIEW", "capture"),
            Transition("READY", "PROMOTED", "promote", conditions="has_author", after="tell"),
            Transition("PROMOTED", "COMPLETED", "complete"),
            initial="READY",
        )

    def test_states_keep_the_order_of_the_machine(self) -> None:
        assert list(TransitionTable.from_machine(machine()).states) == STATES

    def test_enum_states_give_a_table_of_that_enum(self) -> None:
        moves = [["promote", Status.READY, Status.PROMOTED], ["complete", Status.PROMOTED, Status.COMPLETED]]
        table = TransitionTable.from_machine(machine(*moves, states=Status, initial=Status.READY))
        assert (table.enum, table.allows(Status.READY, Status.PROMOTED)) == (Status, True)

    def test_automatic_transitions_are_left_out(self) -> None:
        assert len(TransitionTable.from_machine(machine(auto_transitions=True)).pairs) == 3

    def test_automatic_transitions_of_another_attribute_are_left_out(self) -> None:
        assert len(TransitionTable.from_machine(machine(model_attribute="status")).pairs) == 3

    def test_an_event_of_ones_own_may_have_the_name_of_an_automatic_one(self) -> None:
        table = TransitionTable.from_machine(
            machine(*MOVES, ["to_PROMOTED", "SPAM_REVIEW", "PROMOTED"], auto_transitions=False)
        )
        assert table.transition("SPAM_REVIEW", "PROMOTED").event == "to_PROMOTED"

    def test_what_a_star_adds_from_a_state_to_itself_is_left_out(self) -> None:
        table = TransitionTable.from_machine(machine(*MOVES, ["reset", "*", "READY"]))
        assert {s for s, t in table.pairs if t == "READY"} == {"SPAM_REVIEW", "PROMOTED", "COMPLETED"}

    def test_the_state_that_pytransitions_adds_of_its_own_is_left_out(self) -> None:
        table = TransitionTable.from_machine(Machine(None, STATES, transitions=MOVES))
        assert (set(table.states), table.has_initial) == (set(STATES), False)

    def test_a_state_of_ones_own_called_initial_is_kept(self) -> None:
        moves = [["start", "initial", "READY"], *MOVES]
        table = TransitionTable.from_machine(Machine(None, ["initial", *STATES], transitions=moves))
        assert set(table.initial) == {"initial"}

    def test_a_machine_without_an_initial_state_gives_a_table_without_one(self) -> None:
        assert not TransitionTable.from_machine(machine(initial=None)).has_initial

    def test_other_initial_states_can_be_given(self) -> None:
        table = TransitionTable.from_machine(machine(), initial=("READY", "PROMOTED"))
        assert set(table.initial) == {"READY", "PROMOTED"}

    def test_states_that_the_initial_one_does_not_lead_to_are_refused(self) -> None:
        assert "'LOST' cannot be reached" in refusal(states=[*STATES, "LOST"])

    def test_ordered_transitions_become_one_event(self) -> None:
        found = TransitionTable.from_machine(Machine(None, ["A", "B", "C"], "A", ordered_transitions=True))
        assert {(*pair, found.transition(*pair).event) for pair in found.pairs} == {
            ("A", "B", "next_state"),
            ("B", "C", "next_state"),
            ("C", "A", "next_state"),
        }

    @pytest.mark.parametrize("class_", [AsyncMachine, LockedMachine, GraphMachine])
    def test_other_classes_of_flat_machines_are_read_too(self, class_: Any) -> None:
        options = {"graph_engine": "mermaid"} if class_ is GraphMachine else {}
        assert len(TransitionTable.from_machine(class_(None, STATES, "READY", MOVES, **options)).pairs) == 3

    def test_a_subclass_of_a_table_gives_one_of_its_own(self) -> None:
        class MyTable(TransitionTable):
            pass

        assert type(MyTable.from_machine(machine())) is MyTable


class TestFunctions:
    """pytransitions gives a function the arguments of the event; a table gives it the object first."""

    def condition(self, function: Any, *, model: Any = None) -> Any:
        move = {"trigger": "promote", "source": "READY", "dest": "PROMOTED", "conditions": function}
        table = TransitionTable.from_machine(machine(move, model=model, states=["READY", "PROMOTED"]))
        return table.transition("READY", "PROMOTED").conditions[0]

    def test_a_function_goes_on_to_be_called_without_the_object(self) -> None:
        def is_urgent(level: int) -> bool:
            return level > 3

        assert Callback(self.condition(is_urgent))(Message(), (4,)) is True

    def test_a_function_that_needs_arguments_is_known_to_need_them(self) -> None:
        assert Callback(self.condition(lambda level: True)).takes(Message) == "required"

    def test_a_function_that_takes_nothing_is_given_nothing(self) -> None:
        assert Callback(self.condition(lambda: True))(Message(), (4,)) is True

    def test_a_function_may_call_an_argument_as_it_likes(self) -> None:
        callback = Callback(self.condition(lambda obj: obj))
        assert (callback.takes(Message), callback(Message(), ("x",))) == ("required", "x")

    def test_a_builtin_is_called_with_the_arguments(self) -> None:
        assert Callback(self.condition(max))(Message(), (1, 2)) == 2

    def test_messages_call_a_function_by_its_name(self) -> None:
        assert Callback(self.condition(os.path.isabs)).name == "isabs"

    def test_messages_call_a_lambda_by_its_place(self) -> None:
        assert Callback(self.condition(lambda: True)).name.startswith("lambda")

    def test_an_async_function_stays_one(self) -> None:
        async def answer(value: int) -> int:
            return value

        callback = Callback(self.condition(answer))
        assert (callback.is_async(Message), asyncio.run(callback(Message(), (5,)))) == (True, 5)

    def test_the_same_function_is_equal(self) -> None:
        assert self.condition(os.path.isabs) == self.condition(os.path.isabs) != self.condition(os.path.isdir)

    def test_a_table_with_functions_can_be_pickled(self) -> None:
        move = {"trigger": "promote", "source": "READY", "dest": "PROMOTED", "conditions": os.path.isabs}
        table = TransitionTable.from_machine(machine(move, initial=None))
        assert pickle.loads(pickle.dumps(table)) == table

    def test_a_method_of_the_machines_model_becomes_its_name(self) -> None:
        model = Message()
        assert self.condition(model.has_author, model=model) == "has_author"

    def test_a_function_bound_to_the_model_that_is_no_method_of_it_stays_a_function(self) -> None:
        model = Message()
        bound = types.MethodType(lambda self: self is model, model)
        assert Callback(self.condition(bound, model=model))(Message()) is True

    def test_a_method_of_another_object_stays_a_function(self) -> None:
        assert Callback(self.condition(Message().has_author))(Message(), (4,)) is True

    def test_a_dotted_name_becomes_the_function_that_it_names(self) -> None:
        assert Callback(self.condition("os.path.isabs"))(Message(), ("/",)) is True


class TestRefused:
    @pytest.mark.parametrize("thing", [None, "READY", Machine])
    def test_what_is_no_machine(self, thing: Any) -> None:
        with pytest.raises(TableError, match="is no pytransitions Machine"):
            TransitionTable.from_machine(thing)

    def test_nested_states(self) -> None:
        nested = HierarchicalMachine(None, ["A", {"name": "B", "children": ["x", "y"]}], "A")
        with pytest.raises(TableError, match="nested or parallel.*build a plain Machine"):
            TransitionTable.from_machine(nested)

    def test_a_machine_with_automatic_transitions_alone(self) -> None:
        with pytest.raises(TableError, match="no transitions of its own.*to_<state>"):
            TransitionTable.from_machine(Machine(None, STATES, "READY"))

    def test_an_event_that_only_stays(self) -> None:
        assert "'touch', 'READY' → 'READY': stays where it is" in refusal(*MOVES, ["touch", "READY", "="])

    def test_a_move_to_itself_that_calls_something_else_than_the_others_of_its_event(self) -> None:
        retry = {"trigger": "retry", "source": "READY", "dest": "READY", "after": "tell"}
        assert "'retry', 'READY' → 'READY': stays" in refusal(*MOVES, ["retry", "PROMOTED", "READY"], retry)

    def test_an_internal_transition(self) -> None:
        assert "'touch', 'READY': is internal" in refusal(*MOVES, ["touch", "READY", None])

    @pytest.mark.parametrize("pair", [("READY", "LOST"), ("LOST", "READY")])
    def test_a_state_that_the_machine_does_not_have(self, pair: tuple[str, str]) -> None:
        assert f"'lose', {pair[0]!r} → {pair[1]!r}: is between states" in refusal(*MOVES, ["lose", *pair])

    @pytest.mark.parametrize("detail", ["unless", "prepare"])
    def test_a_detail_that_no_table_has(self, detail: str) -> None:
        move = {"trigger": "spam", "source": "READY", "dest": "SPAM_REVIEW", detail: "has_author"}
        assert f"has {detail}=['has_author']" in refusal(move)

    @pytest.mark.parametrize("detail", ["before", "after"])
    def test_several_callbacks_of_one_kind(self, detail: str) -> None:
        move = {"trigger": "spam", "source": "READY", "dest": "SPAM_REVIEW", detail: ["tell", "tell_all"]}
        assert f"has {detail}=['tell', 'tell_all']" in refusal(move)

    @pytest.mark.parametrize(
        "name",
        ["before_state_change", "after_state_change", "prepare_event", "finalize_event", "on_exception", "on_final"],
    )
    def test_a_callback_of_the_machine(self, name: str) -> None:
        assert f"{name}=['tell'] of the machine" in refusal(**{name: "tell"})

    @pytest.mark.parametrize("name", ["on_enter", "on_exit"])
    def test_a_callback_of_a_state(self, name: str) -> None:
        states = ["READY", "SPAM_REVIEW", State("PROMOTED", **{name: "tell"}), "COMPLETED"]
        assert f"{name}=['tell'] of 'PROMOTED'" in refusal(states=states)

    def test_callbacks_that_are_given_an_event_data(self) -> None:
        assert "calls 'has_author' with an EventData" in refusal(send_event=True)

    def test_a_dotted_name_that_cannot_be_imported(self) -> None:
        move = {"trigger": "spam", "source": "READY", "dest": "SPAM_REVIEW", "conditions": "os.nothing"}
        assert "'os.nothing', which cannot be imported" in refusal(move)

    def test_two_events_for_one_move(self) -> None:
        text = refusal(*MOVES, ["finish", "PROMOTED", "COMPLETED"])
        assert "'finish', 'PROMOTED' → 'COMPLETED': makes the same move as 'complete'" in text

    def test_one_event_that_makes_a_move_under_several_conditions(self) -> None:
        moves = [
            {"trigger": "promote", "source": "READY", "dest": "PROMOTED", "conditions": name}
            for name in ("has_author", "tell")
        ]
        assert "makes the same move as 'promote'" in refusal(*moves)

    def test_one_event_that_makes_a_move_twice_in_the_same_way_is_not_refused(self) -> None:
        table = TransitionTable.from_machine(machine(*MOVES, ["complete", "PROMOTED", "COMPLETED"]))
        assert len(table.pairs) == 3

    def test_a_queue(self) -> None:
        assert "queued=True" in refusal(queued=True)

    def test_a_time_limit_of_a_state(self) -> None:
        @add_state_features(Timeout)
        class Limited(Machine):
            pass

        states = ["READY", {"name": "PROMOTED", "timeout": 5, "on_timeout": "tell"}, "SPAM_REVIEW", "COMPLETED"]
        with pytest.raises(TableError, match="timeout=5 of 'PROMOTED'"):
            TransitionTable.from_machine(Limited(None, states, "READY", MOVES))

    def test_a_trigger_that_is_no_name_of_a_method(self) -> None:
        assert "'go on' cannot be the name of a method" in refusal(["go on", "READY", "PROMOTED"])

    def test_everything_that_is_refused_is_named_at_once(self) -> None:
        text = refusal(["touch", "READY", "="], ["hush", "READY", None], on_exception="tell")
        assert [word in text for word in ("'touch'", "'hush'", "on_exception")] == [True] * 3


class TestToMachine:
    TABLE = TransitionTable(
        Transition("READY", "PROMOTED", "promote", conditions="has_author", after="tell"),
        ("READY", "SPAM_REVIEW"),
        Transition("PROMOTED", "COMPLETED", "complete"),
        initial="READY",
    )

    def test_the_events_are_methods_of_the_model(self) -> None:
        message: Any = Message()
        self.TABLE.to_machine(message)
        assert (message.state, message.promote(), message.complete(), message.state) == (
            "READY",
            True,
            True,
            "COMPLETED",
        )

    def test_a_move_without_an_event_gets_one_called_after_its_target(self) -> None:
        message: Any = Message()
        self.TABLE.to_machine(message)
        assert (message.to_SPAM_REVIEW(), message.state) == (True, "SPAM_REVIEW")

    def test_nothing_else_is_possible(self) -> None:
        assert set(self.TABLE.to_machine().events) == {"promote", "complete", "to_SPAM_REVIEW"}

    def test_conditions_and_callbacks_are_asked_and_called(self) -> None:
        message: Any = Message()
        self.TABLE.to_machine(message)
        message.author = ""
        refused = message.promote()
        message.author = "Ada"
        assert (refused, message.promote(), message.told) == (False, True, ["PROMOTED"])

    def test_functions_are_given_the_object_and_the_arguments_of_the_event(self) -> None:
        def is_by(message: Message, author: str) -> bool:
            return message.author == author

        message: Any = Message()
        TransitionTable(Transition("A", "B", "go", conditions=is_by), initial="A").to_machine(message)
        assert (message.go("Bob"), message.go("Ada")) == (False, True)

    def test_what_takes_nothing_but_the_object_is_given_nothing_else(self) -> None:
        message: Any = Message()
        TransitionTable(
            Transition("A", "B", "go", before=lambda obj: obj.told.append("before")), initial="A"
        ).to_machine(message)
        assert (message.go("Ada"), message.told) == (True, ["before"])

    def test_a_condition_says_yes_with_anything_that_is_true(self) -> None:
        message: Any = Message()
        TransitionTable(Transition("A", "B", "go", conditions=lambda obj: obj.author), initial="A").to_machine(message)
        assert message.go() is True

    def test_several_models_have_callbacks_of_their_own(self) -> None:
        first, second = Message(), Message()
        self.TABLE.to_machine([first, second])
        second.promote()  # type: ignore[attr-defined]
        assert (first.told, second.told) == ([], ["PROMOTED"])

    def test_enum_states_are_members(self) -> None:
        message = Message()
        TransitionTable((Status.READY, Status.PROMOTED), initial=Status.READY).to_machine(message)
        assert message.state is Status.READY

    def test_several_initial_states_leave_the_choice_to_an_option(self) -> None:
        table = TransitionTable("A → C", "B → C", initial=("A", "B"))
        assert (table.to_machine().initial, table.to_machine(initial="B").initial) == (None, "B")

    def test_options_are_those_of_the_machine(self) -> None:
        message: Any = Message()
        self.TABLE.to_machine(message, model_attribute="status")
        assert message.status == "READY"

    def test_states_may_be_called_what_pytransitions_reads_as_something_else(self) -> None:
        made = TransitionTable(("A", "="), ("=", "B"), initial="A").to_machine()
        assert {(t.source, t.dest) for t in made.get_transitions()} == {("A", "="), ("=", "B")}

    def test_async_functions_are_awaited_by_an_async_machine(self) -> None:
        async def tell(message: Message, text: str) -> None:
            await asyncio.sleep(0)
            message.told.append(text)

        message: Any = Message()
        table = TransitionTable(Transition("A", "B", "go", after=tell), initial="A")
        table.to_machine(message, machine_class=AsyncMachine)
        assert (asyncio.run(message.go("hello")), message.told) == (True, ["hello"])

    def test_async_conditions_are_awaited_too(self) -> None:
        async def no(message: Message) -> bool:
            return False

        message: Any = Message()
        table = TransitionTable(Transition("A", "B", "go", conditions=no), initial="A")
        table.to_machine(message, machine_class=AsyncMachine)
        assert asyncio.run(message.go()) is False

    def test_async_functions_are_refused_by_any_other(self) -> None:
        async def tell(message: Message) -> None: ...

        with pytest.raises(TableError, match="tell is an async def, which Machine never awaits.*AsyncMachine"):
            TransitionTable(Transition("A", "B", "go", after=tell)).to_machine()

    def test_async_methods_of_a_model_are_noticed_when_they_are_called(self) -> None:
        class Waiting(Message):
            async def tell(self, *args: object) -> None: ...  # type: ignore[override]

        message: Any = Waiting()
        self.TABLE.to_machine(message)
        with pytest.raises(StatekitError, match="tell is an async def.*AsyncMachine"):
            message.promote()

    @pytest.mark.parametrize("class_", [HierarchicalMachine, dict, "Machine"])
    def test_a_class_that_is_no_flat_machine_is_refused(self, class_: Any) -> None:
        with pytest.raises(TypeError, match="machine_class="):
            self.TABLE.to_machine(machine_class=class_)

    def test_a_null_state_is_refused(self) -> None:
        with pytest.raises(TableError, match="NULL is a state of the table"):
            TransitionTable((None, "READY")).to_machine()

    def test_an_event_with_the_name_that_another_move_would_get_is_refused(self) -> None:
        with pytest.raises(TableError, match="'to_C' is an event, and 'B' → 'C' without an event"):
            TransitionTable(Transition("A", "C", "to_C"), ("B", "C")).to_machine()

    @pytest.mark.parametrize("option", ["states", "transitions", "auto_transitions", "send_event"])
    def test_an_option_that_the_table_decides_is_refused(self, option: str) -> None:
        with pytest.raises(TypeError, match=f"sets {option} itself"):
            self.TABLE.to_machine(**{option: True})


# --- laws -------------------------------------------------------------------------------------------------------------

identifiers = st.from_regex(r"[A-Z][A-Z_]{0,4}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
Letters = enum.Enum("Letters", list("ABCDEF"))  # type: ignore[misc]


@st.composite
def tables(draw: st.DrawFn) -> TransitionTable:
    """Tables with an event for each move; of text or of an Enum, with and without an initial state."""
    states: list[Any] = draw(
        st.lists(identifiers, min_size=2, max_size=6, unique=True) | st.permutations(list(Letters)).map(lambda p: p[:4])
    )
    pairs = draw(st.lists(st.sampled_from(list(itertools.permutations(states, 2))), min_size=1, unique=True))
    hooks: st.SearchStrategy[Any] = st.sampled_from(["has_author", Message.has_author, os.path.isabs])
    moves = [
        Transition(
            *pair,
            draw(st.sampled_from(["go", "run", "stop"])),
            conditions=draw(st.lists(hooks, max_size=2)),
            before=draw(st.none() | hooks),
            after=draw(st.none() | hooks),
        )
        for pair in pairs
    ]
    # One that every state can be reached from is looked for; where there is none, none is declared.
    for state in states:
        try:
            return TransitionTable(*moves, states=states, initial=state)
        except TableError:
            pass
    return TransitionTable(*moves, states=states)


@given(tables())
def test_a_table_comes_back_from_the_machine_that_was_made_of_it(table: TransitionTable) -> None:
    assert TransitionTable.from_machine(table.to_machine()) == table


@given(tables())
def test_the_order_of_states_comes_back_too(table: TransitionTable) -> None:
    back = TransitionTable.from_machine(table.to_machine())
    assert (list(back.states), back.enum) == (list(table.states), table.enum)


@given(
    st.lists(st.sampled_from(list(itertools.permutations("ABCD", 2))), min_size=1, unique=True).map(
        lambda pairs: TransitionTable(*pairs)
    )
)
def test_the_machine_allows_what_the_table_allows(table: TransitionTable) -> None:
    message: Any = Message()
    made = table.to_machine(message, initial=next(iter(table.states)))
    moved = set()
    for state, event in itertools.product(table.states, made.events):
        made.set_state(state, message)
        if getattr(message, f"may_{event}")():
            getattr(message, event)()
            moved.add((state, message.state))
    assert moved == table.pairs


def test_a_machine_that_is_read_is_left_as_it_was() -> None:
    made = machine(model=Message())
    shape: Callable[[], object] = lambda: [(t.source, t.dest, t.after) for t in made.get_transitions()]  # noqa: E731
    before = shape()
    TransitionTable.from_machine(made)
    assert shape() == before
