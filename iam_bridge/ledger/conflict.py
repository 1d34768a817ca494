"""Which change contradicts the ledger, in words: SQLite says only which column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from iam_bridge.ledger.rows import ACCOUNT_BY_SUBJECT, find_account
from iam_bridge.model.account import Account
from iam_bridge.model.change import AdoptAccount, Change, CreateAccount, CreateGroup
from iam_bridge.model.identity import Subject


@dataclass(slots=True)
class _Seen:
    """What the changes looked at so far would give."""

    names: set[str] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    people: set[Subject] = field(default_factory=set)


def explain(db: sqlite3.Connection, changes: Iterable[Change]) -> str:
    """Name the first change that gives something twice, and what; empty when none does.

    Looks at the ledger as it stands after the transaction was taken back.
    """
    seen = _Seen()
    for change in changes:
        if isinstance(change, CreateGroup):
            # What stood on the host before us may be what a restored ledger had to write off.
            why = _why(db, seen, f"the unix group {change.group}", change.group.text, (change.gid,), past="unknown")
        elif isinstance(change, CreateAccount | AdoptAccount):
            account = change.account
            numbers = (account.uid,) if account.adopted else (account.uid, account.gid)
            past = "unknown" if account.adopted else ""
            why = _why_person(db, seen, account)
            why = why or _why(db, seen, str(account.subject), account.name.text, numbers, past=past)
        else:
            continue
        if why:
            return why
    return ""


def _why_person(db: sqlite3.Connection, seen: _Seen, account: Account) -> str:
    subject = account.subject
    held = find_account(db, ACCOUNT_BY_SUBJECT, subject.issuer.url, subject.sub)
    if held:
        return f"{subject} has the account {held.name} with uid {held.uid} and cannot get {account.name} too"
    if subject in seen.people:
        return f"{subject} would get two accounts"
    seen.people.add(subject)
    return ""


def _why(db: sqlite3.Connection, seen: _Seen, who: str, name: str, numbers: tuple[int, ...], *, past: str) -> str:
    known = db.execute("SELECT 1 FROM names WHERE name = ? AND kind <> ?", (name, past)).fetchone()
    if known or name in seen.names:
        return f"{who} cannot get the name {name}: it was given before"
    for number in numbers:
        if not 0 < number < 2**32 - 1:
            return f"{who} cannot get the number {number}: it is no uid or gid"
        known = db.execute("SELECT 1 FROM numbers WHERE number = ? AND kind <> ?", (number, past)).fetchone()
        if known or number in seen.numbers:
            return f"{who} cannot get the number {number}: it was given before"
    seen.names.add(name)
    seen.numbers.update(numbers)
    return ""
