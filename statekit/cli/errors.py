"""What every command does with an error: one clear message on stderr, exit status 2, no traceback."""

from __future__ import annotations

from typing import Any

import click

from statekit.errors import StatekitError


class Failure(click.ClickException):
    """A command cannot do its work: what was wrong, what is allowed, how to mend it."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands may raise any error of statekit's."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and make of an error of statekit's what click shows."""
        try:
            return super().invoke(ctx)
        except StatekitError as error:
            raise Failure(str(error)) from None
