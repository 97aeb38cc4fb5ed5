"""A bar in the terminal: ``transition_all(…, progress=statekit.bulk.bar())``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statekit.bulk.result import BulkResult, verb_of


def bar(file: Any = None) -> Callable[[BulkResult], None]:
    """Return a function for ``progress=`` that draws a bar.

    Args:
        file: what it is written to; None for the standard output. Where that is no terminal, each line of text that
            differs from the one before is printed instead.
    """
    import click

    shown: Any = None
    last = ""

    def show(result: BulkResult) -> None:
        nonlocal shown, last
        length = max(1, result.total)
        if shown is None:
            shown = click.progressbar(
                length=length,
                label=result.operation or verb_of(None),
                show_pos=True,
                file=file,
                item_show_func=lambda text: text,
            )
            shown.__enter__()
        if shown.is_hidden:
            if str(result) != last:
                click.echo(str(result), file=file)
            last = str(result)
            return
        shown.update(length - result.remaining - shown.pos, str(result))
        if result.finished or result.cancelled:
            shown.__exit__(None, None, None)

    return show
