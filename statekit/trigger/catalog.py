"""Which state triggers a database has, and whether they are as they were made. It reads and changes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from statekit.errors import Pair, StatekitError
from statekit.trigger import dialects, postgresql, sqlite
from statekit.trigger.spec import PREFIX, VERSIONS, StateTrigger

ProblemKind = Literal["disabled", "edited", "incomplete"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an installed trigger does not do what it was made for.

    Attributes:
        kind: "disabled", "edited" (by hand), or "incomplete" (a part of it is missing, such as that of a partition).
        detail: what exactly, for people.
    """

    kind: ProblemKind
    detail: str


@dataclass(frozen=True, slots=True)
class Installed:
    """A trigger that a database has.

    Attributes:
        schema: the schema that its table is in.
        table: name of its table.
        trigger: what it was made of, as the database has kept it.
        problems: what is wrong with it.
    """

    schema: str
    table: str
    trigger: StateTrigger
    problems: tuple[Problem, ...] = ()


def default_schema(connection: sa.Connection) -> str:
    """Return the schema of a table whose declaration names none."""
    return sa.inspect(connection).default_schema_name or ""


def installed(connection: sa.Connection) -> list[Installed]:
    """Return every state trigger in the database, by schema, table and column.

    Raises:
        StatekitError: there are no state triggers for this database, or a later statekit has made one.
    """
    dialects.writer(connection.dialect)  # which raises where there is none
    found = _in_sqlite(connection) if connection.dialect.name == "sqlite" else _in_postgresql(connection)
    return sorted(found, key=lambda each: (each.schema, each.table, each.trigger.column))


def blocked(connection: sa.Connection, triggers: Iterable[StateTrigger] | None = None) -> Counter[Pair]:
    """Return how often each illegal move was blocked by triggers, whoever tried it; a rollback took nothing back.

    Args:
        triggers: of which; None for all of the database.

    Returns:
        Number of rows by (source, target), None for NULL and as the source of new rows. ``"*"`` stands for what has no
        counter of its own: both, if one of them is no state of the table.

    Raises:
        StatekitError: the role that is connected may not read the counters. Nothing is ever taken for 0.
    """
    if connection.dialect.name != "postgresql":
        return Counter()  # SQLite takes back with the statement whatever a trigger does
    wanted = None if triggers is None else {trigger.name for trigger in triggers}
    function = "statekit.counts_v1()"
    may = connection.execute(sa.text(_MAY_READ)).one_or_none()
    if may is None or (may.uses and may.executes is None):
        return Counter()  # no trigger was ever made here
    if not (may.uses and may.executes):
        raise StatekitError(
            f"The role {may.role} may not read what triggers have counted. Its owner says: GRANT USAGE ON SCHEMA "
            f'statekit TO "{may.role}"; GRANT EXECUTE ON FUNCTION {function} TO "{may.role}";'
        )
    rows = connection.exec_driver_sql(f'SELECT "trigger", kind, source, target, number FROM {function}').all()
    total: Counter[Pair] = Counter()
    for name, kind, source, target, number in rows:
        if number is None and (wanted is None or name in wanted):
            raise StatekitError(
                f"The owner of {function} may not read the counters of {name}, which another role has made. Make that "
                "trigger again, which grants it."
            )
        if kind == "blocked" and number and (wanted is None or name in wanted):
            total[source, target] += number
    return total


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

_MAY_READ = """
SELECT current_user AS role, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS uses,
       pg_catalog.has_function_privilege(p.oid, 'EXECUTE') AS executes
FROM pg_catalog.pg_namespace n
LEFT JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = 'counts_v1' AND p.pronargs = 0
WHERE n.nspname = 'statekit'
"""

_ROOTS = """
SELECT t.oid, t.tgname, t.tgrelid, n.nspname, c.relname, c.relkind = 'p' OR c.relispartition AS is_partitioned,
       pg_catalog.obj_description(t.oid, 'pg_trigger') AS about
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE pg_catalog.starts_with(t.tgname::text, 'statekit_') AND NOT t.tgisinternal AND t.tgparentid = 0
  AND pg_catalog.obj_description(t.oid, 'pg_trigger') IS NOT NULL
"""

