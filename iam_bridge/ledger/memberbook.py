"""What the sources said: each person's last IAM record, and when the last complete snapshot was taken.

Only a complete snapshot replaces records, and by differences, so that a pull that changed nothing writes one row. One
that is complete and empty after we knew people is an answer that nobody believes: it is an attempt like a partial one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import cache

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.db import transaction
from iam_bridge.ledger.records import MemberRecord, SourceRow
from iam_bridge.ledger.rows import bump, issuer_id_of
from iam_bridge.ledger.times import moment, moment_or_none, stamp
from iam_bridge.model.identity import Issuer, MemberSnapshot, Subject

EMPTY = "the list is empty, and it held {count} members before"

Row = tuple[str, str, int, str, str]


def _fold_groups(groups: frozenset[str]) -> str:
    return json.dumps(sorted(groups))


def _rows_of(snapshot: MemberSnapshot) -> dict[str, Row]:
    fold = cache(_fold_groups)
    rows: dict[str, Row] = {}
    for m in snapshot.members:
        if m.subject.issuer != snapshot.issuer:
            raise LedgerError(f"the source of {snapshot.issuer} speaks of {m.subject}", hint="nothing was written")
        if m.subject.sub in rows:
            raise LedgerError(f"the source of {snapshot.issuer} lists {m.subject} twice", hint="nothing was written")
        rows[m.subject.sub] = (m.subject.sub, m.username, int(m.active), fold(m.groups), stamp(m.created))
    return rows


def write_members(
    db: sqlite3.Connection, snapshot: MemberSnapshot, now: datetime, held: AbstractSet[Subject] = frozenset()
) -> int:
    """Record what a source answered; give the number of member records written.

    The record of a person in `held` stays as it is: their removal is parked, and until it is approved they keep what
    they have.
    """
    # What an unprivileged process says of the time makes a record older, never younger.
    at, taken_at = stamp(now), stamp(min(snapshot.taken_at, now))
    rows = _rows_of(snapshot)
    with transaction(db):
        issuer_id = issuer_id_of(db, snapshot.issuer)
        query = "SELECT taken_at, members FROM sources WHERE issuer_id = ?"
        last_at, last_count = db.execute(query, (issuer_id,)).fetchone() or (None, 0)
        empty = EMPTY.format(count=last_count) if last_count and not rows else ""
        if not snapshot.complete or empty:
            reason = empty if snapshot.complete else snapshot.reason or "the list is not complete"
            _write_attempt(db, issuer_id, at, reason)
            return 0
        if last_at is not None and taken_at < last_at <= at:
            raise LedgerError(
                f"the list of {snapshot.issuer} was taken at {taken_at}, and one of {last_at} is known already",
                hint="see the clocks of this host",
            )
        written = _write_differences(db, issuer_id, rows, {s.sub for s in held if s.issuer == snapshot.issuer})
        _write_count(db, issuer_id, len(rows), last_at, last_count)
        db.execute(
            "INSERT INTO sources VALUES (?, ?, ?, ?, '') ON CONFLICT (issuer_id) DO UPDATE SET"
            " taken_at = excluded.taken_at, members = excluded.members,"
            " attempted_at = excluded.attempted_at, reason = ''",
            (issuer_id, taken_at, len(rows), at),
        )
        if written or last_at is None:
            bump(db, "generation")
    return written


def _write_attempt(db: sqlite3.Connection, issuer_id: int, at: str, reason: str) -> None:
    db.execute(
        "INSERT INTO sources (issuer_id, attempted_at, reason) VALUES (?, ?, ?) ON CONFLICT (issuer_id) DO UPDATE SET"
        " attempted_at = excluded.attempted_at, reason = excluded.reason",
        (issuer_id, at, reason),
    )


def _write_differences(db: sqlite3.Connection, issuer_id: int, rows: dict[str, Row], held: set[str]) -> int:
    query = "SELECT sub, username, active, iam_groups, created FROM members WHERE issuer_id = ?"
    standing: dict[str, Row] = {row[0]: row for row in db.execute(query, (issuer_id,))}
    held = held & standing.keys()
    changed = [(issuer_id, *row) for sub, row in rows.items() if standing.get(sub) != row and sub not in held]
    gone = [(issuer_id, sub) for sub in standing.keys() - rows.keys() - held]
    db.executemany("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", changed)
    db.executemany("DELETE FROM members WHERE issuer_id = ? AND sub = ?", gone)
    return len(changed) + len(gone)


def _write_count(db: sqlite3.Connection, issuer_id: int, count: int, last_at: str | None, last_count: int) -> None:
    if last_at is not None and count == last_count:
        return
    db.execute("UPDATE counts SET last_at = ? WHERE issuer_id = ? AND last_at IS NULL", (last_at, issuer_id))
    db.execute("INSERT INTO counts (issuer_id, members) VALUES (?, ?)", (issuer_id, count))


def read_sources(db: sqlite3.Connection) -> tuple[SourceRow, ...]:
    """Give each source with its last complete snapshot and its last attempt."""
    rows = db.execute(
        "SELECT i.url, s.taken_at, s.members, s.attempted_at, s.reason"
        " FROM sources s JOIN issuers i USING (issuer_id) ORDER BY i.url"
    )
    return tuple(
        SourceRow(Issuer(url), moment_or_none(taken_at), members, moment(attempted_at), reason)
        for url, taken_at, members, attempted_at, reason in rows
    )


_MEMBERS = (
    "SELECT i.url, m.sub, m.username, m.active, m.iam_groups, m.created FROM members m JOIN issuers i USING (issuer_id)"
)


def _build(row: tuple[str, str, str, int, str, str]) -> MemberRecord:
    url, sub, username, active, groups, created = row
    who = Subject(Issuer(url), sub)
    return MemberRecord(who, username, bool(active), frozenset(json.loads(groups)), moment(created))


def read_members(db: sqlite3.Connection) -> dict[Subject, MemberRecord]:
    """Give everybody's last record."""
    return {record.subject: record for record in map(_build, db.execute(_MEMBERS))}


def read_member(db: sqlite3.Connection, subject: Subject) -> MemberRecord | None:
    """Give one person's last record."""
    row = db.execute(_MEMBERS + " WHERE i.url = ? AND m.sub = ?", (subject.issuer.url, subject.sub)).fetchone()
    return _build(row) if row else None
