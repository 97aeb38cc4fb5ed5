"""Processes of an application whose moves are counted; started by test_processes.py, each with one line of JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from statekit import counts, operation
from tests.guards.inbox import message_class

ROUNDS = 5
"""How often a worker tries to move its rows."""


def work(url: str, first: int, last: int) -> dict[str, int]:
    """Try several times to move the rows of a worker, and return what the process itself has counted."""
    message = message_class()
    engine = sa.create_engine(url, connect_args={"timeout": 30} if url.startswith("sqlite") else {})
    with operation("Spam capture", on_illegal="skip") as op:
        for _ in range(ROUNDS):
            with Session(engine) as session:
                for each in session.scalars(sa.select(message).where(message.id.between(first, last))):
                    each.status = "SPAM_REVIEW"
                session.commit()
    engine.dispose()
    return {"blocked": counts(message.status).total(), "allowed": op.allowed.total()}


def serve() -> None:
    """Answer scrapes for all processes, as the documentation has it, until standard input is closed."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    print(server.server_port, flush=True)
    sys.stdin.read()
    server.shutdown()
    thread.join()


def with_prometheus(url: str, first: int, last: int) -> None:
    from statekit.metrics.prometheus import register

    register()
    print(json.dumps(work(url, first, last)))


def forking(url: str, first: int, last: int) -> None:
    """Count in a process, then in three that it forks off, of which each is killed, then in the first one again."""
    from statekit.metrics.prometheus import register

    register()
    work(url, first, last)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            work(url, first, last)
            os.kill(os.getpid(), signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
    work(url, first, last)
    print(json.dumps({"blocked": counts().total()}))


def ending(url: str, first: int, last: int) -> None:
    """Count, end it, and count anew, on whatever registry."""
    from prometheus_client import CollectorRegistry

    from statekit.metrics.prometheus import register

    register()()
    register()
    end = register(CollectorRegistry())
    work(url, first, last)
    end()
    register(allowed=False)
    print(json.dumps(work(url, first, last)))


def with_opentelemetry(url: str, first: int, last: int) -> None:
    """Instrument before forking, and set a provider in each of three processes that were forked off."""
    from opentelemetry import metrics

    from statekit.metrics.opentelemetry import instrument
    from tests.metrics.test_opentelemetry import Collected

    instrument()
    for _ in range(3):
        reading, writing = os.pipe()
        if os.fork() == 0:
            collected = Collected()
            metrics.set_meter_provider(collected.provider)
            work(url, first, last)
            found = [[*row, number] for row, number in collected.counted().items()]
            os.write(writing, json.dumps(found).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            print(pipe.read())
        os.wait()


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    call: Any = globals()[what]
    call(*(int(each) if each.isdigit() else each for each in arguments))
