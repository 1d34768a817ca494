"""What a guard held back, and an admin's word on it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import astuple
from datetime import datetime, timedelta

from iam_bridge.errors import RefusedByGuard
from iam_bridge.ledger.db import transaction
from iam_bridge.ledger.receipts import append_receipts, line_of
from iam_bridge.ledger.records import ChangeLine, ParkedRow
from iam_bridge.ledger.times import moment, stamp
from iam_bridge.model.change import Parked, key_of

APPROVAL_LIFE = timedelta(hours=24)

Key = tuple[str, str, str]


def write_parked(db: sqlite3.Connection, run_id: int, parked: Iterable[Parked], now: datetime) -> None:
    """Make the table hold what this run parked; what is the same keeps its date, and the same set writes nothing."""
    due = {group.digest: group for group in parked}
    standing = dict(db.execute("SELECT digest, why FROM parked").fetchall())
    gone = [(digest,) for digest in standing if digest not in due]
    fresh = [group for digest, group in due.items() if standing.get(digest) != group.why]
    if not gone and not fresh:
        return
    at = stamp(now)
    with transaction(db):
        db.executemany("DELETE FROM parked WHERE digest = ?", gone)
        for group in fresh:
            lines = [line_of(change) for change in group.changes]
            changes = [[*astuple(line), *key_of(change)] for line, change in zip(lines, group.changes, strict=True)]
            row = (group.digest, run_id, group.why, at, len({line.subject for line in lines}), json.dumps(changes))
            db.execute(
                "INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET run_id = excluded.run_id, why = excluded.why",
                row,
            )


def read_parked(db: sqlite3.Connection) -> tuple[ParkedRow, ...]:
    """Give what waits, oldest first."""
    rows = db.execute("SELECT digest, why, since, people, changes FROM parked ORDER BY since, digest")
    return tuple(
        ParkedRow(digest, why, moment(since), people, tuple(ChangeLine(*item[:7]) for item in json.loads(changes)))
        for digest, why, since, people, changes in rows
    )


def approve(db: sqlite3.Connection, digest: str, now: datetime, by: str) -> int:
    """Let the next run make these changes, as far as they are still due; give their number.

    Raises RefusedByGuard when nothing waits under this digest now: what an admin saw may have changed since.
    """
    with transaction(db):
        row = db.execute("SELECT why, changes FROM parked WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            waiting = [name for (name,) in db.execute("SELECT digest FROM parked ORDER BY since, digest")]
            hint = f"waiting now: {', '.join(waiting)}" if waiting else "nothing waits now"
            raise RefusedByGuard(f"nothing is parked under {digest[:40]!r}", hint=hint)
        expires_at = stamp(now + APPROVAL_LIFE)
        keys = [(*item[7:], digest, expires_at) for item in json.loads(row[1])]
        db.executemany("INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, ?)", keys)
        db.execute("DELETE FROM approvals WHERE expires_at <= ?", (stamp(now),))
        line = ChangeLine("approve", "", "", 0, f"{digest}: {len(keys)} changes until {expires_at}", "limits", row[0])
        append_receipts(db, [line], at=stamp(now), run=0, by=by)
    return len(keys)


def read_approved(db: sqlite3.Connection, now: datetime) -> frozenset[Key]:
    """Give the keys of changes that an admin approved and that were not made yet."""
    rows = db.execute("SELECT who, kind, reason FROM approvals WHERE expires_at > ?", (stamp(now),))
    return frozenset(rows)


def consume_approvals(db: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """Take back the word on changes that are now made: it was given once."""
    if db.execute("SELECT 1 FROM approvals LIMIT 1").fetchone():
        db.executemany("DELETE FROM approvals WHERE who = ? AND kind = ? AND reason = ?", keys)
