"""The same table inside of the database: triggers that hold every writer to it, whatever it is written in."""

from statekit.trigger.spec import StateTrigger

__all__ = ["StateTrigger"]
