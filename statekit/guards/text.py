"""SQL that is written as text: the guard cannot judge it, but an engine can be told to say where it stands.

A tokenizer of its own reads the text, because a hint is not worth a hard dependency on sqlglot (8 MB, and it refuses
``UPDATE OR IGNORE``) or on sqlparse (which only makes tokens too, and takes a nested comment's end for SQL).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.sql.elements import TextClause
from sqlalchemy.sql.selectable import TextualSelect

from statekit.guards.guard import Guard, all_guards
from statekit.observe.log import WINDOW, logger
from statekit.observe.operation import current_operation

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

REMEMBERED = 1_000
"""Of how many lines it is remembered when they were written; beyond that the oldest is forgotten."""
SHOWN = 500
"""How many characters of a text are in the record's data."""
_LONG = 10_000
"""From how many characters on a text is read anew each time, instead of being kept in memory."""


def warn_about_text(engine: sa.Engine | AsyncEngine) -> None:
    """Log a warning whenever an engine executes SQL text that writes to a guarded column, past the guard.

    It looks at ``text()`` and ``exec_driver_sql()``: at UPDATE, also in a CTE, at the UPDATE of an upsert or a MERGE,
    and at REPLACE. The text is executed as it is. The same text, whatever values stand in it, is named at most once a
    minute in a process. Guards that are declared later are known too, and asking twice changes nothing.

    It is a hint and no proof. It does not see what a function, a trigger, a view or a rule does, SQL that the database
    puts together by itself, text that is only a part of a larger statement, COPY and plain INSERT, other engines and
    other programs. Where a text does not name the schema of a table, it is taken for the guarded one.

    The engine pays for it, and nobody else: SQLAlchemy calls a function of ours before each of its statements, which
    looks what kind of statement it is and leaves at once if it is no text. A text is read when it comes for the first
    time; one that holds none of the words for writing is not read further. What is logged holds the beginning of the
    text, with the values that were written into it.

    Args:
        engine: the engine, sync or async, with all its connections, those that are open already included.

    Raises:
        TypeError: it is no engine, but a connection, a session or a URL.
    """
    event.listen(_sync_engine(engine), "before_cursor_execute", _before_cursor_execute)  # twice is once


def _sync_engine(engine: Any) -> sa.Engine:
    if isinstance(engine, sa.Engine):
        return engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine  # who has no async engine need not load it

    if isinstance(engine, AsyncEngine):
        return engine.sync_engine
    given = f"warn_about_text({type(engine).__name__}): allowed is an Engine or an AsyncEngine"
    if isinstance(engine, (sa.Connection, AsyncConnection)):
        raise TypeError(f"{given}, for all of its connections. Write warn_about_text(connection.engine).")
    raise TypeError(f"{given}, as create_engine() and create_async_engine() return it.")


