"""Changes to accounts, the plan that orders them, and what a guard held back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.identity import Subject

DIGEST_HEX = 12


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a change is due: the rule of the settings and the IAM record (or the admin) behind it, as short text."""

    rule: str
    record: str


@dataclass(frozen=True, slots=True)
class CreateGroup:
    """Make a unix group of the mapping table with a number from the ledger."""

    group: GroupName
    gid: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class CreateAccount:
    """Make an account; its groups are part of it."""

    account: Account
    cause: Cause


@dataclass(frozen=True, slots=True)
class AdoptAccount:
    """Take over an account that existed before us, on an admin's word; `proof` says how the person is known."""

    account: Account
    proof: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class LockAccount:
    """Add one lock reason."""

    subject: Subject
    name: UserName
    uid: int
    reason: LockReason
    cause: Cause


@dataclass(frozen=True, slots=True)
class UnlockAccount:
    """Take one lock reason away; the account opens when none is left."""

    subject: Subject
    name: UserName
    uid: int
    reason: LockReason
    cause: Cause


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """Put an account into a unix group."""

    subject: Subject
    name: UserName
    uid: int
    group: GroupName
    cause: Cause


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """Take an account out of a unix group."""

    subject: Subject
    name: UserName
    uid: int
    group: GroupName
    cause: Cause


Change = CreateGroup | CreateAccount | AdoptAccount | LockAccount | UnlockAccount | JoinGroup | LeaveGroup
Removal = LockAccount | LeaveGroup

KIND_WORDS: dict[type, str] = {
    CreateGroup: "create-group",
    CreateAccount: "create",
    AdoptAccount: "adopt",
    LockAccount: "lock",
    UnlockAccount: "unlock",
    JoinGroup: "join",
    LeaveGroup: "leave",
}
_ORDER = {kind: place for place, kind in enumerate(KIND_WORDS)}


def kind_of(change: Change) -> str:
    """Give the word for a change that plans, receipts and reports use."""
    return KIND_WORDS[type(change)]


def key_of(change: Change) -> tuple[str, str, str]:
    """Give (who, kind, reason) of a change: what an approval names; for creations `who` is the subject."""
    match change:
        case CreateGroup():
            return (f"group:{change.group}", "create-group", "")
        case CreateAccount() | AdoptAccount():
            return (str(change.account.subject), kind_of(change), "")
        case LockAccount() | UnlockAccount():
            return (str(change.uid), kind_of(change), change.reason.value)
        case JoinGroup() | LeaveGroup():
            return (str(change.uid), kind_of(change), str(change.group))
        case _ as never:
            assert_never(never)


def in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Sort changes: groups, accounts, locks, unlocks, joins, leaves; then by number and why."""
    return tuple(sorted(changes, key=lambda change: (_ORDER[type(change)], _number_of(change), key_of(change))))


def _number_of(change: Change) -> int:
    match change:
        case CreateGroup():
            return change.gid
        case CreateAccount() | AdoptAccount():
            return change.account.uid
        case _:
            return change.uid


def digest_of(changes: Iterable[Change]) -> str:
    """Name a set of changes by (who, kind, reason) alone, so that the same set keeps its name from run to run."""
    lines = sorted("\t".join(key_of(change)) for change in changes)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGEST_HEX]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A member who gets no account, and why; refusals are shown, never dropped."""

    subject: Subject
    username: str
    why: str


@dataclass(frozen=True, slots=True)
class Parked:
    """Changes above a limit: they wait for `provision approve DIGEST`."""

    changes: tuple[Change, ...]
    why: str

    @property
    def digest(self) -> str:
        """Give the name under which an admin approves them."""
        return digest_of(self.changes)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will do (`changes`, in order), what waits (`parked`) and who is turned away (`refused`).

    `remarks` are sentences for the report: an incomplete source, a limit that was met, an allocation stop.
    """

    changes: tuple[Change, ...]
    parked: tuple[Parked, ...] = ()
    refused: tuple[Refusal, ...] = ()
    remarks: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)


def count_kinds(changes: Sequence[Change]) -> dict[str, int]:
    """Count changes by kind, in the order in which a plan lists them."""
    counts = dict.fromkeys(KIND_WORDS.values(), 0)
    for change in changes:
        counts[kind_of(change)] += 1
    return {kind: count for kind, count in counts.items() if count}
