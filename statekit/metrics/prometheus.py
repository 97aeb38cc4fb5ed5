"""Moves as counters of prometheus_client: ``statekit_transitions_blocked_total`` and its like."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from statekit.errors import StatekitError
from statekit.metrics.listening import KINDS, Listening, listen, needed, source_and_target
from statekit.observe.move import Kind, Move

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter

LABELS = ("model", "attribute", "source", "target", "operation")

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_lock = threading.Lock()
_listening: list[Listening] = []


def register(registry: CollectorRegistry | None = None, *, allowed: bool = True) -> Callable[[], None]:
    """Count moves in Prometheus's counters ``statekit_transitions_{blocked,allowed,observed,overridden}_total``.

    Their labels are ``model``, ``attribute``, ``source``, ``target`` and ``operation``. The source of a new row is
    ``(new)``, a row without a state is in ``NULL``, and outside of every operation that label is empty. Asking for the
    same once more changes nothing.

    Args:
        registry: where the counters are registered; None for prometheus_client's own, ``REGISTRY``. In its
            multi-process mode they belong to the process, and the scrape reads the files of all of them: no registry
            holds them then.
        allowed: whether to count legal moves too. If not, there is no such counter, and nothing is spent on them.

    Returns:
        A function that ends it and takes the counters out of the registry; calling it twice does no harm.

    Raises:
        StatekitError: prometheus_client is not installed; the registry is none, or has counters of these names; they
            are counted already, and ``allowed`` differs; or multi-process mode is on, and its folder cannot be used.
    """
    with needed("prometheus_client", "prometheus"):
        import prometheus_client as client
    if registry is None:
        registry = client.REGISTRY
    elif not isinstance(registry, client.CollectorRegistry):
        raise StatekitError(f"register({registry!r}): allowed is a prometheus_client.CollectorRegistry, or None.")
    holder = None if _is_multiprocess() else registry

    with _lock:
        for each in _listening:
            if each.to is holder:
                return each.again(allowed, "statekit.metrics.prometheus.register")
        counters = {
            kind: client.Counter(f"statekit_transitions_{kind}", text, LABELS, registry=None)
            for kind, text in KINDS.items()
            if allowed or kind != "allowed"
        }
        if holder is not None:
            _add(counters, holder)
        stop = listen(lambda move: _count(counters[move.kind], move), allowed=allowed)

        def end() -> None:
            with _lock:
                stop()
                if holder is not None:
                    _take_out(counters, holder)
                if listening in _listening:
                    _listening.remove(listening)

        listening = Listening(holder, allowed, end)
        _listening.append(listening)
    return end


def _count(counter: Counter, move: Move) -> None:
    source, target = source_and_target(move)
    counter.labels(move.model, move.attribute, source, target, move.operation or "").inc(move.number)


def _add(counters: dict[Kind, Counter], registry: CollectorRegistry) -> None:
    added: dict[Kind, Counter] = {}
    try:
        for kind, counter in counters.items():
            registry.register(counter)
            added[kind] = counter
    except ValueError as error:
        _take_out(added, registry)
        raise StatekitError(
            f"The registry has a metric with the name of one of statekit's counters: {error}. Take it out with "
            "registry.unregister(), or give register() a registry of its own."
        ) from error


def _take_out(counters: dict[Kind, Counter], registry: CollectorRegistry) -> None:
    for counter in counters.values():
        with contextlib.suppress(KeyError):  # somebody has done so already
            registry.unregister(counter)


def _is_multiprocess() -> bool:
    """Return whether prometheus_client keeps its values in files, one for each process.

    Raises:
        StatekitError: it was meant to and does not, or it cannot: otherwise no scrape would ever show what is wrong.
    """
    from prometheus_client import values

    # It has decided when it was imported.
    in_files = values.ValueClass is not values.MutexValue
    folder = os.environ.get(_FOLDER)
    if folder is not None and not in_files:
        raise StatekitError(
            f"{_FOLDER} was set after prometheus_client had been imported, which has no effect. Set it before Python "
            "is started, in the environment of the server."
        )
    if in_files and not (folder and os.path.isdir(folder)):
        raise StatekitError(
            f"{_FOLDER}={folder!r} is no folder, so that nothing could be counted. Make it, and empty it, each time "
            "before the server is started."
        )
    return in_files
