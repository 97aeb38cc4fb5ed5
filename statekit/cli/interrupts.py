"""Ctrl-C as a wish to stop at the next good moment; the second time, at once."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import click


class Interrupts:
    """Takes Ctrl-C for the length of a block.

    Attributes:
        wanted: whether somebody wants the work to stop.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: Any = None

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        # Who runs it in the background of a shell, or under nohup, has Ctrl-C ignored, and wants that.
        if is_main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _asked(self, number: int, frame: Any) -> None:
        self.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(Exception):  # such as a write to stderr that this one has interrupted
            click.echo("\nStopping after this batch. Ctrl-C once more stops at once.", err=True)
