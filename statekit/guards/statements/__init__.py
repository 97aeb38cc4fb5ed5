"""Ring 3, exact reports: what a statement is asked before it is executed, and what it then has to say.

:mod:`.hook` sees the statement; :mod:`.updates`, :mod:`.inserts` and :mod:`.upserts` write it.
"""
