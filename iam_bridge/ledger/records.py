"""What the ledger answers questions with: frozen records, ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.ledger.finding import Finding
from iam_bridge.model.account import Account, LockReason
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.verdict import Ban

__all__ = [
    "ChangeLine",
    "Finding",
    "MemberRecord",
    "ParkedRow",
    "Receipt",
    "Reconciled",
    "RunRow",
    "SourceRow",
    "WhoWas",
    "Why",
]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One line of the chain: what was changed, when, in which run, by whom, and on which rule and record.

    `subject` is `SUB@ISSUER` or empty, `uid` is 0 where none is concerned, `run` is 0 for an admin's act outside a run.
    """

    seq: int
    at: datetime
    run: int
    by: str
    kind: str
    subject: str
    name: str
    uid: int
    rule: str
    record: str
    detail: str
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """A change as plans, receipts and lists of parked changes show it."""

    kind: str
    subject: str
    name: str
    uid: int
    detail: str
    rule: str
    record: str


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """Changes that wait for `provision approve DIGEST`, since when, and how many people they touch."""

    digest: str
    why: str
    since: datetime
    people: int
    lines: tuple[ChangeLine, ...]


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A person as the last complete snapshot of their issuer listed them."""

    subject: Subject
    username: str
    active: bool
    groups: frozenset[str]
    created: datetime


@dataclass(frozen=True, slots=True)
class SourceRow:
    """How a source fared: its last complete snapshot, and the last attempt with its reason (empty when complete)."""

    issuer: Issuer
    taken_at: datetime | None
    members: int
    attempted_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run; `finished_at` is None for one that is under way or was interrupted."""

    run_id: int
    command: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    counts: Mapping[str, int]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WhoWas:
    """Who held a name or a number at a moment; `subject` is None where it was given to somebody whom we do not know.

    `locks` are those of today.
    """

    subject: Subject | None
    name: str
    uid: int
    gid: int
    since: datetime
    until: datetime | None
    adopted: bool
    locks: frozenset[LockReason]


@dataclass(frozen=True, slots=True)
class Why:
    """Everything behind an account: the IAM's record, the receipt and run that made it, and what happened since."""

    account: Account
    member: MemberRecord | None
    source: SourceRow | None
    created: Receipt | None
    run: RunRow | None
    latest: tuple[Receipt, ...]
    bans: tuple[Ban, ...]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many numbers and names were marked as given to somebody whom this ledger does not know."""

    numbers: int
    names: int
