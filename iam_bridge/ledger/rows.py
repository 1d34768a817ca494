"""Small reads and writes that several parts of the ledger share: meta values, issuers, subjects, accounts."""

from __future__ import annotations

import sqlite3

from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.identity import Issuer, Subject

_ACCOUNT = (
    "SELECT i.url, s.sub, a.name, a.uid, a.gid, a.home, a.shell, a.unix_groups, a.locks, a.gecos, a.adopted"
    " FROM accounts a JOIN mappings m USING (uid) JOIN subjects s USING (subject_id) JOIN issuers i USING (issuer_id)"
)
ACCOUNT_BY_UID = _ACCOUNT + " WHERE a.uid = ?"
ACCOUNT_BY_NAME = _ACCOUNT + " WHERE a.name = ?"
ACCOUNT_BY_SUBJECT = _ACCOUNT + " WHERE i.url = ? AND s.sub = ?"


def read_meta(db: sqlite3.Connection, key: str) -> str:
    """Give a meta value."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0])


def read_meta_int(db: sqlite3.Connection, key: str) -> int:
    """Give a meta value that is a number."""
    return int(read_meta(db, key))


def raise_meta(db: sqlite3.Connection, key: str, least: int) -> None:
    """Make a meta number at least this large."""
    db.execute("UPDATE meta SET value = ? WHERE key = ? AND CAST(value AS INTEGER) < ?", (str(least), key, least))


def bump(db: sqlite3.Connection, key: str) -> None:
    """Add one to a meta number."""
    db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = ?", (key,))


def issuer_id_of(db: sqlite3.Connection, issuer: Issuer) -> int:
    """Give the row of an issuer, made where it is new."""
    db.execute("INSERT OR IGNORE INTO issuers (url) VALUES (?)", (issuer.url,))
    return int(db.execute("SELECT issuer_id FROM issuers WHERE url = ?", (issuer.url,)).fetchone()[0])


def subject_id_of(db: sqlite3.Connection, subject: Subject) -> int:
    """Give the row of a subject, made where it is new."""
    key = (issuer_id_of(db, subject.issuer), subject.sub)
    db.execute("INSERT OR IGNORE INTO subjects (issuer_id, sub) VALUES (?, ?)", key)
    return int(db.execute("SELECT subject_id FROM subjects WHERE issuer_id = ? AND sub = ?", key).fetchone()[0])


def join_words(words: frozenset[GroupName] | frozenset[LockReason]) -> str:
    """Write groups or lock reasons as one column."""
    if not words:
        return ""
    return ",".join(sorted(word.text if isinstance(word, GroupName) else word.value for word in words))


def split_groups(text: str) -> frozenset[GroupName]:
    """Read a column of unix groups."""
    return frozenset(map(GroupName, text.split(","))) if text else frozenset()


def split_locks(text: str) -> frozenset[LockReason]:
    """Read a column of lock reasons; raise ValueError for a word that is none."""
    return frozenset(map(LockReason, text.split(","))) if text else frozenset()


AccountRow = tuple[str, str, str, int, int, str, str, str, str, str, int]


def build_account(row: AccountRow) -> Account:
    """Build an account from the columns of the queries above."""
    url, sub, name, uid, gid, home, shell, groups, locks, gecos, adopted = row
    return Account(
        Subject(Issuer(url), sub),
        UserName(name),
        uid,
        gid,
        home,
        shell,
        split_groups(groups),
        split_locks(locks),
        gecos,
        bool(adopted),
    )


def find_account(db: sqlite3.Connection, query: str, *key: str | int) -> Account | None:
    """Give the account that one of the queries above finds."""
    row = db.execute(query, key).fetchone()
    return build_account(row) if row else None
