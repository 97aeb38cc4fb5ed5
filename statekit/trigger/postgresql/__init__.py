"""Triggers for PostgreSQL, from frozen templates: ``v1.sql`` holds the SQL, and the writer fills it in."""

from statekit.trigger.postgresql.writer import counters, create, drop, functions, replace

__all__ = ["counters", "create", "drop", "functions", "replace"]
