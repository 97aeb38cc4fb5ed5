"""Where the models are: ``module:Base``, as the commands take it, and the guards that are declared there."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from statekit.cli.errors import Failure

if TYPE_CHECKING:
    import sqlalchemy as sa

    from statekit.trigger.spec import StateTrigger

FORM = (
    "Write module:Base, such as app.models:Base: the module that imports all models, and in it the declarative base, "
    "the registry or the MetaData."
)

models_argument = click.argument("models", metavar="MODELS")


class Models:
    """The MetaData that a MODELS argument names, and its guards.

    Args:
        named: as the user has written it, such as "app.models:Base".

    Raises:
        Failure: it names none, or no guard is declared there.
    """

    def __init__(self, named: str) -> None:
        from statekit.declared import declared_on

        self.named = named
        self.metadata = _metadata(named)
        tables = sorted(self.metadata.tables.values(), key=lambda table: table.fullname)
        self.guarded = [column for table in tables for column in table.columns if declared_on(column) is not None]
        if not self.guarded:
            raise Failure(
                f"{named}: no guard is declared on its {len(tables)} tables "
                f"({_listed([table.fullname for table in tables])}). Declare one with Guarded or guard(...); if the "
                "models stand in another module, name one that imports them."
            )

    def triggers(self) -> list[StateTrigger]:
        """Return the triggers that the guards declare."""
        from statekit.trigger.status import declared_in

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tables whose foreign keys go round in circles cannot be sorted
            return declared_in(self.metadata)

    def chosen(self, tables: Sequence[str], column: str | None) -> list[sa.Column[Any]]:
        """Return the guarded columns of tables by these names, with or without the schema; of all, if none is named.

        Raises:
            Failure: a name fits none.
        """
        found = [each for each in self.guarded if not tables or {each.table.name, each.table.fullname} & set(tables)]
        known = {name for each in self.guarded for name in (each.table.name, each.table.fullname)}
        if unknown := [name for name in tables if name not in known]:
            names = dict.fromkeys(each.table.fullname for each in self.guarded)
            raise Failure(
                f"--table {unknown[0]}: {self.named} has no guarded table of that name; it has {_listed(names)}."
            )
        chosen = [each for each in found if column is None or each.name == column]
        if not chosen:
            names = dict.fromkeys(f"{each.table.fullname}.{each.name}" for each in found)
            raise Failure(f"--column {column}: no guarded column of that name; there are {_listed(names)}.")
        return chosen


def _metadata(named: str) -> sa.MetaData:
    name, colon, path = named.partition(":")
    if not name or (colon and not path) or "/" in name or name.endswith(".py"):
        raise Failure(f"{named!r} does not name models. {FORM}")
    module = _imported(name)
    if not path:
        return _only_one(module, name)
    value: Any = module
    for number, part in enumerate(parts := path.split("."), 1):
        if not hasattr(value, part):
            owner = ":".join([name, ".".join(parts[: number - 1])]).rstrip(":")
            raise Failure(f"{owner} has no attribute {part!r}. {_candidates_text(module, name)}")
        value = getattr(value, part)
    metadata = _metadata_of(value)
    if metadata is None:
        raise Failure(
            f"{named} is {_kind(value)}; allowed is a declarative base, a registry or a MetaData. "
            f"{_candidates_text(module, name)}"
        )
    return metadata


def _imported(name: str) -> Any:
    # As `python -m` has it; the script that pip installs has not.
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        # What a module prints when it is imported is no part of our output, which may be SQL or JSON.
        with redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise Failure(
                f"{error}. Looked for in {here} and on Python's path. {FORM} Run statekit in the folder of the project."
            ) from None
        raise Failure(f"{name} cannot be imported: {_told(error)}") from None
    except (Exception, SystemExit) as error:
        raise Failure(f"{name} cannot be imported: {_told(error)}") from None


def _told(error: BaseException) -> str:
    # The line of the user's that matters: not one of ours or of a library that refused what it was given.
    libraries = (os.path.dirname(os.path.dirname(__file__)), "site-packages", os.path.dirname(os.__file__), "<frozen")
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not any(library in frame.filename for library in libraries)]
    place = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{place}"


def _metadata_of(value: Any) -> sa.MetaData | None:
    import sqlalchemy as sa

    if isinstance(value, sa.MetaData):
        return value
    try:
        metadata = getattr(value, "metadata", None)
    except Exception:  # a proxy of something that is not there now
        return None
    return metadata if isinstance(metadata, sa.MetaData) else None


def _only_one(module: Any, name: str) -> sa.MetaData:
    found = _candidates(module)
    if len(found) == 1:
        return next(iter(found.values()))
    raise Failure(f"{name} has {'several' if found else 'none'} to choose from. {_candidates_text(module, name)}")


def _candidates_text(module: Any, name: str) -> str:
    found = [f"{name}:{each}" for each in _candidates(module)]
    if not found:
        return f"The module {name} has no declarative base, registry or MetaData. {FORM}"
    return f"Allowed: {_listed(found)}."


def _candidates(module: Any) -> dict[str, sa.MetaData]:
    """Return each MetaData of a module by the best name for it: a base or itself, rather than a model."""
    import sqlalchemy as sa

    best: dict[int, tuple[bool, str, sa.MetaData]] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or (metadata := _metadata_of(value)) is None:
            continue
        is_model = isinstance(value, sa.Table) or hasattr(value, "__mapper__")
        known = best.get(id(metadata))
        if known is None or (known[0] and not is_model):
            best[id(metadata)] = (is_model, name, metadata)
    return {name: metadata for _, name, metadata in best.values()}


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of the type {type(value).__name__}"


def _listed(names: Any, most: int = 10) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