_FAMILY = """
WITH RECURSIVE family(root, oid) AS (
  SELECT c.oid, c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (CAST(:roots AS pg_catalog.oid[]))
  UNION
  SELECT f.root, i.inhrelid FROM pg_catalog.pg_inherits i JOIN family f ON i.inhparent = f.oid
)
SELECT f.root, f.oid, c.oid::pg_catalog.regclass::text AS relation, c.relkind, t.tgname, t.tgenabled,
       pg_catalog.pg_get_triggerdef(t.oid) AS definition
FROM family f
JOIN pg_catalog.pg_class c ON c.oid = f.oid AND c.relkind IN ('r', 'p')
LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = f.oid
  AND (pg_catalog.starts_with(t.tgname::text, 'statekit_') OR pg_catalog.starts_with(t.tgname::text, 'zzz_statekit_'))
ORDER BY f.root, f.oid <> f.root, relation, t.tgname
"""

_FUNCTIONS = """
SELECT p.proname, p.prosrc, p.prosecdef, p.provolatile, p.proisstrict, p.proconfig
FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.to_regnamespace('statekit')
"""

_COUNTERS = """
SELECT c.relname FROM pg_catalog.pg_class c
WHERE c.relnamespace = pg_catalog.to_regnamespace('statekit') AND c.relkind = 'S'
"""


def _in_postgresql(connection: sa.Connection) -> list[Installed]:
    noted = connection.execute(sa.text(_ROOTS)).all()
    roots = [(row, data) for row in noted if (data := _data(row.tgname, row.about)) is not None]
    if not roots:
        return []
    family: dict[int, list[Any]] = defaultdict(list)
    with _qualified_names(connection):
        for part in connection.execute(sa.text(_FAMILY), {"roots": [row.tgrelid for row, _ in roots]}):
            family[part.root].append(part)
    functions = {row.proname: row for row in connection.execute(sa.text(_FUNCTIONS))}
    counters = set(connection.scalars(sa.text(_COUNTERS)))
    found = []
    for row, data in roots:
        trigger = StateTrigger.from_data(data["statekit"])
        if trigger.name != row.tgname:
            continue  # a copy under another name is nothing that we have made
        problems = [
            *_function_problems(trigger, functions),
            *_counter_problems(trigger, counters),
            *_trigger_problems(trigger, row.is_partitioned, data, family[row.tgrelid]),
        ]
        found.append(Installed(row.nspname, row.relname, trigger, tuple(problems)))
    return found


@contextmanager
def _qualified_names(connection: sa.Connection) -> Iterator[None]:
    """Have PostgreSQL write definitions in a form that does not depend on the search path."""
    set_path = sa.text("SELECT pg_catalog.set_config('search_path', :path, :local)")
    before = connection.exec_driver_sql("SHOW search_path").scalar_one()
    connection.execute(set_path, {"path": "pg_catalog", "local": True})
    # In autocommit, what is local ends with its own statement.
    local = connection.exec_driver_sql("SHOW search_path").scalar_one() == "pg_catalog"
    if not local:
        connection.execute(set_path, {"path": "pg_catalog", "local": False})
    try:
        yield
    finally:
        connection.execute(set_path, {"path": before, "local": local})


def _data(name: str, about: str) -> dict[str, Any] | None:
    """Return what the comment on a trigger says; None if it is no comment of ours."""
    try:
        data: dict[str, Any] = json.loads(about)
        version = data["statekit"]["version"]
    except (ValueError, KeyError, TypeError):
        return None
    _check_version(name, version)
    return data


def _check_version(name: str, version: Any) -> None:
    if version not in VERSIONS:
        raise StatekitError(
            f"The trigger {name} was made by a later statekit: of version {version!r}, where this one knows "
            f"{', '.join(map(str, VERSIONS))}. Install that, or one that is newer still."
        )


def _function_problems(trigger: StateTrigger, functions: dict[str, Any]) -> Iterable[Problem]:
    for function in postgresql.functions(trigger):
        known = functions.get(function.name)
        if known is None:
            yield Problem("incomplete", f"the function statekit.{function.name} is missing")
        elif known.prosrc.strip() != function.body.strip() or not _is_as_defined(known, function.definition):
            yield Problem("edited", f"the function statekit.{function.name} was changed by hand")


def _is_as_defined(known: Any, definition: str) -> bool:
    """Return whether a function is still what CREATE FUNCTION said, which ALTER FUNCTION changes."""
    settings = {each.partition("=")[0] for each in known.proconfig or ()}
    values = [each.partition("=")[2] for each in known.proconfig or ()]
    return (
        not known.proisstrict
        and known.prosecdef == ("SECURITY DEFINER" in definition)
        and (_char(known.provolatile) == "i") == ("IMMUTABLE" in definition)
        and settings == set(re.findall(r"\bSET (\w+) =", definition))
        and all(value in definition for value in values)
    )


