"""Transition tables: the rules, without a database."""

from statekit.table.transition import Transition
from statekit.table.transition_table import TransitionTable

__all__ = ["Transition", "TransitionTable"]
