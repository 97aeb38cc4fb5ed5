"""The command line, one file a command.

Nothing here imports SQLAlchemy or the user's models before a command runs, so that ``statekit --help`` is quick.
"""
