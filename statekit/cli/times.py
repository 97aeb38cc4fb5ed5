"""Times as the command line takes and shows them: durations such as ``90d 12h 30m``, and moments in UTC."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import click

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([wdhms])", re.I)
_DURATION = re.compile(rf"\s*(?:{_PART.pattern}\s*)+", re.I)

_LONGEST = dt.timedelta(days=365_000)  # so that it can be taken from any day
_HOW_LONG = 'allowed are weeks, days, hours, minutes and seconds, such as "90d", "12h" or "1d 12h 30m"'


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A length of time, such as "90d 12h 30m"."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.timedelta:
        """Return it as a timedelta."""
        if isinstance(value, dt.timedelta):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"{value!r} is no length of time; {_HOW_LONG}.", param, ctx)
        try:
            parts = [dt.timedelta(**{_UNITS[unit.lower()]: float(n)}) for n, unit in _PART.findall(value)]
            length = sum(parts, dt.timedelta())
        except OverflowError:
            length = dt.timedelta.max
        if length > _LONGEST:
            self.fail(f"{value!r} is too long; the longest is {_LONGEST.days}d.", param, ctx)
        return length


class Moment(click.ParamType):  # type: ignore[type-arg]
    """A moment: a day, a time, or so long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        """Return it in UTC; what names no time zone is in UTC."""
        if isinstance(value, dt.datetime):
            return value
        try:
            if _DURATION.fullmatch(value):
                return before(DURATION.convert(value, param, ctx))
            return utc(dt.datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            self.fail(
                f'{value!r} is no time; allowed are a day such as "2026-11-20", a time such as "2026-11-20T09:30" (in '
                'UTC, unless it says "+01:00"), or how long ago, such as "7d" or "12h 30m".',
                param,
                ctx,
            )


DURATION = Duration()
MOMENT = Moment()


def now() -> dt.datetime:
    """Return the time, in UTC."""
    return dt.datetime.now(dt.UTC)


def before(length: dt.timedelta) -> dt.datetime:
    """Return the moment so long ago."""
    return now() - length


def utc(moment: dt.datetime) -> dt.datetime:
    """Return a moment in UTC; without a time zone it is meant so, as SQLite keeps it."""
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def show(moment: dt.datetime | None) -> str:
    """Return a moment for people, to the second, such as "2026-11-25 09:30:00Z"."""
    return "" if moment is None else f"{utc(moment):%Y-%m-%d %H:%M:%S}Z"


def iso(moment: dt.datetime | None) -> str | None:
    """Return a moment for programs, such as "2026-11-25T09:30:00.123456Z"."""
    return None if moment is None else utc(moment).replace(tzinfo=None).isoformat() + "Z"


def show_length(length: dt.timedelta) -> str:
    """Return a length of time for people, such as "1 day 12 hours"."""
    left = round(length.total_seconds())
    parts = []
    for unit, seconds in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number:,} {unit}{'' if number == 1 else 's'}")
    return " ".join(parts) or "0 seconds"