def _counter_problems(trigger: StateTrigger, counters: set[str]) -> Iterable[Problem]:
    if missing := sorted(postgresql.counters(trigger).keys() - counters):
        yield Problem("incomplete", f"counters are missing in the schema statekit: {', '.join(missing)}")


def _trigger_problems(
    trigger: StateTrigger, is_partitioned: bool, data: dict[str, Any], parts: Sequence[Any]
) -> Iterable[Problem]:
    ours = {trigger.name, f"{trigger.name}_new"}
    if is_partitioned or trigger.on_illegal == "skip":
        ours.add(f"zzz_{trigger.name}")
    history = {f"{trigger.name}_history", f"{trigger.name}_history_new", f"zzz_{trigger.name}_history"}
    if trigger.history:
        ours |= history - {f"{trigger.name}_history" if is_partitioned else f"zzz_{trigger.name}_history"}
    by_relation: dict[str, dict[str, Any]] = {}
    for part in parts:
        names = by_relation.setdefault(part.relation, {})
        if part.tgname in {*ours, f"zzz_{trigger.name}", *(history if trigger.version > 1 else ())}:
            names[part.tgname] = part
    for number, (relation, names) in enumerate(by_relation.items()):
        for name in sorted(ours - names.keys()):
            yield Problem("incomplete", f"the trigger {name} is missing on {relation}")
        disabled = [name for name, part in names.items() if _char(part.tgenabled) not in ("O", "A")]
        for name in sorted(disabled):
            yield Problem("disabled", f"the trigger {name} is disabled on {relation}")
        if number == 0:
            root = {name: _anywhere(part) for name, part in names.items()}
            definitions = "\n".join(part.definition for _, part in sorted(names.items()))
            is_complete = not ours - names.keys()
            is_edited = is_complete and _md5(definitions) != data.get("definitions")
            is_as_made = is_complete and not is_edited
        else:
            is_edited = is_as_made and any(root.get(name) != _anywhere(part) for name, part in names.items())
        if is_edited:
            yield Problem("edited", f"the triggers on {relation} were changed by hand")


def _anywhere(part: Any) -> str:
    """Return the definition of a trigger, whatever table it is on."""
    start, _, end = part.definition.partition(f" ON {part.relation} ")
    return f"{start} {end}"


def _char(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value  # asyncpg gives the type "char" as bytes


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


# --- SQLite -----------------------------------------------------------------------------------------------------------


def _in_sqlite(connection: sa.Connection) -> list[Installed]:
    found = []
    schemas = [row[1] for row in connection.exec_driver_sql("PRAGMA database_list")]
    for schema in schemas:
        quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
        kept = f"SELECT name, tbl_name, sql FROM {quoted}.sqlite_master WHERE type = 'trigger'"
        rows = connection.exec_driver_sql(kept)
        texts = {row.name: (row.tbl_name, row.sql) for row in rows}
        for name, (table, text) in texts.items():
            if not name.startswith(PREFIX) or (data := _sqlite_data(text)) is None:
                continue
            _check_version(name, data.get("version"))
            trigger = StateTrigger.from_data(data)
            if trigger.name == name:
                found.append(Installed(schema, table, trigger, tuple(_sqlite_problems(trigger, texts))))
    return found


def _sqlite_data(text: str) -> dict[str, Any] | None:
    start = text.find(f"/* {sqlite.MARK}")
    if start < 0:
        return None
    start += len(f"/* {sqlite.MARK}")
    try:
        data: dict[str, Any] = json.loads(text[start : text.index(" */", start)])
        return data
    except ValueError:
        return None


def _sqlite_problems(trigger: StateTrigger, texts: dict[str, tuple[str, str]]) -> Iterable[Problem]:
    for name, definition in sqlite.definitions(trigger).items():
        if name not in texts:
            yield Problem("incomplete", f"the trigger {name} is missing")
        elif _without_schema(texts[name][1]) != _without_schema(definition):
            yield Problem("edited", f"the trigger {name} was changed by hand")


def _without_schema(definition: str) -> str:
    return definition.partition(" AFTER ")[2] or definition.partition(" BEFORE ")[2]
