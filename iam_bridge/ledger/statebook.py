"""The whole ledger as one value that pure rules can look at."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from functools import cache

from iam_bridge.ledger.commit import count_touched
from iam_bridge.ledger.parking import read_approved
from iam_bridge.ledger.rows import read_meta_int, split_groups, split_locks
from iam_bridge.ledger.times import moment, stamp
from iam_bridge.model.account import Account, GroupName, UserName
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.state import LedgerState
from iam_bridge.policy.guard import WINDOW

# A mapping that ended is a tombstone: no account of today, but its name and numbers stay given.
_ACCOUNTS = (
    "SELECT s.issuer_id, s.sub, a.name, a.uid, a.gid, a.home, a.shell, a.unix_groups, a.locks, a.gecos, a.adopted,"
    " a.saved_expiry, a.home_made_at"
    " FROM mappings m JOIN accounts a USING (uid) JOIN subjects s USING (subject_id) WHERE m.until IS NULL"
)
_COUNTS = (
    "SELECT c.issuer_id, c.members, coalesce(c.last_at, s.taken_at) AS seen"
    " FROM counts c JOIN sources s USING (issuer_id) WHERE seen > ? OR c.last_at IS NULL ORDER BY seen"
)


def read_issuers(db: sqlite3.Connection) -> dict[int, Issuer]:
    """Give the issuers by their rows."""
    return {issuer_id: Issuer(url) for issuer_id, url in db.execute("SELECT issuer_id, url FROM issuers")}


def _read_counts(
    db: sqlite3.Connection, issuers: dict[int, Issuer], now: datetime
) -> Iterator[tuple[datetime, Issuer, int]]:
    for issuer_id, members, seen in db.execute(_COUNTS, (stamp(now - WINDOW),)):
        yield moment(seen), issuers[issuer_id], members


def read_state(db: sqlite3.Connection, now: datetime, stopped: str) -> LedgerState:
    """Read who is who. One reading transaction, so that all of it is of one moment."""
    db.execute("BEGIN")
    try:
        return _read(db, now, stopped)
    finally:
        db.execute("COMMIT")


def _read(db: sqlite3.Connection, now: datetime, stopped: str) -> LedgerState:
    issuers = read_issuers(db)
    groups_of, locks_of = cache(split_groups), cache(split_locks)
    accounts: dict[Subject, Account] = {}
    saved_expiry: dict[UserName, str] = {}
    homes_due: list[UserName] = []
    rows = db.execute(_ACCOUNTS)
    for issuer_id, sub, text, uid, gid, home, shell, groups, locks, gecos, adopted, expiry, home_made_at in rows:
        subject, name = Subject(issuers[issuer_id], sub), UserName(text)
        accounts[subject] = Account(
            subject, name, uid, gid, home, shell, groups_of(groups), locks_of(locks), gecos, bool(adopted)
        )
        if expiry is not None:
            saved_expiry[name] = expiry
        if home_made_at is None and not adopted:
            homes_due.append(name)
    return LedgerState(
        generation=read_meta_int(db, "generation"),
        accounts=accounts,
        groups={GroupName(name): gid for name, gid in db.execute("SELECT name, gid FROM unix_groups")},
        names_given=frozenset(name for (name,) in db.execute("SELECT name FROM names")),
        numbers_given=frozenset(number for (number,) in db.execute("SELECT number FROM numbers")),
        saved_expiry=saved_expiry,
        homes_due=frozenset(homes_due),
        member_counts=tuple(_read_counts(db, issuers, now)),
        recent_creates=count_touched(db, "create", now),
        recent_removals=count_touched(db, "removal", now),
        approved=read_approved(db, now),
        stopped=stopped,
    )
