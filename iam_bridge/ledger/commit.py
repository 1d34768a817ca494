"""Changes become rows and receipts, in one transaction.

Primary keys and UNIQUE hold what must never be given twice; what is checked here in words is only that a change fits
the account that it names, so that a plan made from an older state cannot be committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.banbook import resolve_bans
from iam_bridge.ledger.conflict import explain
from iam_bridge.ledger.db import transaction
from iam_bridge.ledger.parking import consume_approvals, read_approved
from iam_bridge.ledger.receipts import append_receipts, line_of
from iam_bridge.ledger.rows import ACCOUNT_BY_UID, bump, find_account, issuer_id_of, join_words, raise_meta
from iam_bridge.ledger.times import stamp
from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.change import (
    AdoptAccount,
    Change,
    CreateAccount,
    CreateGroup,
    JoinGroup,
    LeaveGroup,
    LockAccount,
    UnlockAccount,
    key_of,
    kind_of,
)
from iam_bridge.model.identity import Issuer
from iam_bridge.policy.guard import WINDOW, is_removal

KEEP_TOUCHED = timedelta(days=7)  # longer than they count, so that a clock that ran ahead once forgets nothing
STALE = "make a new plan: the ledger changed since this one was made"

Alteration = LockAccount | UnlockAccount | JoinGroup | LeaveGroup


def commit_changes(
    db: sqlite3.Connection,
    run_id: int,
    changes: Sequence[Change],
    *,
    now: datetime,
    saved_expiry: Mapping[UserName, str],
    by: str,
) -> None:
    """Write all changes with their receipts, or nothing; raise LedgerError for what would contradict the ledger."""
    at = stamp(now)
    try:
        with transaction(db):
            if run_id and not db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
                raise LedgerError(f"there is no run {run_id}")
            approved = read_approved(db, now)
            _make_groups(db, [change for change in changes if isinstance(change, CreateGroup)], at)
            _make_accounts(db, changes, at)
            _alter(db, [change for change in changes if isinstance(change, Alteration)])
            _save_expiry(db, changes, saved_expiry)
            _touch(db, changes, approved, now)
            consume_approvals(db, map(key_of, changes))
            append_receipts(db, map(line_of, changes), at=at, run=run_id, by=by)
            resolve_bans(db, [a for a, _ in _accounts_made(changes)], now=now, run=run_id, by=by)
            bump(db, "generation")
    except sqlite3.IntegrityError as error:
        raise LedgerError(explain(db, changes) or f"that would contradict the ledger: {error}", hint=STALE) from error


def _make_groups(db: sqlite3.Connection, groups: Sequence[CreateGroup], at: str) -> None:
    # A group that is taken over may have a number that an adopted account came with as its primary gid, or that a
    # restored ledger had to write off; never one that an account or another group holds.
    name_row = (
        "INSERT INTO names VALUES (?, 'group', ?)"
        " ON CONFLICT (name) DO UPDATE SET kind = 'group' WHERE kind = 'unknown'"
    )
    number_row = (
        "INSERT INTO numbers VALUES (?, 'group', ?)"
        " ON CONFLICT (number) DO UPDATE SET kind = 'group' WHERE kind IN ('shared', 'unknown')"
    )
    for change in groups:
        name, gid = change.group.text, change.gid
        if not db.execute(name_row, (name, at)).rowcount or not db.execute(number_row, (gid, at)).rowcount:
            raise sqlite3.IntegrityError("the group's name or gid was given before")
        db.execute("INSERT INTO unix_groups VALUES (?, ?)", (name, gid))
        raise_meta(db, "highest_gid", gid)


def _accounts_made(changes: Iterable[Change]) -> list[tuple[Account, bool]]:
    return [
        (change.account, isinstance(change, AdoptAccount))
        for change in changes
        if isinstance(change, CreateAccount | AdoptAccount)
    ]


def _make_accounts(db: sqlite3.Connection, changes: Sequence[Change], at: str) -> None:
    made = _accounts_made(changes)
    if not made:
        return
    for account, adopted in made:
        if account.adopted is not adopted:
            raise LedgerError(f"{account.name} is said to be adopted and created at once")
    _check_groups(db, {group for account, _ in made for group in account.groups})
    new = [account for account, adopted in made if not adopted]
    numbers = [n for a in new for n in ((a.uid,) if a.uid == a.gid else (a.uid, a.gid))]
    db.executemany("INSERT INTO numbers VALUES (?, 'account', ?)", [(number, at) for number in numbers])
    db.executemany("INSERT INTO names VALUES (?, 'account', ?)", [(a.name.text, at) for a in new])
    for account, adopted in made:
        if adopted:
            _take_over(db, account, at)
    _insert_accounts(db, [account for account, _ in made], at)
    if new:
        raise_meta(db, "highest_uid", max(account.uid for account in new))
        raise_meta(db, "highest_gid", max(account.gid for account in new))


def _take_over(db: sqlite3.Connection, account: Account, at: str) -> None:
    """Write the name and the numbers that an adopted account brings; its primary group may be many people's."""
    name_row = (
        "INSERT INTO names VALUES (?, 'account', ?)"
        " ON CONFLICT (name) DO UPDATE SET kind = 'account' WHERE kind = 'unknown'"
    )
    number_row = (
        "INSERT INTO numbers VALUES (?, 'account', ?)"
        " ON CONFLICT (number) DO UPDATE SET kind = 'account' WHERE kind <> 'account'"
    )
    taken = db.execute(name_row, (account.name.text, at)).rowcount == 0
    if taken or not db.execute(number_row, (account.uid, at)).rowcount:
        raise sqlite3.IntegrityError("the account's name or uid was given before")
    db.execute("INSERT OR IGNORE INTO numbers VALUES (?, 'shared', ?)", (account.gid, at))


