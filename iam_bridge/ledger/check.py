"""What `ledger verify` looks at: the file, the chain, what may be given only once, the counters.

And that the receipts, told again from the first, give the accounts as they stand: who writes to the tables by hand has
to forge the chain as well, and the chain's head is anchored elsewhere.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from iam_bridge.ledger.chain import GENESIS, hash_of
from iam_bridge.ledger.db import RESTORE
from iam_bridge.ledger.finding import Finding
from iam_bridge.ledger.receipts import FIELDS, Row, read_rows
from iam_bridge.ledger.rows import read_meta_int

MOST_OF_A_KIND = 20  # a damaged ledger must not drown its reader

_UNIQUE = (
    ("an account has no number of its own", "SELECT uid FROM accounts WHERE uid NOT IN (SELECT number FROM numbers)"),
    ("a gid is not noted as given", "SELECT gid FROM accounts WHERE gid NOT IN (SELECT number FROM numbers)"),
    ("a name is not noted as given", "SELECT name FROM accounts WHERE name NOT IN (SELECT name FROM names)"),
    ("a group is not noted as given", "SELECT gid FROM unix_groups WHERE gid NOT IN (SELECT number FROM numbers)"),
    ("a uid is given twice", "SELECT uid FROM mappings GROUP BY uid HAVING count(*) > 1"),
    ("a name is given twice", "SELECT name FROM accounts GROUP BY name HAVING count(*) > 1"),
    ("an account belongs to nobody", "SELECT uid FROM accounts WHERE uid NOT IN (SELECT uid FROM mappings)"),
    (
        "a private gid is an account's and a group's",
        "SELECT a.gid FROM accounts a JOIN unix_groups g USING (gid) WHERE NOT a.adopted",
    ),
    (
        "a private gid is two accounts'",
        "SELECT gid FROM accounts WHERE NOT adopted GROUP BY gid HAVING count(*) > 1",
    ),
)


@dataclass(slots=True)
class _Told:
    """An account as its receipts tell it."""

    subject: str
    name: str
    gid: str
    locks: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)


def verify(db: sqlite3.Connection) -> Iterator[Finding]:
    """Give everything about the ledger that does not hold."""
    yield from _check_file(db)
    yield from _check_unique(db)
    yield from _check_counters(db)
    told: dict[int, _Told] = {}
    yield from _check_chain(db, told)
    yield from _check_accounts(db, told)


def _check_file(db: sqlite3.Connection) -> Iterator[Finding]:
    for (text,) in db.execute(f"PRAGMA integrity_check({MOST_OF_A_KIND})"):
        if text != "ok":
            yield Finding("ledger-damaged", f"SQLite finds: {text}", RESTORE)
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(MOST_OF_A_KIND):
        yield Finding("ledger-damaged", f"row {row} of {table} has no row in {parent}", RESTORE)


def _check_unique(db: sqlite3.Connection) -> Iterator[Finding]:
    for what, query in _UNIQUE:
        for (key,) in db.execute(query).fetchmany(MOST_OF_A_KIND):
            yield Finding("not-unique", f"{what}: {key}", RESTORE)


def _check_counters(db: sqlite3.Connection) -> Iterator[Finding]:
    for key, query in (
        ("highest_uid", "SELECT coalesce(max(uid), 0) FROM accounts WHERE NOT adopted"),
        ("highest_gid", "SELECT coalesce(max(gid), 0) FROM accounts WHERE NOT adopted"),
        ("highest_gid", "SELECT coalesce(max(gid), 0) FROM unix_groups"),
    ):
        counter, highest = read_meta_int(db, key), db.execute(query).fetchone()[0]
        if counter < highest:
            yield Finding("counter", f"{key} says {counter}, and {highest} is given", RESTORE)


def _check_chain(db: sqlite3.Connection, told: dict[int, _Told]) -> Iterator[Finding]:
    head, seq, found = GENESIS, 0, 0
    for row in read_rows(db):
        fields = dict(zip(FIELDS, row[:-1], strict=True))
        if row[0] != seq + 1 or fields["prev"] != head:
            yield Finding("chain-broken", f"receipt {row[0]} does not follow receipt {seq}", RESTORE)
            found += 1
        if row[-1] != hash_of(fields):
            yield Finding("receipt-damaged", f"receipt {row[0]} was changed after it was written", RESTORE)
            found += 1
        if found >= MOST_OF_A_KIND:
            yield Finding("chain-broken", f"no receipt after {row[0]} was looked at", RESTORE)
            return
        seq, head = row[0], row[-1]
        _tell(told, row)


def _tell(told: dict[int, _Told], row: Row) -> None:
    kind, subject, name, uid, detail = row[4], row[5], row[6], row[7], row[10]
    if kind in ("create", "adopt"):
        words = dict(word.partition("=")[::2] for word in detail.split(" ")[:3])
        told[uid] = _Told(subject, name, words.get("gid", ""), _split(words.get("locks")), _split(words.get("groups")))
    elif uid in told and kind in ("lock", "join"):
        (told[uid].locks if kind == "lock" else told[uid].groups).add(detail)
    elif uid in told and kind in ("unlock", "leave"):
        (told[uid].locks if kind == "unlock" else told[uid].groups).discard(detail)


def _split(text: str | None) -> set[str]:
    return set(text.split(",")) if text else set()


def _check_accounts(db: sqlite3.Connection, told: dict[int, _Told]) -> Iterator[Finding]:
    hint = "somebody wrote to the ledger by hand: compare with the store, then restore a backup"
    rows = db.execute(
        "SELECT a.uid, s.sub || '@' || i.url, a.name, a.gid, a.locks, a.unix_groups FROM accounts a"
        " JOIN mappings m USING (uid) JOIN subjects s USING (subject_id) JOIN issuers i USING (issuer_id)"
    )
    for uid, subject, name, gid, locks, groups in rows:
        story = told.pop(uid, None)
        if story is None:
            yield Finding("unrecorded", f"no receipt tells how {name} with uid {uid} came to be", hint)
        elif (subject, name, str(gid), _split(locks), _split(groups)) != (
            story.subject,
            story.name,
            story.gid,
            story.locks,
            story.groups,
        ):
            yield Finding("unrecorded", f"{name} with uid {uid} is not as its receipts tell", hint)
    for uid, story in told.items():
        yield Finding("unrecorded", f"{story.name} with uid {uid} has receipts and no account", hint)
