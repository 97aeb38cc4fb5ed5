"""A thread that does what could not be done at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Later:
    """Calls a function when it is woken, and again after the time that the function has asked for.

    Args:
        work: returns the seconds until it is to be called again, or None to wait until woken. It must not raise.
    """

    def __init__(self, work: Callable[[], float | None]) -> None:
        self._work = work
        self._woken: queue.SimpleQueue[bool] = queue.SimpleQueue()  # which a garbage collection may put something into
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="statekit-ledger", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter ends, and starts no thread any more
                    return
                self._thread = thread

    def wake(self) -> None:
        """Have the function called soon; safe in a finalizer."""
        if self._woken.empty():
            self._woken.put(True)

    def stop(self) -> None:
        """Have the thread end, once the function has returned."""
        self._woken.put(False)

    def _serve(self) -> None:
        pause: float | None = None
        while True:
            try:
                goes_on = self._woken.get(timeout=pause)
            except queue.Empty:
                goes_on = True
            if not goes_on:
                return
            pause = self._work()
