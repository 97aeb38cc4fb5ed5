"""Moves as OpenTelemetry's counters, read from the real SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric

from statekit import StatekitError, __version__, operation
from statekit.metrics import opentelemetry
from statekit.observe import hook
from tests.guards.inbox import fill, message_class
from tests.metrics.moving import EVERY_KIND, Row, from_null_and_new, make_every_kind, move

Instrument = Callable[..., Callable[[], None]]
NAMES = ("statekit.model", "statekit.attribute", "statekit.source", "statekit.target")


class Collected:
    """A meter provider, and what it has counted."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Metric]:
        data: Any = self.reader.get_metrics_data()
        scopes = [] if data is None else [s for resource in data.resource_metrics for s in resource.scope_metrics]
        assert all((s.scope.name, s.scope.version) == ("statekit", __version__) for s in scopes)
        return {metric.name: metric for s in scopes for metric in s.metrics}

    def points(self) -> list[tuple[str, dict[str, Any], int]]:
        found = []
        for name, metric in self.metrics().items():
            data: Any = metric.data
            found += [
                (name.removeprefix("statekit.transitions."), dict(p.attributes), p.value) for p in data.data_points
            ]
        return found

    def counted(self) -> dict[Row, int]:
        found: dict[Row, int] = {}
        for kind, attributes, value in self.points():
            named = [attributes[name] for name in NAMES]
            key: Any = (kind, *named, attributes.get("statekit.operation", ""))
            found[key] = value
        return found


@pytest.fixture
def collected() -> Iterator[Collected]:
    collected = Collected()
    yield collected
    collected.provider.shutdown()


@pytest.fixture
def instrument(collected: Collected) -> Iterator[Instrument]:
    """Return ``instrument`` with the test's provider, which ends with the test."""
    ends = []

    def instrumented(provider: Any = collected.provider, **options: Any) -> Callable[[], None]:
        end = opentelemetry.instrument(provider, **options)
        ends.append(end)
        return end

    yield instrumented
    for end in ends:
        end()


def block_one(engine: sa.Engine, message: Any) -> None:
    with operation("Spam capture", on_illegal="skip"):
        move(engine, message, "SPAM_REVIEW", message.id == 1)


ONE_BLOCKED = {("blocked", "Message", "status", "PROMOTED", "SPAM_REVIEW", "Spam capture"): 1}


class TestTheCounters:
    @pytest.mark.parametrize("engine", ["sqlite", "psycopg"], indirect=True)
    def test_count_rows_of_every_kind(self, engine: sa.Engine, instrument: Instrument, collected: Collected) -> None:
        instrument()
        make_every_kind(engine)
        assert collected.counted() == EVERY_KIND

    def test_tell_a_new_row_from_one_in_null(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        instrument()
        from_null_and_new(memory_engine)
        assert collected.counted() == {
            ("blocked", "Message", "status", "NULL", "PROMOTED", ""): 1,
            ("blocked", "Message", "status", "(new)", "PROMOTED", ""): 1,
            ("blocked", "Message", "status", "READY", "NULL", ""): 1,
        }

    def test_have_no_attribute_for_an_operation_that_is_not_there(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        message = message_class(on_illegal="skip")
        fill(memory_engine, message, "PROMOTED")
        instrument()
        move(memory_engine, message, "SPAM_REVIEW")
        [(_, attributes, _)] = collected.points()
        assert sorted(attributes) == sorted(NAMES)

    def test_are_monotonic_sums_of_transitions(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        instrument()
        make_every_kind(memory_engine)
        about = {(m.unit, bool(m.description), m.data.is_monotonic) for m in collected.metrics().values()}  # type: ignore[union-attr]
        assert about == {("{transition}", True, True)}


class TestWithoutLegalMoves:
    def test_counts_all_others(self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected) -> None:
        instrument(allowed=False)
        make_every_kind(memory_engine)
        assert collected.counted() == {row: number for row, number in EVERY_KIND.items() if row[0] != "allowed"}

    def test_nobody_wants_legal_moves_collected(self, instrument: Instrument) -> None:
        instrument(allowed=False)
        assert not hook.allowed_moves_are_wanted()


class TestEnding:
    def test_stops_counting_and_twice_does_no_harm(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        end = instrument()
        block_one(memory_engine, message)
        end()
        end()
        block_one(memory_engine, message)
        assert collected.counted() == ONE_BLOCKED

    def test_and_beginning_anew_goes_on_counting(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        instrument()()
        instrument()
        block_one(memory_engine, message)
        assert collected.counted() == ONE_BLOCKED


class TestCalledTwice:
    def test_counts_once(self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        instrument()
        instrument()
        block_one(memory_engine, message)
        assert collected.counted() == ONE_BLOCKED

    def test_with_another_allowed_is_an_error(self, instrument: Instrument) -> None:
        instrument()
        with pytest.raises(StatekitError, match=r"allowed=False.*exist already, with allowed=True"):
            instrument(allowed=False)

    def test_with_another_provider_counts_in_both(
        self, memory_engine: sa.Engine, instrument: Instrument, collected: Collected
    ) -> None:
        message = message_class()
        fill(memory_engine, message, "PROMOTED")
        other = Collected()
        instrument()
        instrument(other.provider)
        block_one(memory_engine, message)
        assert (collected.counted(), other.counted()) == (ONE_BLOCKED, ONE_BLOCKED)
        other.provider.shutdown()


def test_refuses_what_is_no_provider(instrument: Instrument) -> None:
    with pytest.raises(StatekitError, match="allowed is an OpenTelemetry MeterProvider"):
        instrument("http://collector:4318")


THE_GLOBAL_PROVIDER = """
import sqlalchemy as sa
from opentelemetry import metrics
from statekit.metrics.opentelemetry import instrument
from tests.guards.inbox import fill, message_class
from tests.metrics.test_opentelemetry import ONE_BLOCKED, Collected, block_one

collected = Collected()
{steps}
engine, message = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool), message_class()
fill(engine, message, "PROMOTED")
block_one(engine, message)
assert collected.counted() == ONE_BLOCKED, collected.counted()
"""


@pytest.mark.parametrize(
    "steps",
    [
        "metrics.set_meter_provider(collected.provider); instrument()",
        "instrument(); metrics.set_meter_provider(collected.provider)",
        "instrument(); metrics.set_meter_provider(collected.provider); instrument(); instrument(collected.provider)",
        "instrument(collected.provider); metrics.set_meter_provider(collected.provider); instrument()",
        "instrument(metrics.get_meter_provider()); metrics.set_meter_provider(collected.provider); instrument()",
    ],
)
def test_the_global_provider_counts_once_whenever_it_is_set(steps: str) -> None:
    """It can be set once in a process, so this is one of its own."""
    script = THE_GLOBAL_PROVIDER.format(steps=steps.replace("; ", "\n"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
