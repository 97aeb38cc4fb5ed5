"""What is called for a transition: a function, or a method of the model by its name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Literal

from statekit.errors import StatekitError, TableError
from statekit.table.transition import Hook

_Takes = Literal["nothing", "optional", "required", "is a value"]
Caller = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]
_NONE: Mapping[str, Any] = {}


class Callback:
    """A condition, or what is called before or after a move.

    A function is given the object first, as a method is. What takes nothing but the object is given nothing else; all
    others are given the arguments of the event.

    Args:
        hook: a function, or the name of a method, a property or an attribute of the model.

    Attributes:
        name: how messages call it.
    """

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self.name = hook if isinstance(hook, str) else _name(hook)
        self._known: dict[type, _Takes] = {}
        self._callers: dict[type, Caller] = {}

    def __call__(self, obj: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = _NONE) -> Any:
        """Call it for an object; the value of an attribute or a property is what a call would have returned."""
        return (self._callers.get(type(obj)) or self._caller(type(obj)))(obj, args, kwargs)

    def takes(self, class_: type) -> _Takes:
        """Return which arguments it takes beside the object.

        Raises:
            StatekitError: the class has nothing of this name.
        """
        takes = self._known.get(class_)
        if takes is None:
            takes = self._known[class_] = self._look(class_)
        return takes

    def _caller(self, class_: type) -> Caller:
        takes = self.takes(class_)
        caller = self._callers[class_] = (
            _call_method(self._hook, takes) if isinstance(self._hook, str) else (_call_function(self._hook, takes))
        )
        return caller

    def check(self, class_: type, where: str) -> None:
        """Refuse the name of something that a class does not have.

        Raises:
            TableError: it has none.
        """
        try:
            self.takes(class_)
        except StatekitError as error:
            raise TableError(f"{where}: {error}") from None
        if callable(self._hook) and not accepts(self._hook):
            raise TableError(f"{where}: {self.name} takes no argument, and is given the object. Let it take one.")

    def is_async(self, class_: type) -> bool:
        """Return whether it is an ``async def``."""
        return is_async(static(class_, self._hook) if isinstance(self._hook, str) else self._hook)

    def _look(self, class_: type) -> _Takes:
        called: Any = self._hook
        if isinstance(called, str):
            called = static(class_, called)
            if called is None:
                raise StatekitError(
                    f"{class_.__name__} has no method {self._hook!r}. Define it in the class, or give the function."
                )
            if isinstance(called, staticmethod | classmethod):
                called = called.__get__(None, class_)
                return _takes(called, 0)
            if isinstance(called, functools.partialmethod):
                called = called.__get__(None, class_)
            elif not callable(called):
                called = getattr(called, "func", None)  # of SQLAlchemy's hybrid_method, and singledispatchmethod
            if not callable(called):
                return "is a value"
        return _takes(called, 1)

    def __getstate__(self) -> dict[str, Any]:
        return {"_hook": self._hook, "name": self.name, "_known": {}, "_callers": {}}


def _call_method(name: str, takes: _Takes) -> Caller:
    if takes == "is a value":
        return lambda obj, args, kwargs: _value(obj, name)
    if takes == "nothing":
        return lambda obj, args, kwargs: getattr(obj, name)()
    return lambda obj, args, kwargs: getattr(obj, name)(*args, **kwargs)


def _value(obj: object, name: str) -> Any:
    value = getattr(obj, name)
    if callable(value):  # as an answer, it would always be a yes
        raise StatekitError(f"{type(obj).__name__}.{name} is something to call, and no method. Name a method instead.")
    return value


def _call_function(function: Callable[..., Any], takes: _Takes) -> Caller:
    if takes == "nothing":
        return lambda obj, args, kwargs: function(obj)
    return lambda obj, args, kwargs: function(obj, *args, **kwargs)


def is_async(function: Any) -> bool:
    """Return whether a function, or an object that is called, is an ``async def``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def is_unawaited(result: object) -> bool:
    """Return whether a result is a coroutine, which is closed: nobody is going to await it."""
    if not inspect.iscoroutine(result):
        return False
    result.close()
    return True


def static(class_: type, name: str) -> Any:
    """Return what a class has under a name, itself or by inheritance, as it stands there; None if it has nothing."""
    # Not by getattr(), as a hybrid property would give an SQL expression, nor from the metaclass.
    return next((vars(each)[name] for each in class_.__mro__ if name in vars(each)), None)


def accepts(function: Any, *, alone: bool = False) -> bool:
    """Return whether something can be called with one argument, as far as it tells.

    Args:
        function: what is to be called.
        alone: whether with that argument and no more.
    """
    try:
        signature = inspect.signature(function)
        signature.bind(None) if alone else signature.bind_partial(None)
    except TypeError:
        return False
    except ValueError:  # a builtin does not tell
        pass
    return True


def _takes(function: Any, skip: int) -> _Takes:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # operator.attrgetter() and other builtins do not tell
        return "nothing"
    if parameters and parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        parameters = parameters[skip:]
    if not parameters:
        return "nothing"
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = any(each.default is each.empty and each.kind not in various for each in parameters)
    return "required" if needed else "optional"


def _name(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if name == "<lambda>":  # there may be several
        code = function.__code__
        return f"lambda at {PurePath(code.co_filename).name}:{code.co_firstlineno}"
    return name or type(function).__name__
