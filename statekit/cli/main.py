"""The group of all commands."""

from __future__ import annotations

import click

from statekit import __version__
from statekit.cli.check import check
from statekit.cli.errors import Commands
from statekit.cli.scan import scan
from statekit.cli.trigger import trigger


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="statekit")
def main() -> None:
    """State transition guards for SQLAlchemy, and the database triggers that hold every writer to the same rules.

    \b
    Before you install triggers:  statekit scan app.models:Base --url URL
    Print their SQL:              statekit trigger app.models:Base
    Afterwards, such as in CI:    statekit check app.models:Base --url URL

    Exit status: 0 if all is well, 1 if a command has found something, 2 if it could not do its work.
    """


main.add_command(trigger)
main.add_command(check)
main.add_command(scan)
