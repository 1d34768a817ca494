"""The books of one SCIM listing: what its pages promised, what they gave, and whether that is everything.

Pages of IAM have no order, and rows shift between them while people come and go (RFC 7644 3.4.2.4 warns of it). So a
listing is whole only if every page was full, every page named the same total, and as many *different* records came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from iam_bridge.errors import InvalidValue
from iam_bridge.model.record import show

PAGE = 100
"""What IAM gives at most; it cuts a larger wish in silence."""
RECORDS_MAX = 1_000_000


@dataclass(slots=True)
class Findings:
    """Sentences about what is not as it should be; the first is told, the others are counted."""

    first: str = ""
    count: int = 0

    def note(self, sentence: str) -> None:
        """Add a finding."""
        self.first = self.first or sentence
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0

    def sentence(self) -> str:
        """Tell the first finding and how many more there are."""
        return self.first if self.count < 2 else f"{self.first} (and {self.count - 1} more of this kind)"


@dataclass(slots=True)
class Listing:
    """One pass over a listing; `path` names it in sentences, `drift` holds what another pass may mend."""

    path: str
    drift: Findings
    total: int | None = None
    received: int = 0
    ids: set[str] = field(default_factory=set)
    nameless: int = 0

    def take_page(self, start: int, body: Mapping[str, object]) -> list[object]:
        """Enter the page that was asked for from record `start` (counted from 1) and give its records.

        Raises InvalidValue where the body is no SCIM list.
        """
        total = parse_total(body)
        records = body.get("Resources", [])  # IAM leaves empty lists out
        if not isinstance(records, list):
            raise InvalidValue("`Resources` is no list")
        if self.total is None:
            self.total = total
        elif total != self.total:
            self.drift.note(f"{self.path}: {self.total} records at first, {total} at the page from {start}")
        if body.get("startIndex", start) != start and records:
            self.drift.note(f"{self.path}: the page from {start} says that it is another one")
        due = min(PAGE, max(self.total - start + 1, 0))
        if len(records) != due:
            self.drift.note(f"{self.path}: the page from {start} holds {len(records)} records where {due} were due")
        self.received += len(records)
        return records

    def next_start(self, start: int, records: list[object]) -> int | None:
        """Give where the next page starts; None when all that was promised was asked for, or nothing came."""
        following = start + PAGE
        return following if records and self.total is not None and following <= self.total else None

    def take_id(self, value: object) -> bool:
        """Enter a record's id; tell whether it is a new one. What has no id counts as a record all the same."""
        if not isinstance(value, str):
            self.nameless += 1
            return True
        if value in self.ids:
            return False
        self.ids.add(value)
        return True

    def close(self) -> None:
        """Compare what came with what was promised."""
        different = len(self.ids) + self.nameless
        if different != self.total and not self.drift:
            self.drift.note(f"{self.path}: {self.total} records were promised, {different} different ones came")

    def check_count(self, counted: int, by: str) -> None:
        """Compare a count made elsewhere or later with the total."""
        if counted != self.total:
            self.drift.note(f"{self.path} lists {self.total} records and {by} says {counted}")


def parse_total(body: Mapping[str, object]) -> int:
    """Read `totalResults`; raise InvalidValue unless it is a whole number that we accept."""
    total = body.get("totalResults")
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        raise InvalidValue("`totalResults` is missing or no number")
    if total > RECORDS_MAX:
        raise InvalidValue(f"`totalResults` is {show(str(total), 20)}, and more than {RECORDS_MAX} are not accepted")
    return total
