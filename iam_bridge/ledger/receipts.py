"""The ledger's receipts: lines appended to the chain in the transaction that they record, and read again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from iam_bridge.ledger.chain import GENESIS, hash_of
from iam_bridge.ledger.records import ChangeLine, Receipt
from iam_bridge.ledger.rows import join_words
from iam_bridge.ledger.times import moment
from iam_bridge.model.account import Account
from iam_bridge.model.change import (
    AdoptAccount,
    Change,
    CreateAccount,
    CreateGroup,
    JoinGroup,
    LeaveGroup,
    LockAccount,
    UnlockAccount,
    kind_of,
)

FIELDS = ("seq", "at", "run", "by", "kind", "subject", "name", "uid", "rule", "record", "detail", "prev")
_ALL = "SELECT seq, at, run, by, kind, subject, name, uid, rule, record, detail, prev, hash FROM receipts"
_INSERT = "INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OF_PERSON = (
    "WITH found AS (SELECT seq FROM receipts WHERE subject = ? AND subject <> ''"
    " UNION SELECT seq FROM receipts WHERE name = ? AND name <> ''"
    " UNION SELECT seq FROM receipts WHERE uid = ? AND uid <> 0)"
    " SELECT seq, at, run, by, kind, subject, name, uid, rule, record, detail, prev, hash"
    " FROM found JOIN receipts USING (seq) ORDER BY seq DESC LIMIT ?"
)

Row = tuple[int, str, int, str, str, str, str, int, str, str, str, str, str]


def detail_of(account: Account) -> str:
    """Write what an account began with; `check` reads it again, so only the last field may hold a space."""
    groups, locks = join_words(account.groups), join_words(account.locks)
    return f"gid={account.gid} groups={groups} locks={locks} home={account.home}"


def line_of(change: Change) -> ChangeLine:
    """Write a change as plans and receipts show it."""
    kind, rule, record = kind_of(change), change.cause.rule, change.cause.record
    match change:
        case CreateGroup():
            return ChangeLine(kind, "", change.group.text, 0, f"gid={change.gid}", rule, record)
        case CreateAccount():
            account, detail = change.account, detail_of(change.account)
        case AdoptAccount():
            account, detail = change.account, f"{detail_of(change.account)} proof={change.proof}"
        case LockAccount() | UnlockAccount():
            return ChangeLine(
                kind, str(change.subject), change.name.text, change.uid, change.reason.value, rule, record
            )
        case JoinGroup() | LeaveGroup():
            return ChangeLine(kind, str(change.subject), change.name.text, change.uid, change.group.text, rule, record)
    return ChangeLine(kind, str(account.subject), account.name.text, account.uid, detail, rule, record)


def head_of(db: sqlite3.Connection) -> tuple[int, str]:
    """Give the number and the hash of the last receipt."""
    row = db.execute("SELECT seq, hash FROM receipts ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, GENESIS)


def append_receipts(db: sqlite3.Connection, lines: Iterable[ChangeLine], *, at: str, run: int, by: str) -> None:
    """Append one receipt for each line; the caller holds the transaction."""
    seq, head = head_of(db)
    rows = []
    for line in lines:
        seq += 1
        what = (line.kind, line.subject, line.name, line.uid, line.rule, line.record, line.detail)
        row = (seq, at, run, by, *what, head)
        head = hash_of(dict(zip(FIELDS, row, strict=True)))
        rows.append((*row, head))
    db.executemany(_INSERT, rows)


def _build(row: Row) -> Receipt:
    return Receipt(row[0], moment(row[1]), *row[2:])


def read_rows(db: sqlite3.Connection) -> Iterator[Row]:
    """Give all receipts as they stand, in order; for the check of the chain."""
    yield from db.execute(_ALL + " ORDER BY seq")


def read_receipts(db: sqlite3.Connection, *, subject: str, name: str, uid: int, limit: int) -> tuple[Receipt, ...]:
    """Give the latest receipts that name any of the three, newest first."""
    return tuple(_build(row) for row in db.execute(_OF_PERSON, (subject, name, uid, limit)))


def read_creation(db: sqlite3.Connection, uid: int) -> Receipt | None:
    """Give the receipt by which an account came to be."""
    query = _ALL + " WHERE uid = ? AND uid <> 0 AND kind IN ('create', 'adopt') ORDER BY seq LIMIT 1"
    row = db.execute(query, (uid,)).fetchone()
    return _build(row) if row else None
