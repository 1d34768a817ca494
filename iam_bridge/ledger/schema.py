"""The ledger's tables, and how an older file becomes one of today.

`MIGRATIONS[n]` takes a file from version n to n + 1, in one transaction; a migration is never edited once released.
What must never be given twice is held by primary keys and UNIQUE, so that no bug above can give it twice.
Times are text as `times.stamp` writes it. Lock reasons and unix groups of an account are sorted, comma-joined words.
"""

from __future__ import annotations

APPLICATION_ID = 0x49414D4C  # "IAML"

_V1 = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE issuers (issuer_id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE)",
    """CREATE TABLE subjects (
        subject_id INTEGER PRIMARY KEY,
        issuer_id INTEGER NOT NULL REFERENCES issuers,
        sub TEXT NOT NULL,
        UNIQUE (issuer_id, sub))""",
    """CREATE TABLE runs (
        run_id INTEGER PRIMARY KEY AUTOINCREMENT,
        command TEXT NOT NULL,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        outcome TEXT NOT NULL DEFAULT '',
        counts TEXT NOT NULL DEFAULT '{}',
        remarks TEXT NOT NULL DEFAULT '[]')""",
    # One space for uids and gids: a private group has its account's number or one of its own, and no unix group of the
    # mapping table may have either. `kind`: account, group, shared (a primary gid that an adopted account came with),
    # unknown (given by a history that this ledger lost).
    """CREATE TABLE numbers (
        number INTEGER PRIMARY KEY CHECK (number > 0 AND number < 4294967295),
        kind TEXT NOT NULL,
        given_at TEXT NOT NULL)""",
    "CREATE TABLE names (name TEXT PRIMARY KEY, kind TEXT NOT NULL, given_at TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE accounts (
        uid INTEGER PRIMARY KEY REFERENCES numbers (number),
        name TEXT NOT NULL UNIQUE REFERENCES names (name),
        gid INTEGER NOT NULL,
        home TEXT NOT NULL,
        shell TEXT NOT NULL,
        gecos TEXT NOT NULL,
        unix_groups TEXT NOT NULL,
        locks TEXT NOT NULL,
        adopted INTEGER NOT NULL,
        saved_expiry TEXT,
        home_made_at TEXT)""",
    # A mapping with `until` is a tombstone: its subject, uid and name stay taken.
    """CREATE TABLE mappings (
        subject_id INTEGER PRIMARY KEY REFERENCES subjects,
        uid INTEGER NOT NULL UNIQUE REFERENCES accounts,
        since TEXT NOT NULL,
        until TEXT)""",
    "CREATE TABLE unix_groups (name TEXT PRIMARY KEY REFERENCES names, gid INTEGER NOT NULL UNIQUE) WITHOUT ROWID",
    """CREATE TABLE members (
        issuer_id INTEGER NOT NULL REFERENCES issuers,
        sub TEXT NOT NULL,
        username TEXT NOT NULL,
        active INTEGER NOT NULL,
        iam_groups TEXT NOT NULL,
        created TEXT NOT NULL,
        PRIMARY KEY (issuer_id, sub)) WITHOUT ROWID""",
    """CREATE TABLE sources (
        issuer_id INTEGER PRIMARY KEY REFERENCES issuers,
        taken_at TEXT,
        members INTEGER NOT NULL DEFAULT 0,
        attempted_at TEXT NOT NULL,
        reason TEXT NOT NULL)""",
    # One row for each stretch of equal counts; that of the last row ends at sources.taken_at.
    """CREATE TABLE counts (
        count_id INTEGER PRIMARY KEY,
        issuer_id INTEGER NOT NULL REFERENCES issuers,
        members INTEGER NOT NULL,
        last_at TEXT)""",
    "CREATE INDEX counts_by_end ON counts (issuer_id, last_at)",
    """CREATE TABLE bans (
        ban_id INTEGER PRIMARY KEY AUTOINCREMENT,
        subject_id INTEGER REFERENCES subjects,
        name TEXT,
        uid INTEGER,
        reason TEXT NOT NULL,
        since TEXT NOT NULL,
        until TEXT,
        lifted_at TEXT,
        CHECK (subject_id IS NOT NULL OR name IS NOT NULL OR uid IS NOT NULL))""",
    """CREATE TABLE parked (
        digest TEXT PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs,
        why TEXT NOT NULL,
        since TEXT NOT NULL,
        people INTEGER NOT NULL,
        changes TEXT NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE approvals (
        who TEXT NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        digest TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        PRIMARY KEY (who, kind, reason)) WITHOUT ROWID""",
    # People whom the limits count, for as long as they count.
    """CREATE TABLE touched (
        touched_id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        uid INTEGER NOT NULL,
        at TEXT NOT NULL)""",
    "CREATE INDEX touched_by_time ON touched (kind, at)",
    """CREATE TABLE receipts (
        seq INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        run INTEGER NOT NULL,
        by TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        name TEXT NOT NULL,
        uid INTEGER NOT NULL,
        rule TEXT NOT NULL,
        record TEXT NOT NULL,
        detail TEXT NOT NULL,
        prev TEXT NOT NULL,
        hash TEXT NOT NULL)""",
    "CREATE INDEX receipts_by_subject ON receipts (subject) WHERE subject <> ''",
    "CREATE INDEX receipts_by_name ON receipts (name) WHERE name <> ''",
    "CREATE INDEX receipts_by_uid ON receipts (uid) WHERE uid <> 0",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1,)
VERSION = len(MIGRATIONS)
