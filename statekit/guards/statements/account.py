"""The account of one statement: what becomes of its rows, for the hook and for the error that names refused ones."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy.engine import Connection

from statekit.errors import IllegalTransition, Pair, TransitionRefused
from statekit.guards import commits, history
from statekit.guards.fence import OPEN, STAY, STRICT
from statekit.guards.guard import Guard, refusal_of, root_table
from statekit.guards.hints import hint_for
from statekit.guards.statements import whole
from statekit.observe.hook import allowed_moves_are_wanted, publish
from statekit.observe.modes import PASSING, Mode
from statekit.observe.move import Kind, Move

NAMED = 10
"""How many refused rows an error names by their primary key, for each guard."""

Identity = tuple[Any, ...] | None


@dataclass(slots=True)
class _Rows:
    """Rows of one kind: how many made which move, and the primary keys of a few."""

    pairs: Counter[Pair] = field(default_factory=Counter)
    named: list[tuple[Pair, Identity]] = field(default_factory=list)

    def add(self, pair: Pair, number: int, identity: Identity, limit: int = NAMED) -> None:
        self.pairs[pair] += number
        if identity is not None and len(self.named) < limit:
            self.named.append((pair, identity))


class Account:
    """Judges the rows of one statement and keeps count of them.

    Args:
        guards: of the columns that the statement sets.
        key_names: names of the primary key's columns.
        connection: which the statement is executed on.
        table: the table that is written, or an alias of it.
        key: its primary key.

    Attributes:
        has_history: whether each row that moves is written down here, and not by a trigger.
        wants_identities: whether somebody is to be told of each row that moves, or it is written down.
        written: how many rows the statement is to write: those that move, that stay, and new ones.
        stays: how many of them keep the state that they have.
        skipped: how many rows are left out.
    """

    def __init__(
        self,
        guards: Sequence[Guard],
        key_names: tuple[str, ...],
        connection: Connection,
        table: Any,
        key: Sequence[Any],
    ) -> None:
        self._table = table
        self._key = key
        self._guards = guards
        self._key_names = key_names
        self._connection = connection
        self._modes: dict[Guard, Mode] = {guard: guard.mode for guard in guards}
        self._refused: dict[tuple[bool, Guard, bool], _Rows] = {}
        self._done: dict[tuple[Kind, Guard, bool], _Rows] = {}
        self._in_order: dict[Guard, list[tuple[Kind, Pair, Identity]]] = {}
        self.has_history = any(history.is_ours(connection, guard) for guard in guards)
        self.wants_identities = self.has_history or any(guard.told for guard in guards)
        self.wants_allowed = self.wants_identities or allowed_moves_are_wanted()
        self._named = sys.maxsize if self.wants_identities else NAMED
        self.written = self.stays = self.skipped = 0

    @property
    def observes(self) -> bool:
        """Whether an illegal move is let through, for one of the guards."""
        return not PASSING.keys().isdisjoint(self._modes.values())

    def leeways(self, *, strict: bool = False) -> dict[Guard, int]:
        """Return how much the fence is to let through for each guard: what is illegal where it passes, else what stays.

        Args:
            strict: whether no row is to stay.
        """
        return {guard: OPEN if mode in PASSING else STRICT if strict else STAY for guard, mode in self._modes.items()}

    @property
    def raises(self) -> bool:
        """Whether a refused row of any of the guards is an error."""
        return "raise" in self._modes.values()

    def add(
        self, pairs: Sequence[Pair | None], number: int = 1, identity: Identity = None, *, new: bool = False
    ) -> bool:
        """Judge rows and note what becomes of them.

        Args:
            pairs: the move for each guard, as (source, target), or None where the rows get none.
            number: how many rows.
            identity: the primary key of the row, if it is one.
            new: whether they are new rows, with a source of None.

        Returns:
            Whether the statement writes them.
        """
        if not self.wants_allowed and not new and self._are_legal(pairs):  # nearly all are, and must be fast
            self.written += number
            return True
        moves = [
            (guard, pair, self._is_legal(guard, pair, new=new))
            for guard, pair in zip(self._guards, pairs, strict=True)
            if pair is not None
        ]
        refused = [(guard, pair) for guard, pair, legal in moves if not legal and self._modes[guard] not in PASSING]
        for guard, pair in refused:
            fatal = new or self._modes[guard] == "raise"
            self._refused.setdefault((fatal, guard, new), _Rows()).add(pair, number, identity)
        if refused:
            self.skipped += number
            return False
        for guard, pair, legal in moves:
            stays = not new and pair[0] == pair[1]
            if stays or (legal and (new or not self.wants_allowed)):
                continue
            kind: Kind = "allowed" if legal else PASSING[self._modes[guard]]
            self._done.setdefault((kind, guard, new), _Rows()).add(pair, number, identity, self._named)
            if self.has_history and not new and identity is not None:
                self._in_order.setdefault(guard, []).append((kind, pair, identity))
        self.written += number
        self.stays += number if any(not new and pair[0] == pair[1] for _, pair, _ in moves) else 0
        return True

    def identify(self, pairs: Sequence[Pair], identities: Sequence[Identity]) -> None:
        """Name rows that were counted as written without their primary keys."""
        for guard, pair in zip(self._guards, pairs, strict=True):
            for (kind, of, new), rows in self._done.items():
                if of is guard and not new and pair in rows.pairs:
                    rows.named += [(pair, identity) for identity in identities]
                    if self.has_history:
                        self._in_order.setdefault(guard, []).extend((kind, pair, each) for each in identities)

    def rename(self, identity: Any) -> None:
        """Give the rows that are to be written the primary keys that they get.

        Args:
            identity: returns the new key for an old one.
        """
        for guard, moves in self._in_order.items():
            self._in_order[guard] = [(kind, pair, identity(key)) for kind, pair, key in moves]

    def merge(self, other: Account) -> None:
        """Add what another account of the same statement holds."""
        for mine, theirs in ((self._refused, other._refused), (self._done, other._done)):
            for key, rows in theirs.items():
                into = mine.setdefault(key, _Rows())  # type: ignore[arg-type]
                into.pairs.update(rows.pairs)
                limit = NAMED if mine is self._refused else self._named
                into.named += rows.named[: limit - len(into.named)]
        for guard, moves in other._in_order.items():
            self._in_order.setdefault(guard, []).extend(moves)
        self.written += other.written
        self.stays += other.stays
        self.skipped += other.skipped

    def take_back(self, kept: Account, identities: Sequence[Identity] | None = None) -> None:
        """Forget the moves of rows that were to be written and are as they were.

        Args:
            kept: an account of the rows that are found now.
            identities: their primary keys, if somebody has asked.
        """
        for key, rows in kept._done.items():
            if (mine := self._done.get(key)) is not None:
                mine.pairs -= rows.pairs
                known = set(identities or ())
                mine.named = [each for each in mine.named if each[1] not in known] if known else []
        for guard, moves in self._in_order.items():
            self._in_order[guard] = [move for move in moves if move[2] not in (identities or ())]

    def keep_only_arrived(self, guard: Guard, now: Mapping[Any, str | None]) -> None:
        """Forget the moves of rows that are not where they were to go: the database has kept them back.

        Args:
            guard: whose rows they are.
            now: the state that each row is in, by its key.
        """
        goals = {identity: pair[1] for _, pair, identity in self._in_order.get(guard, ())}
        kept = {identity for identity, goal in goals.items() if now.get(identity) != goal}
        self._in_order[guard] = [move for move in self._in_order.get(guard, ()) if move[2] not in kept]
        for (_, of, new), rows in self._done.items():
            if of is guard and not new:
                for pair, identity in rows.named:
                    rows.pairs[pair] -= identity in kept
                rows.named = [each for each in rows.named if each[1] not in kept]
                rows.pairs = +rows.pairs

    def written_keys(self, guard: Guard) -> list[Any]:
        """Return the keys of the rows that are to be written, as far as they are known."""
        return list(dict.fromkeys(identity for _, _, identity in self._in_order.get(guard, ())))

    def _are_legal(self, pairs: Sequence[Pair | None]) -> bool:
        """Return whether each guard has a legal move to judge, and no row stays."""
        return all(pair in guard.legal for guard, pair in zip(self._guards, pairs, strict=True))

    @staticmethod
    def _is_legal(guard: Guard, pair: Pair, *, new: bool) -> bool:
        if new:
            return pair[1] in guard.initial
        return pair[0] == pair[1] or pair in guard.legal

    @property
    def is_refused(self) -> bool:
        """Whether the statement must not be executed."""
        return any(fatal for fatal, _, _ in self._refused)

    def refuses_as(self, other: Account) -> bool:
        """Return whether the same numbers of rows are refused for the same moves."""
        return {key: rows.pairs for key, rows in self._refused.items()} == {
            key: rows.pairs for key, rows in other._refused.items()
        }

    def illegal(self, guard: Guard) -> list[Pair]:
        """Return the moves of existing rows that were refused for a guard."""
        return [pair for (_, of, new), rows in self._refused.items() if of is guard and not new for pair in rows.pairs]

    def name(self, guard: Guard, pair: Pair, identity: Identity) -> None:
        """Name one of the refused rows that were counted without their primary keys."""
        for (_, of, new), rows in self._refused.items():
            if of is guard and not new and len(rows.named) < NAMED:
                rows.named.append((pair, identity))

    def refuse(self, *, hint: str = "") -> None:
        """Count and log the refused rows, and raise.

        Raises:
            IllegalTransition: names them.
        """
        fatal = {key: rows for key, rows in self._refused.items() if key[0]}
        blocked = [move for (_, guard, new), rows in fatal.items() for move in self._moves("blocked", guard, rows, new)]
        publish(blocked, self._connection)
        errors = [self._error(guard, rows, new, hint) for (_, guard, new), rows in fatal.items()]
        errors[0].also = tuple(errors[1:])
        for other in errors[0].also:
            errors[0].add_note(f"Refused with it: {other}")
        raise errors[0]

    def publish(self) -> None:
        """Tell the hook of the rows that were left out, and of those that were written."""
        if whole.is_collecting():
            whole.collect(self)
            return
        moves = [
            move for (_, guard, new), rows in self._refused.items() for move in self._moves("blocked", guard, rows, new)
        ]
        for guard in self._guards:
            if guard.history:
                self._write_history(guard)
        for (kind, guard, new), rows in self._done.items():
            moves += self._moves(kind, guard, rows, new)
        publish(moves, self._connection)
        if self.wants_identities:
            commits.note(self._connection, moves)

    def _write_history(self, guard: Guard) -> None:
        number = sum(rows.pairs.total() for (_, of, new), rows in self._done.items() if of is guard and not new)
        told = history.told_on(self._connection, guard)
        if not number or told.is_written_by_trigger(guard):
            return
        moves = self._in_order.get(guard, [])
        history.check_complete(guard, len(moves), number)
        table: Any = root_table(self._table)
        key = [table.c[column.key] for column in self._key]
        # One INSERT for all rows that make the same move, and a row's own moves one after the other.
        made: Counter[Identity] = Counter()
        alike: dict[tuple[int, Kind, Pair], list[tuple[Any, ...]]] = {}
        for kind, pair, identity in moves:
            if identity is not None:
                alike.setdefault((made[identity], kind, pair), []).append(identity)
                made[identity] += 1
        for (_, kind, pair), keys in sorted(alike.items(), key=lambda item: item[0][0]):
            told.write(guard, table, key, kind, pair, keys, new=False)

    def _moves(self, kind: Kind, guard: Guard, rows: _Rows, new: bool) -> list[Move]:
        moves = [
            guard.move(
                kind,
                pair,
                [identity for of, identity in rows.named if of == pair],
                number=number,
                new=new,
                mode=self._modes[guard],
            )
            for pair, number in rows.pairs.items()
        ]
        if kind == "overridden":
            number = sum(each.number for each in moves)
            if history.told_on(self._connection, guard).is_recorded(guard, number):
                return [replace(each, is_recorded=True) for each in moves]
        return moves

    def _error(self, guard: Guard, rows: _Rows, new: bool, hint: str) -> IllegalTransition | TransitionRefused:
        named = rows.named or [(rows.pairs.most_common(1)[0][0], None)]
        return refusal_of(
            guard,
            named,
            new=new,
            model=guard.model,
            key_names=self._key_names,
            hint=hint or hint_for(guard, named[0][0], new=new, of_statement=True),
            pairs=rows.pairs,
        )
