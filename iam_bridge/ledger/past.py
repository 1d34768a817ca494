"""Questions about the past: who held a name or a number, what happened to them, in which run and why."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime

from iam_bridge.errors import InvalidValue, LedgerError
from iam_bridge.ledger.banbook import read_bans_of
from iam_bridge.ledger.memberbook import read_member, read_sources
from iam_bridge.ledger.receipts import read_creation, read_receipts
from iam_bridge.ledger.records import Receipt, RunRow, WhoWas, Why
from iam_bridge.ledger.rows import ACCOUNT_BY_NAME, ACCOUNT_BY_SUBJECT, ACCOUNT_BY_UID, find_account, split_locks
from iam_bridge.ledger.times import moment, moment_or_none, stamp
from iam_bridge.model.account import Account
from iam_bridge.model.identity import Issuer, Subject

LATEST = 20

_WHO = (
    "SELECT i.url, s.sub, a.name, a.uid, a.gid, m.since, m.until, a.adopted, a.locks"
    " FROM accounts a JOIN mappings m USING (uid) JOIN subjects s USING (subject_id) JOIN issuers i USING (issuer_id)"
)
_WHO_BY_UID = _WHO + " WHERE a.uid = ? AND m.since <= ? AND (m.until IS NULL OR m.until > ?)"
_WHO_BY_NAME = _WHO + " WHERE a.name = ? AND m.since <= ? AND (m.until IS NULL OR m.until > ?)"
_RUNS = "SELECT run_id, command, started_at, finished_at, outcome, counts, remarks FROM runs"


def read_who(db: sqlite3.Connection, at: datetime, *, uid: int | None, name: str | None) -> WhoWas | None:
    """Give who held a uid or a name at a moment, None where nobody did as far as this ledger knows."""
    if (uid is None) == (name is None):
        raise InvalidValue("who is asked by a uid or by a name, one of them")
    when = stamp(at)
    query, key = (_WHO_BY_UID, uid) if uid is not None else (_WHO_BY_NAME, name)
    row = db.execute(query, (key, when, when)).fetchone()
    if row is None:
        return _read_unknown(db, when, uid=uid, name=name)
    url, sub, text, number, gid, since, until, adopted, locks = row
    who = Subject(Issuer(url), sub)
    return WhoWas(who, text, number, gid, moment(since), moment_or_none(until), bool(adopted), split_locks(locks))


def _read_unknown(db: sqlite3.Connection, when: str, *, uid: int | None, name: str | None) -> WhoWas | None:
    """Find what a reconciled ledger knows to be given, but not to whom; it may have been at any time before."""
    query = "SELECT given_at FROM numbers WHERE number = ? AND kind = 'unknown'"
    if name is not None:
        query = "SELECT given_at FROM names WHERE name = ? AND kind = 'unknown'"
    row = db.execute(query, (uid if name is None else name,)).fetchone()
    return WhoWas(None, name or "", uid or 0, 0, moment(row[0]), None, False, frozenset()) if row else None


def _find(db: sqlite3.Connection, subject: Subject | None, name: str | None, uid: int | None) -> Account | None:
    if subject is not None:
        return find_account(db, ACCOUNT_BY_SUBJECT, subject.issuer.url, subject.sub)
    if name is not None:
        return find_account(db, ACCOUNT_BY_NAME, name)
    return find_account(db, ACCOUNT_BY_UID, uid) if uid is not None else None


def read_history(
    db: sqlite3.Connection, *, subject: Subject | None, name: str | None, uid: int | None, limit: int
) -> tuple[Receipt, ...]:
    """Give the last `limit` receipts on a person, oldest first; one of the three is enough to find the others."""
    account = _find(db, subject, name, uid)
    if account is not None:
        subject, name, uid = account.subject, account.name.text, account.uid
    found = read_receipts(db, subject=str(subject or ""), name=name or "", uid=uid or 0, limit=limit)
    return found[::-1]


def read_why(db: sqlite3.Connection, name: str) -> Why | None:
    """Gather what stands behind an account; None where the ledger has no account of this name."""
    account = find_account(db, ACCOUNT_BY_NAME, name)
    if account is None:
        return None
    created = read_creation(db, account.uid)
    return Why(
        account,
        read_member(db, account.subject),
        next((source for source in read_sources(db) if source.issuer == account.subject.issuer), None),
        created,
        _read_run(db, created.run) if created else None,
        read_receipts(db, subject=str(account.subject), name=name, uid=account.uid, limit=LATEST),
        read_bans_of(db, account),
    )


def _build_run(row: tuple[int, str, str, str | None, str, str, str]) -> RunRow:
    run_id, command, started_at, finished_at, outcome, counts, remarks = row
    end = moment_or_none(finished_at)
    return RunRow(run_id, command, moment(started_at), end, outcome, json.loads(counts), tuple(json.loads(remarks)))


def _read_run(db: sqlite3.Connection, run_id: int) -> RunRow | None:
    row = db.execute(_RUNS + " WHERE run_id = ?", (run_id,)).fetchone()
    return _build_run(row) if row else None


def read_runs(db: sqlite3.Connection, limit: int) -> tuple[RunRow, ...]:
    """Give the last runs, newest first."""
    return tuple(map(_build_run, db.execute(_RUNS + " ORDER BY run_id DESC LIMIT ?", (limit,))))


def insert_run(
    db: sqlite3.Connection, now: datetime, command: str, *, finished: bool, remarks: Sequence[str] = ()
) -> int:
    """Write a run that starts, or one that found nothing to do."""
    at = stamp(now)
    row = (command, at, at if finished else None, "nothing-to-do" if finished else "", json.dumps(list(remarks)))
    sql = "INSERT INTO runs (command, started_at, finished_at, outcome, remarks) VALUES (?, ?, ?, ?, ?)"
    return db.execute(sql, row).lastrowid or 0


def finish_run(
    db: sqlite3.Connection,
    run_id: int,
    now: datetime,
    *,
    outcome: str,
    counts: Mapping[str, int],
    remarks: Sequence[str],
) -> None:
    """Write how a run ended; raise LedgerError when it has ended already or never began."""
    row = (stamp(now), outcome, json.dumps(dict(counts)), json.dumps(list(remarks)), run_id)
    sql = "UPDATE runs SET finished_at = ?, outcome = ?, counts = ?, remarks = ?"
    if not db.execute(sql + " WHERE run_id = ? AND finished_at IS NULL", row).rowcount:
        raise LedgerError(f"there is no run {run_id} under way")
