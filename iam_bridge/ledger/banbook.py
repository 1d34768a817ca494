"""Bans in the ledger: added, lifted, and tied to a subject as soon as one is known.

A ban on a name or a number that nobody has yet waits; when an account of that name or number comes to be, the ban is
written to its subject, and from then on counts for every account of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from iam_bridge.errors import InvalidValue, LedgerError
from iam_bridge.ledger.db import transaction
from iam_bridge.ledger.receipts import append_receipts
from iam_bridge.ledger.records import ChangeLine
from iam_bridge.ledger.rows import ACCOUNT_BY_NAME, ACCOUNT_BY_UID, bump, find_account, subject_id_of
from iam_bridge.ledger.times import moment, moment_or_none, stamp
from iam_bridge.model.account import Account, UserName
from iam_bridge.model.identity import Issuer, Subject, has_control
from iam_bridge.model.verdict import Ban

REASON_MAX = 200
UID_MAX = 2**32 - 2

_ALL = (
    "SELECT b.ban_id, i.url, s.sub, b.name, b.uid, b.reason, b.since, b.until, b.lifted_at"
    " FROM bans b LEFT JOIN subjects s USING (subject_id) LEFT JOIN issuers i USING (issuer_id)"
)
_IN_FORCE = " WHERE lifted_at IS NULL AND (until IS NULL OR until > ?)"


def _build(row: tuple[int, str | None, str | None, str | None, int | None, str, str, str | None, str | None]) -> Ban:
    ban_id, url, sub, name, uid, reason, since, until, lifted_at = row
    subject = Subject(Issuer(url), sub) if url is not None and sub is not None else None
    end = min((at for at in (until, lifted_at) if at is not None), default=None)
    return Ban(ban_id, subject, name, uid, reason, moment(since), moment_or_none(end))


def _check(*, subject: Subject | None, name: str | None, uid: int | None, reason: str) -> None:
    if subject is None and name is None and uid is None:
        raise InvalidValue("a ban names nobody", hint="give a subject, a name or a uid")
    if name is not None:
        UserName.parse(name)
    if uid is not None and (isinstance(uid, bool) or not isinstance(uid, int) or not 0 < uid <= UID_MAX):
        raise InvalidValue(f"{uid!r} is no uid that can be banned", hint="a whole number from 1")
    # The person reads it on their terminal.
    if len(reason) > REASON_MAX or has_control(reason):
        raise InvalidValue(f"the reason is longer than {REASON_MAX} characters or holds control characters")


def add_ban(
    db: sqlite3.Connection,
    now: datetime,
    by: str,
    *,
    subject: Subject | None,
    name: str | None,
    uid: int | None,
    reason: str,
    until: datetime | None,
) -> Ban:
    """Write a ban and its receipt; raise InvalidValue for one that could never hold."""
    _check(subject=subject, name=name, uid=uid, reason=reason)
    at, end = stamp(now), stamp(until) if until else None
    if end is not None and end <= at:
        raise InvalidValue(f"the ban would end at {end}, which is over", hint="give a later time, or none")
    with transaction(db):
        subject = subject or _known_subject(db, name, uid)
        row = (subject_id_of(db, subject) if subject else None, name, uid, reason, at, end)
        ban_id = db.execute(
            "INSERT INTO bans (subject_id, name, uid, reason, since, until) VALUES (?, ?, ?, ?, ?, ?)", row
        ).lastrowid
        ban = read_ban(db, ban_id or 0)
        _record(db, "ban", ban, f"until {end or 'lifted'}: {reason}", at=at, run=0, by=by)
    return ban


def _known_subject(db: sqlite3.Connection, name: str | None, uid: int | None) -> Subject | None:
    found = [find_account(db, ACCOUNT_BY_NAME, name)] if name is not None else []
    found += [find_account(db, ACCOUNT_BY_UID, uid)] if uid is not None else []
    people = {account.subject for account in found if account is not None}
    if len(people) > 1:
        raise InvalidValue(f"the name {name} and the uid {uid} are two people's", hint="ban them one by one")
    return people.pop() if people else None


def _record(db: sqlite3.Connection, kind: str, ban: Ban, detail: str, *, at: str, run: int, by: str) -> None:
    line = ChangeLine(
        kind, str(ban.subject or ""), ban.name or "", ban.uid or 0, detail, f"ban {ban.ban_id}", f"by {by}"
    )
    append_receipts(db, [line], at=at, run=run, by=by)
    bump(db, "generation")
    bump(db, "bans_generation")


def read_ban(db: sqlite3.Connection, ban_id: int) -> Ban:
    """Give one ban; raise LedgerError when there is none of this number."""
    row = db.execute(_ALL + " WHERE b.ban_id = ?", (ban_id,)).fetchone()
    if row is None:
        raise LedgerError(f"there is no ban {ban_id}", hint="iam-bridge ban list --all shows them")
    return _build(row)


def lift_ban(db: sqlite3.Connection, ban_id: int, now: datetime, by: str) -> Ban:
    """End a ban now; raise LedgerError for one that does not stand or is over."""
    at = stamp(now)
    with transaction(db):
        ban = read_ban(db, ban_id)
        if ban.until is not None and ban.until <= now:
            raise LedgerError(f"the ban {ban_id} ended at {stamp(ban.until)}", hint="see: iam-bridge ban list")
        db.execute("UPDATE bans SET lifted_at = ? WHERE ban_id = ?", (at, ban_id))
        _record(db, "lift", ban, ban.reason, at=at, run=0, by=by)
        return read_ban(db, ban_id)


def read_bans(db: sqlite3.Connection, now: datetime, *, include_past: bool) -> tuple[Ban, ...]:
    """Give the bans that are in force, or all; a lifted one ends when it was lifted."""
    if include_past:
        return tuple(map(_build, db.execute(_ALL + " ORDER BY b.ban_id")))
    return tuple(map(_build, db.execute(_ALL + _IN_FORCE + " ORDER BY b.ban_id", (stamp(now),))))


def read_bans_of(db: sqlite3.Connection, account: Account) -> tuple[Ban, ...]:
    """Give all bans that ever concerned an account, past ones too."""
    subject = account.subject
    query = _ALL + " WHERE (i.url = ? AND s.sub = ?) OR b.name = ? OR b.uid = ? ORDER BY b.ban_id"
    return tuple(map(_build, db.execute(query, (subject.issuer.url, subject.sub, account.name.text, account.uid))))


def resolve_bans(db: sqlite3.Connection, made: Iterable[Account], *, now: datetime, run: int, by: str) -> None:
    """Tie bans that waited for a name or a uid to the subjects of accounts that were just made."""
    waiting = [ban for ban in read_bans(db, now, include_past=False) if ban.subject is None]
    if not waiting:
        return
    by_name = {account.name.text: account for account in made}
    by_uid = {account.uid: account for account in by_name.values()}
    for ban in waiting:
        account = by_name.get(ban.name or "") or by_uid.get(ban.uid or 0)
        if account is not None:
            subject_id = subject_id_of(db, account.subject)
            db.execute("UPDATE bans SET subject_id = ? WHERE ban_id = ?", (subject_id, ban.ban_id))
            who = f"{account.name} with uid {account.uid}"
            _record(db, "ban-resolved", read_ban(db, ban.ban_id), who, at=stamp(now), run=run, by=by)
