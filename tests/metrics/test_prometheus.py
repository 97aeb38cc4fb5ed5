"""Moves as Prometheus's counters, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from statekit import IllegalTransition, StatekitError, counts, operation
from statekit.metrics import prometheus
from statekit.observe import hook
from tests.guards.inbox import executed, fill, message_class
from tests.metrics.moving import EVERY_KIND, Row, from_null_and_new, make_every_kind, move
from tests.support.databases import execute, run
from tests.trigger.messages import guarded

Register = Callable[..., Callable[[], None]]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def register(registry: CollectorRegistry) -> Iterator[Register]:
    """Return ``register`` on the test's registry, which ends with the test."""
    ends = []

    def registered(to: Any = registry, **options: Any) -> Callable[[], None]:
        end = prometheus.register(to, **options)
        ends.append(end)
        return end

    yield registered
    for end in ends:
        end()


def counted(registry: CollectorRegistry) -> dict[Row, float]:
    """Return what a scrape of the registry says."""
    return samples(generate_latest(registry).decode())


def samples(text: str) -> dict[Row, float]:
    """Return statekit's counters in the text of a scrape, by kind and labels."""
    found: dict[Row, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("statekit_transitions_") and sample.name.endswith("_total"):
                kind = sample.name.removeprefix("statekit_transitions_").removesuffix("_total")
                named = [sample.labels[label] for label in ("model", "attribute", "source", "target", "operation")]
                key: Any = (kind, *named)
                assert key not in found, f"{key} twice in one scrape"
                found[key] = sample.value
    return found


def block_one(engine: sa.Engine, message: Any) -> None:
    with operation("Spam capture", on_illegal="skip"):
        move(engine, message, "SPAM_REVIEW", message.id == 1)


ONE_BLOCKED = {("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", "Spam capture"): 1}


class TestTheCounters:
    @pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
    def test_count_rows_of_every_kind(self, engine: sa.Engine, register: Register, registry: CollectorRegistry) -> None:
        register()
        make_every_kind(engine)
        assert counted(registry) == EVERY_KIND

    def test_tell_a_new_row_from_one_in_null(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        register()
        from_null_and_new(memory_engine)
        assert counted(registry) == {
            ("blocked", "Message", "status", "NULL", "PROMOTED", ""): 1,
            ("blocked", "Message", "status", "(new)", "PROMOTED", ""): 1,
            ("blocked", "Message", "status", "READY", "NULL", ""): 1,
        }

    def test_count_rows_of_a_statement(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, *["PROMOTED"] * 3, "READY")
        register()
        with memory_engine.begin() as connection:
            connection.execute(sa.update(message).values(status="SPAM_REVIEW"))
        assert counted(registry) == {
            ("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", ""): 3,
            ("allowed", "Message", "status", "READY", "SPAM_REVIEW", ""): 1,
        }

    def test_keep_what_a_rollback_takes_back(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        register()
        for _ in range(2):
            with pytest.raises(IllegalTransition):
                move(memory_engine, message, "SPAM_REVIEW")
        assert sum(counted(registry).values()) == sum(counts(message.status).values()) == 2

    def test_agree_with_the_counts_of_the_process(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        before = counts().total()
        register()
        make_every_kind(memory_engine)
        blocked = sum(number for (kind, *_), number in counted(registry).items() if kind == "blocked")
        assert blocked == counts().total() - before

    def test_hear_an_async_session(
        self, async_engine: AsyncEngine, register: Register, registry: CollectorRegistry
    ) -> None:
        message = message_class(on_illegal="skip")

        async def moving() -> None:
            async with async_engine.begin() as connection:
                await connection.run_sync(message.metadata.create_all)
            async with async_sessionmaker(async_engine)() as session:
                session.add(message(id=1))
                await session.flush()
                for status in ("PROMOTED", "SPAM_REVIEW"):
                    (await session.get_one(message, 1)).status = status
                    await session.flush()

        register()
        run(moving())
        assert counted(registry) == {
            ("allowed", "Message", "status", "READY", "PROMOTED", ""): 1,
            ("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", ""): 1,
        }

    def test_are_in_the_registry_of_the_package_by_default(self, register: Register) -> None:
        end = register(None)
        assert "statekit_transitions_blocked_total" in generate_latest(REGISTRY).decode()
        end()
        assert "statekit_transitions" not in generate_latest(REGISTRY).decode()


class TestARefusalOfATrigger:
    """It reaches the guard of a statement that no guard could judge, and is counted where it was made."""

    @staticmethod
    def refuse(engine: sa.Engine) -> Any:
        message = guarded()
        message.metadata.create_all(engine)
        name = message.__tablename__
        execute(engine, f"INSERT INTO {name} (id, status) VALUES (1, 'READY')")
        with pytest.raises(IllegalTransition), engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {name} SET status = 'COMPLETED'")
        return message

    def test_is_counted_in_the_database_only(
        self, postgres_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        register()
        message = self.refuse(postgres_engine)
        assert counts(message.status, bind=postgres_engine) == {("READY", "COMPLETED"): 1}
        assert counted(registry) == {}

    def test_is_counted_on_sqlite_which_can_count_nothing_itself(
        self, sqlite_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        register()
        self.refuse(sqlite_engine)
        assert counted(registry) == {("blocked", "Message", "status", "READY", "COMPLETED", ""): 1}


class TestWithoutLegalMoves:
    def test_counts_all_others(self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry) -> None:
        register(allowed=False)
        make_every_kind(memory_engine)
        assert counted(registry) == {row: number for row, number in EVERY_KIND.items() if row[0] != "allowed"}

    def test_there_is_no_counter_that_would_say_0(self, register: Register, registry: CollectorRegistry) -> None:
        register(allowed=False)
        assert "statekit_transitions_allowed" not in generate_latest(registry).decode()

    def test_nobody_wants_legal_moves_collected(self, register: Register) -> None:
        register(allowed=False)
        assert not hook.allowed_moves_are_wanted()

    def test_a_statement_is_executed_as_without_metrics(self, memory_engine: sa.Engine, register: Register) -> None:
        def executed_by_an_update() -> list[str]:
            with executed(memory_engine) as texts, memory_engine.begin() as connection:
                connection.execute(sa.update(message).values(status="PROMOTED").where(message.id == 1))
            return texts

        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "READY")
        bare = executed_by_an_update()
        register(allowed=False)
        assert executed_by_an_update() == bare


class TestEnding:
    def test_leaves_nobody_who_wants_legal_moves_collected(self, register: Register) -> None:
        end = register()
        assert hook.allowed_moves_are_wanted()
        end()
        assert not hook.allowed_moves_are_wanted()

    def test_takes_the_counters_out_of_the_registry(self, register: Register, registry: CollectorRegistry) -> None:
        register()()
        assert generate_latest(registry) == b""

    def test_twice_does_no_harm_to_who_has_begun_anew(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        end = register()
        end()
        register()
        end()
        block_one(memory_engine, message)
        assert counted(registry) == ONE_BLOCKED

    def test_is_not_disturbed_by_somebody_who_emptied_the_registry(
        self, register: Register, registry: CollectorRegistry
    ) -> None:
        end = register()
        for collector in list(registry._collector_to_names):
            registry.unregister(collector)
        end()
        register()
        assert "statekit_transitions_blocked" in generate_latest(registry).decode()


class TestCalledTwice:
    def test_counts_once(self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        register()
        register()
        block_one(memory_engine, message)
        assert counted(registry) == ONE_BLOCKED

    def test_with_another_allowed_is_an_error(self, register: Register) -> None:
        register(allowed=False)
        with pytest.raises(StatekitError, match=r"allowed=True.*exist already, with allowed=False"):
            register(allowed=True)

    def test_on_another_registry_counts_in_both(
        self, memory_engine: sa.Engine, register: Register, registry: CollectorRegistry
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        other = CollectorRegistry()
        register()
        register(other)
        block_one(memory_engine, message)
        assert (counted(registry), counted(other)) == (ONE_BLOCKED, ONE_BLOCKED)


class TestRefuses:
    def test_what_is_no_registry(self, register: Register) -> None:
        with pytest.raises(StatekitError, match="allowed is a prometheus_client.CollectorRegistry"):
            register("http://prometheus:9090")

    def test_a_registry_that_has_such_a_name_and_leaves_it_as_it_was(
        self, register: Register, registry: CollectorRegistry
    ) -> None:
        theirs = Counter("statekit_transitions_overridden", "Theirs.", registry=registry)
        before = generate_latest(registry)
        with pytest.raises(StatekitError, match="statekit_transitions_overridden"):
            register()
        assert generate_latest(registry) == before
        registry.unregister(theirs)
        register()

    def test_a_folder_that_was_named_too_late(self, register: Register, monkeypatch: Any, tmp_path: Any) -> None:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        with pytest.raises(StatekitError, match="was set after prometheus_client had been imported"):
            register()