def _insert_accounts(db: sqlite3.Connection, accounts: Sequence[Account], at: str) -> None:
    issuers: dict[Issuer, int] = {a.subject.issuer: 0 for a in accounts}
    for issuer in issuers:
        issuers[issuer] = issuer_id_of(db, issuer)
    rows = [
        (a.uid, a.name.text, a.gid, a.home, a.shell, a.gecos, join_words(a.groups), join_words(a.locks), a.adopted)
        for a in accounts
    ]
    db.executemany(
        "INSERT INTO accounts (uid, name, gid, home, shell, gecos, unix_groups, locks, adopted)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    people = [(issuers[a.subject.issuer], a.subject.sub) for a in accounts]
    db.executemany("INSERT OR IGNORE INTO subjects (issuer_id, sub) VALUES (?, ?)", people)
    db.executemany(
        "INSERT INTO mappings (subject_id, uid, since)"
        " SELECT subject_id, ?, ? FROM subjects WHERE issuer_id = ? AND sub = ?",
        [(account.uid, at, *person) for account, person in zip(accounts, people, strict=True)],
    )


def _check_groups(db: sqlite3.Connection, groups: Iterable[GroupName]) -> None:
    known = {name for (name,) in db.execute("SELECT name FROM unix_groups")}
    for group in groups:
        if group.text not in known:
            raise LedgerError(f"the unix group {group} is not in the ledger", hint=STALE)


def _alter(db: sqlite3.Connection, changes: Sequence[Alteration]) -> None:
    _check_groups(db, {change.group for change in changes if isinstance(change, JoinGroup)})
    locks: dict[int, set[LockReason]] = {}
    groups: dict[int, set[GroupName]] = {}
    for change in changes:
        if change.uid not in locks:
            account = find_account(db, ACCOUNT_BY_UID, change.uid)
            if account is None or account.subject != change.subject or account.name != change.name:
                who = f"{change.name} with uid {change.uid}"
                raise LedgerError(f"{who} is not the account of {change.subject}", hint=STALE)
            locks[change.uid], groups[change.uid] = set(account.locks), set(account.groups)
        if not _apply(change, locks[change.uid], groups[change.uid]):
            raise LedgerError(f"{change.name} needs no {kind_of(change)}: it is so already", hint=STALE)
    db.executemany(
        "UPDATE accounts SET locks = ?, unix_groups = ? WHERE uid = ?",
        [(join_words(frozenset(locks[uid])), join_words(frozenset(groups[uid])), uid) for uid in locks],
    )


def _apply(change: Alteration, locks: set[LockReason], groups: set[GroupName]) -> bool:
    """Change the sets; tell whether that made a difference."""
    before = len(locks) + len(groups)
    match change:
        case LockAccount():
            locks.add(change.reason)
        case UnlockAccount():
            locks.discard(change.reason)
        case JoinGroup():
            groups.add(change.group)
        case LeaveGroup():
            groups.discard(change.group)
    return len(locks) + len(groups) != before


def _save_expiry(db: sqlite3.Connection, changes: Iterable[Change], saved_expiry: Mapping[UserName, str]) -> None:
    """Keep what stood in the expiry field before our first lock; later locks find our own mark there."""
    locked = {change.name for change in changes if isinstance(change, LockAccount)}
    locked |= {account.name for account, _ in _accounts_made(changes) if account.locks}
    db.executemany(
        "UPDATE accounts SET saved_expiry = ? WHERE name = ? AND saved_expiry IS NULL",
        [(saved_expiry[name], name.text) for name in locked if name in saved_expiry],
    )


def _touch(
    db: sqlite3.Connection, changes: Iterable[Change], approved: frozenset[tuple[str, str, str]], now: datetime
) -> None:
    """Count for the limits whom this run touched without an admin's word."""
    rows: set[tuple[str, int]] = set()
    for change in changes:
        if isinstance(change, CreateAccount) and key_of(change) not in approved:
            rows.add(("create", change.account.uid))
        elif isinstance(change, LockAccount | LeaveGroup) and is_removal(change) and key_of(change) not in approved:
            rows.add(("removal", change.uid))
    at = stamp(now)
    db.executemany("INSERT INTO touched (kind, uid, at) VALUES (?, ?, ?)", [(*row, at) for row in sorted(rows)])
    db.execute("DELETE FROM touched WHERE at <= ?", (stamp(now - KEEP_TOUCHED),))


def count_touched(db: sqlite3.Connection, kind: str, now: datetime) -> int:
    """Count the people touched within the window of the limits."""
    query = "SELECT count(DISTINCT uid) FROM touched WHERE kind = ? AND at > ?"
    return int(db.execute(query, (kind, stamp(now - WINDOW))).fetchone()[0])
