"""The group of all commands."""

from __future__ import annotations

import click

from statekit import __version__
from statekit.cli.check import check
from statekit.cli.counts import counts
from statekit.cli.diagram import diagram
from statekit.cli.errors import Commands
from statekit.cli.history import history
from statekit.cli.jobs import jobs
from statekit.cli.promote import promote
from statekit.cli.prune import prune
from statekit.cli.scan import scan
from statekit.cli.suggest import suggest
from statekit.cli.trigger import trigger


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="statekit")
def main() -> None:
    """State transition guards for SQLAlchemy, and the database triggers that hold every writer to the same rules.

    \b
    Which moves were blocked:     statekit counts --url URL
    Which job makes them:         statekit counts --url URL --by operation --by place
    Could a guard raise:          statekit promote app.models:Base --url URL
    The table that rows follow:   statekit suggest --url URL
    What a row went through:      statekit history message.status 7 --url URL
    Bulk transitions, how far:    statekit jobs --url URL

    \b
    Before you install triggers:  statekit scan app.models:Base --url URL
    Print their SQL:              statekit trigger app.models:Base
    Afterwards, such as in CI:    statekit check app.models:Base --url URL

    Exit status: 0 if all is well, 1 if a command has found something, 2 if it could not do its work.
    """


for command in (check, counts, diagram, history, jobs, promote, prune, scan, suggest, trigger):
    main.add_command(command)
