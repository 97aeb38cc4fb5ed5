"""The guard: what holds writes through SQLAlchemy to the transition tables.

The package is called ``guards`` because ``statekit.guard`` is the function that attaches one: a package of that name
would take its place as soon as any module of it was imported.
"""
