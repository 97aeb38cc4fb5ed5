"""Moves as counters of OpenTelemetry: ``statekit.transitions.blocked`` and its like."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from statekit.errors import StatekitError
from statekit.metrics.listening import KINDS, Listening, listen, needed, source_and_target
from statekit.observe.move import Move

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, MeterProvider

_lock = threading.Lock()
_listening: list[Listening] = []


def instrument(meter_provider: MeterProvider | None = None, *, allowed: bool = True) -> Callable[[], None]:
    """Count moves in OpenTelemetry's counters ``statekit.transitions.{blocked,allowed,observed,overridden}``.

    Their attributes are ``statekit.model``, ``statekit.attribute``, ``statekit.source``, ``statekit.target`` and,
    inside of an operation, ``statekit.operation``. The source of a new row is ``(new)``, and a row without a state is
    in ``NULL``. Asking for the same once more changes nothing.

    Args:
        meter_provider: whose meter counts; None for the global one, also if that is set only later.
        allowed: whether to count legal moves too. If not, nothing is spent on them.

    Returns:
        A function that ends it; calling it twice does no harm. The provider goes on reporting what was counted.

    Raises:
        StatekitError: opentelemetry-api is not installed; the meter provider is none; or it is counted there already,
            and ``allowed`` differs.
    """
    with needed("opentelemetry", "opentelemetry"):
        from opentelemetry import metrics
    from statekit import __version__

    if meter_provider is not None and not isinstance(meter_provider, metrics.MeterProvider):
        raise StatekitError(
            f"instrument({meter_provider!r}): allowed is an OpenTelemetry MeterProvider, or None for the global one."
        )
    # Before the application has set a global provider there is a stand-in, which later hands over to it.
    of_all = metrics.get_meter_provider()
    provider = of_all if meter_provider is None else meter_provider
    to = None if provider is of_all else provider

    with _lock:
        for each in _listening:
            if (of_all if each.to is None else each.to) is provider:
                return each.again(allowed, "statekit.metrics.opentelemetry.instrument")
        meter = provider.get_meter("statekit", __version__)
        counters = {
            kind: meter.create_counter(f"statekit.transitions.{kind}", "{transition}", text)
            for kind, text in KINDS.items()
        }
        stop = listen(lambda move: _count(counters[move.kind], move), allowed=allowed)

        def end() -> None:
            with _lock:
                stop()
                if listening in _listening:
                    _listening.remove(listening)

        listening = Listening(to, allowed, end)
        _listening.append(listening)
    return end


def _count(counter: Counter, move: Move) -> None:
    source, target = source_and_target(move)
    attributes = {
        "statekit.model": move.model,
        "statekit.attribute": move.attribute,
        "statekit.source": source,
        "statekit.target": target,
    }
    if move.operation is not None:
        attributes["statekit.operation"] = move.operation
    counter.add(move.number, attributes)