def _before_cursor_execute(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    try:
        if _is_text(context):
            _look(statement, connection.dialect, context.execution_options)
    except Exception:  # a hint never stops a statement
        with suppress(Exception):
            logger.debug("statekit could not look at SQL text", exc_info=True)


def _is_text(context: Any) -> bool:
    if context is None:
        return False
    if context.compiled is None:
        return True  # exec_driver_sql()
    statement = context.compiled.statement
    statement = getattr(statement, "element", statement)  # of select(…).from_statement(text(…))
    return isinstance(statement, (TextClause, TextualSelect))


def _look(statement: str, dialect: sa.Dialect, options: Any) -> None:
    """Write a line for each guard that a text goes past."""
    read = _read if len(statement) < _LONG else _read.__wrapped__
    writes, shape = read(statement, dialect.name)
    if not writes:
        return
    translated = options.get("schema_translate_map") or {}
    for guard in all_guards():
        table = guard.column.table
        schema = translated.get(table.schema, table.schema) or dialect.default_schema_name
        for write in writes:
            if not _is_named(write.table, table.name, schema, dialect.name):
                continue
            columns = write.columns
            if columns is None or any(_is_same(each, guard.column.name, dialect.name) for each in columns):
                line = (shape, write.verb, table.fullname, guard.model, guard.attribute)
                if _is_due(hash(line)):
                    _write_line(guard, write, statement)


def _is_named(path: tuple[str, ...], name: str, schema: str | None, dialect: str) -> bool:
    if not _is_same(path[-1], name, dialect):
        return False
    return len(path) == 1 or schema is None or _is_same(path[-2], schema.rpartition(".")[2], dialect)


def _is_same(token: str, name: str, dialect: str) -> bool:
    """Return whether a token is this name; a quoted one means its case on PostgreSQL only."""
    if token[0] == '"' and dialect == "postgresql":
        return token[1:] == name
    return token.removeprefix('"').lower() == str.lower(name)  # quoted_name.lower() may leave it as it is


# --- the lines --------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_written: dict[int, float] = {}
"""When a line was written last. Not the windows of statekit.observe.log: those count moves by their states."""


def _is_due(line: int) -> bool:
    """Return whether a line may be written now, and remember that it was."""
    now = time.monotonic()
    with _lock:
        if now - _written.get(line, -WINDOW) < WINDOW:
            return False
        _written.pop(line, None)
        _written[line] = now
        if len(_written) > REMEMBERED:
            del _written[next(iter(_written))]
    return True


def _write_line(guard: Guard, write: _Write, statement: str) -> None:
    operation = current_operation()
    text = " ".join(statement.split())
    logger.warning(
        "[SELF-HEAL] Unguarded SQL text: %s of %s %s %s; the guard on %s.%s does not see it. "
        "Write it with sqlalchemy.update(), or let a database trigger hold it too.",
        write.verb,
        guard.column.table.fullname,
        "sets" if write.columns is not None or write.verb in _WHOLE_ROW else "may set",
        guard.column.name,
        guard.model,
        guard.attribute,
        extra={
            "statekit_kind": "text",
            "statekit_model": guard.model,
            "statekit_attribute": guard.attribute,
            "statekit_operation": operation.name if operation is not None else None,
            "statekit_statement": text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…",
        },
    )


# --- what a text writes -----------------------------------------------------------------------------------------------
#
# A token is a text: an unquoted name or word in lower case; a quoted name after one '"'; "'" for a literal or a
# parameter, whatever its value; any other character as it is. Comments and white space are no tokens.

_MAY_WRITE = re.compile(r"\b(?:update|replace|merge)\b", re.IGNORECASE)
_WHOLE_ROW = ("REPLACE", "INSERT OR REPLACE")
_BODIES = {"trigger", "function", "procedure", "rule"}
_END_OF_SET = {"where", "returning", "order", "limit", "when", "output", ";"}
_OPENING, _CLOSING = {"(", "[", "case"}, {")", "]", "end"}


class _Write(NamedTuple):
    verb: str
    table: tuple[str, ...]
    """The table's name as tokens, behind its schema where that is named."""
    columns: tuple[str, ...] | None
    """The columns that are set, as tokens; None for all of them, or where it cannot be told."""


@lru_cache(maxsize=500)
def _read(statement: str, dialect: str) -> tuple[tuple[_Write, ...], int]:
    """Return what a text writes, and what all texts have in common that differ only in values and layout."""
    if not _MAY_WRITE.search(statement):
        return (), 0
    tokens = list(_tokens(statement, dialect))
    writes = tuple(write for each in _statements(tokens) for write in _writes(each, dialect))
    return writes, hash(tuple(filter(_is_name, tokens)))


def _statements(tokens: list[str]) -> Iterator[list[str]]:
    """Yield the statements of a text, each with some ";" at its end, so that one may look ahead."""
    statement: list[str] = []
    for token in [*tokens, ";"]:
        if token != ";":
            statement.append(token)
            continue
        if statement[:1] == ["create"] and not _BODIES.isdisjoint(statement[1:8]):
            return  # it stores statements, and executes none; they may have any number of ";"
        if statement[:1] != ["explain"] or "analyze" in statement:
            yield [*statement, ";", ";", ";", ";"]
        statement = []


def _writes(tokens: list[str], dialect: str) -> Iterator[_Write]:
    depth = 0
    into: dict[int, tuple[str, ...]] = {}  # what an INSERT or MERGE is into, by how many parentheses it stands in
    for at, token in enumerate(tokens):
        before, after = tokens[at - 1], tokens[at + 1 : at + 2]
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        elif token == "into":
            into[depth], _ = _target(tokens, at + 1)
            if before == "replace" and into[depth]:
                verb = "INSERT OR REPLACE" if tokens[at - 2] == "or" else "REPLACE"
                yield _Write(verb, into[depth], None)
        elif token == "update" and before in ("do", "then", "key"):
            verb = {"do": "INSERT … ON CONFLICT DO UPDATE", "then": "MERGE"}.get(
                before, "INSERT … ON DUPLICATE KEY UPDATE"
            )
            if into.get(depth):
                yield _Write(verb, into[depth], _set_columns(tokens, at + 1 + (after == ["set"]), dialect))
        elif token == "update":
            table, at_set = _target(tokens, at + 3 if after == ["or"] else at + 1)
            # There may be an alias, and on SQLite an index; without SET it is a lock or a privilege.
            if table and "set" in tokens[at_set : at_set + 12]:
                at_set = tokens.index("set", at_set)
                yield _Write("UPDATE", table, _set_columns(tokens, at_set + 1, dialect))


def _target(tokens: list[str], at: int) -> tuple[tuple[str, ...], int]:
    """Return the name of a table that is written to, and where it ends; an empty one if there is none."""
    if tokens[at] == "only":
        at += 2 if tokens[at + 1] == "(" else 1
    return _path(tokens, at)


def _path(tokens: list[str], at: int) -> tuple[tuple[str, ...], int]:
    path = []
    while _is_name(tokens[at]):
        path.append(tokens[at])
        if tokens[at + 1] != ".":
            return tuple(path), at + 1
        at += 2
    return (), at


def _set_columns(tokens: list[str], at: int, dialect: str) -> tuple[str, ...] | None:
    """Return the columns that a list of assignments sets, or None where it cannot be told."""
    columns: list[str] = []
    depth, expected = 0, True
    while at < len(tokens):
        token = tokens[at]
        if token == "set":
            break  # the next UPDATE's, where a text is broken: each is read once
        if not depth and (token in _END_OF_SET or (token == "from" and tokens[at - 1] != "distinct")):
            break
        if expected and token == "(":
            while tokens[at] in ("(", ",") or _is_name(tokens[at]):
                columns += filter(_is_name, [tokens[at]])
                at += 1
            expected = False
        elif expected:
            path, _ = _path(tokens, at)
            if not path:
                return None
            # PostgreSQL allows no table here, but a field of a composite column.
            columns.append(path[0 if dialect == "postgresql" else -1])
            expected = False
        elif token in _OPENING:
            depth += 1
        elif token in _CLOSING:
            depth -= 1
            if depth < 0:
                break
        elif token == "," and not depth:
            expected = True
        at += 1
    return tuple(columns)


def _is_name(token: str) -> bool:
    return token[0] == '"' or token.isidentifier() or token.replace("$", "_").isidentifier()


def _tokens(text: str, dialect: str) -> Iterator[str]:
    pattern, at = _pattern(dialect), 0
    while at < len(text):
        found = pattern.match(text, at)
        assert found is not None  # any character is one
        kind, token, at = found.lastgroup, found[0], found.end()
        if kind == "comment":
            at = _end_of_comment(text, found.start(), nested=dialect in _NESTED_COMMENTS)
        elif kind == "literal":
            yield "'"
        elif kind == "quoted":
            quote = token[0]
            yield '"' + token[1:-1].replace(quote * 2, quote)
        elif kind != "gap":
            yield token.lower()


_NESTED_COMMENTS = {"postgresql", "mssql"}


def _end_of_comment(text: str, start: int, *, nested: bool) -> int:
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(text, start):
        depth = depth + 1 if mark[0] == "/*" else depth - 1
        if depth == 0 or (mark[0] == "*/" and not nested):
            return mark.end()
    return len(text)


@lru_cache
def _pattern(dialect: str) -> re.Pattern[str]:
    """Return what one token is on a database. No part of it ever goes back, so that no text takes it long."""
    mysql = dialect in ("mysql", "mariadb")
    in_quotes = "{0}[^{0}]*+(?:{0}{0}[^{0}]*+)*+(?:{0}|\\Z)".format
    escaped = r"{0}[^{0}\\]*+(?:(?:{0}{0}|\\.?)[^{0}\\]*+)*+(?:{0}|\Z)".format
    literals = [
        "[eE]" + escaped("'"),
        escaped("'") if mysql else in_quotes("'"),
        r"\d[\w.]*",
        r"\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)",
        r"%\([^)]*\)[sbt]|%[sbt]\b|(?<!:)[:@]\w+|[?$]\w*",  # parameters
    ]
    if mysql:
        literals.append(escaped('"'))
    quoted = [in_quotes('"')] if dialect == "postgresql" else [in_quotes('"'), in_quotes("`"), r"\[[^\]]*\]"]
    gap = r"\s+|--[^\n]*" + (r"|\#[^\n]*" if mysql else "")
    return re.compile(
        rf"(?P<gap>{gap})|(?P<comment>/\*)|(?P<literal>{'|'.join(literals)})|(?P<quoted>{'|'.join(quoted)})"
        r"|(?P<word>[^\W\d][\w$]*)|(?P<mark>.)",
        re.DOTALL,
    )
