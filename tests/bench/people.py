"""Synthetic people as the snapshot of a pull, and as accounts that a ledger holds already."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from iam_bridge.demo.iam.records import DataSet
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject


def take_snapshot(data: DataSet, issuer: Issuer, taken_at: datetime) -> MemberSnapshot:
    """Give the people of a data set as a complete pull would."""
    paths = {group.id: group.path for group in data.groups}
    sets: dict[Sequence[str], frozenset[str]] = {}
    members = [
        Member(
            Subject(issuer, person.id),
            person.username,
            person.active,
            datetime.fromtimestamp(person.created_ms / 1000, UTC),
            sets.setdefault(person.groups, frozenset(paths[group] for group in person.groups)),
        )
        for person in data.people
    ]
    return MemberSnapshot(issuer, tuple(members), frozenset(paths.values()), taken_at, complete=True)
