"""Names and texts inside SQL that is written out, as a migration must be.

Frozen, like the templates that use it: the SQL of an old migration stays what it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any


def identifier(name: str) -> str:
    """Return a name in double quotes, in which every character stands for itself."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def plain_identifier(name: str) -> str:
    r"""Return a name in double quotes without control characters and percent signs, which drivers take for parameters.

    https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS-UESCAPE

    >>> print(plain_identifier("status"), plain_identifier("100 %"))
    "status" U&"100 \0025"
    """
    quoted = identifier(name)
    escaped = re.sub(r"[\x00-\x1f\x7f%]", lambda match: f"\\{ord(match.group()):04x}", quoted.replace("\\", "\\\\"))
    return f"U&{escaped}" if re.search(r"[\x00-\x1f\x7f%]", name) else quoted


def literal(text: str) -> str:
    r"""Return a text as a PostgreSQL literal.

    Control characters are written as escapes, so that no editor and no line ending of a file changes them; and so is
    the percent sign, which drivers take for a parameter. A backslash means the same whatever
    ``standard_conforming_strings`` says, because then the literal has an E before it.
    https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE

    >>> print(literal("it's"), literal("a\\b"), literal("100 %"))
    'it''s' E'a\\b' E'100 \x25'
    """
    quoted = text.replace("'", "''")
    escaped = re.sub(r"[\x00-\x1f\x7f%\\]", _escape, quoted)
    return f"E'{escaped}'" if escaped != quoted else f"'{quoted}'"


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return "\\\\" if character == "\\" else f"\\x{ord(character):02x}"


def plain_literal(text: str) -> str:
    """Return a text as a literal of standard SQL, which has no escapes: SQLite's."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"


def json_text(value: Any) -> str:
    """Return JSON without a percent sign (drivers take it for a parameter) and without an end of a comment.

    >>> json_text({"100 %": "*/"})
    '{"100 \\\\u0025": "*\\\\/"}'
    """
    return json.dumps(value, ensure_ascii=False).replace("%", "\\u0025").replace("/", "\\/")


def json_literal(value: Any) -> str:
    """Return a value as a PostgreSQL literal that holds JSON."""
    return literal(json_text(value))


def filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with each ``{{name}}`` replaced, in one pass: what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match.group(1)], template)


def dollar_quoted(body: str) -> str:
    """Return the body of a function or DO block between dollar quotes that do not occur in it."""
    tag = "$statekit$"
    while tag in body:
        tag = f"$statekit_{hashlib.sha256((tag + body).encode()).hexdigest()[:8]}$"
    return f"{tag}\n{body}\n{tag}"
