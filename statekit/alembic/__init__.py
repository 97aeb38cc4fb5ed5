"""State triggers in Alembic migrations: ``import statekit.alembic`` in ``env.py`` is all that it takes.

The import registers the operations ``op.create_state_trigger()``, ``op.replace_state_trigger()`` and
``op.drop_state_trigger()``, has ``alembic revision --autogenerate`` compare the triggers that guards declare with those
of the database, and keeps triggers through ``op.batch_alter_table()``. It changes what Alembic does nowhere else.
"""

from statekit.alembic import batch, compare, render, toimpl  # noqa: F401 (each registers itself with Alembic)
from statekit.alembic.ops import CreateStateTriggerOp, DropStateTriggerOp, ReplaceStateTriggerOp

__all__ = ["CreateStateTriggerOp", "DropStateTriggerOp", "ReplaceStateTriggerOp"]
