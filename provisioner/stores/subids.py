"""Ranges of subordinate ids: one for each account, in nobody's way.

The start follows from the uid, as shadow's SUB_UID_DETERMINISTIC does it (login.defs(5)): SUB_MIN + (uid - lowest) *
count. Where that meets a range or a number that is somebody's, the account gets the next free one after all starts
that uids can lead to. A row that stands is kept, whoever wrote it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable

from iam_bridge.model.account import Account, IdRange
from provisioner.stores.rows import Draft, Table, parse_number

SUB_MIN = 100000  # SUB_UID_MIN, login.defs(5)
_LAST = 2**32 - 2  # 2**32 - 1 is (uid_t) -1, which no file may belong to


class Ranges:
    """Numbers taken, as ranges that may overlap each other (a file of somebody else may hold anything)."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._taken: list[tuple[int, int]] = []
        self._reached: dict[tuple[int, int], int] = {}
        for first, last in sorted(ranges):
            if self._taken and first <= self._taken[-1][1]:
                self._taken[-1] = (self._taken[-1][0], max(last, self._taken[-1][1]))
            else:
                self._taken.append((first, last))

    def _clash(self, first: int, last: int) -> int:
        """Give the last number of a taken range that meets this one, -1 where it is free."""
        at = bisect_left(self._taken, (last + 1,)) - 1
        return self._taken[at][1] if at >= 0 and self._taken[at][1] >= first else -1

    def take(self, first: int, count: int) -> bool:
        """Take a range if it is free and fits into 32 bits."""
        last = first + count - 1
        if last > _LAST or self._clash(first, last) >= 0:
            return False
        insort(self._taken, (first, last))
        return True

    def take_next(self, first: int, count: int) -> int:
        """Take the first free range from `first` on; give its start, -1 where there is no room."""
        asked = (first, count)
        first = self._reached.get(asked, first)  # what was taken stays taken: never look there again
        while first + count - 1 <= _LAST:
            clash = self._clash(first, first + count - 1)
            if clash < 0:
                insort(self._taken, (first, first + count - 1))
                self._reached[asked] = first + count
                return first
            first = clash + 1
        self._reached[asked] = first
        return -1


def _taken_ranges(table: Table, ids: IdRange, numbers: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Give what no new range may meet: rows of the file, the ids that we give, and every id that somebody has.

    A subordinate range over a real uid would let its owner become that person (newuidmap(1)). Second rows of one
    owner count too, so the lines are read one by one.
    """
    yield ids.low, ids.high
    yield from ((number, number) for number in numbers if number >= SUB_MIN)
    for line in table.lines:
        fields = line.split(":")
        if len(fields) == 3 and not line.startswith("#"):
            first, count = parse_number(fields[1].strip()), parse_number(fields[2].strip())
            if first is not None and count:
                yield first, first + count - 1


def add_ranges(
    draft: Draft,
    accounts: Iterable[Account],
    *,
    ids: IdRange,
    uids: IdRange,
    count: int,
    numbers: Callable[[], Iterable[int]],
) -> tuple[list[str], list[str]]:
    """Give a range to each account that has none; answer the names that got one, and the problems.

    `ids` are the numbers that this file's kind of id has with us, `numbers` tells those in use by anybody and is asked
    only where a row is to be added.
    """
    rows = draft.table.rows
    lacking = [a for a in accounts if a.name.text not in rows and str(a.uid) not in rows]
    if not lacking:
        return [], []
    taken = Ranges(_taken_ranges(draft.table, ids, numbers()))
    after_all = SUB_MIN + (uids.high - uids.low + 1) * count
    named: list[str] = []
    problems: list[str] = []
    for account in lacking:
        name = account.name.text
        first = SUB_MIN + (account.uid - uids.low) * count
        if name in draft.table.broken:
            problems.append(f"{name}: the line of that name in {draft.table.kind} cannot be read: correct it")
            continue
        if account.uid not in uids or not taken.take(first, count):
            first = taken.take_next(after_all, count)
        if first < 0:
            first = taken.take_next(SUB_MIN, count)
        if first < 0:
            problems.append(f"{name}: {draft.table.kind} has no room for {count} more ids")
            continue
        draft.add_row(name, str(first), str(count))
        named.append(name)
    return named, problems
