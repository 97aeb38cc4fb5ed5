"""What the log says of a ledger that cannot be written."""

from __future__ import annotations

import sqlalchemy as sa


def said(error: BaseException) -> str:
    """Return what a database says, on one line."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    return (text or type(error).__name__).rstrip(".")


def hint_for(error: BaseException, table: sa.Table) -> str:
    """Return how to mend an error that the ledger's table has led to, or nothing."""
    text = str(error).lower()
    if "permission denied" in text:
        return (
            f" Its owner says: GRANT INSERT, SELECT ON {table.fullname} TO the role that is connected, and GRANT USAGE "
            f"ON SEQUENCE {table.fullname}_id_seq."
        )
    if "no such table" in text or "does not exist" in text or "undefinedtable" in text:
        return (
            f" If there is no table {table.fullname}: statekit.ledger.add_to(metadata) and a migration make it, and "
            "attach(engine, schema=…) looks for it in a schema."
        )
    return ""
