"""Where in the application's code something happens, for whoever has to find the job that makes illegal moves."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

_LIBRARIES = {"flask_sqlalchemy", "greenlet", "sqlalchemy", "sqlmodel", "statekit", "transitions"}
_MACHINERY = sys.stdlib_module_names | _LIBRARIES


def place() -> str | None:
    """Return the innermost line of code that is neither ours, nor SQLAlchemy's, nor Python's own.

    Returns:
        Such as ``"app.jobs:42 in capture_spam"``: module, line and function; the file's name for a script, and
        for code without a module. None where there is no such line.
    """
    frame: FrameType | None = sys._getframe(1)
    greenlet: Any = None
    while frame is not None:
        name: str = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] not in _MACHINERY:
            code = frame.f_code
            if name == "__main__" and (spec := frame.f_globals.get("__spec__")) is not None:
                name = spec.name  # as where the module is imported
            elif name in ("", "__main__"):
                name = code.co_filename.replace("\\", "/").rpartition("/")[2]
            return f"{name}:{frame.f_lineno} in {code.co_qualname}"
        frame = frame.f_back
        if frame is None and "greenlet" in sys.modules:
            # SQLAlchemy's asyncio runs in a greenlet, outside of which the caller waits.
            greenlet = (greenlet or sys.modules["greenlet"].getcurrent()).parent
            frame = greenlet.gr_frame if greenlet is not None else None
    return None
