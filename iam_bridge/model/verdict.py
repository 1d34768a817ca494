"""Verdicts on a login: what was asked, what is known, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from iam_bridge.errors import Reason
from iam_bridge.model.account import Account, Foreign, LockReason, Orphan
from iam_bridge.model.identity import Subject


@dataclass(frozen=True, slots=True)
class Ban:
    """A stop for one identity, account or number; lifted by hand or at `until`.

    A ban on a name or a uid is resolved to the subject where one is known, so that it counts for every account of it.
    """

    ban_id: int
    subject: Subject | None
    name: str | None
    uid: int | None
    reason: str
    since: datetime
    until: datetime | None

    def holds_at(self, now: datetime) -> bool:
        """Tell whether the ban is in force.

        `since` is for the record and starts nothing: a clock that was set back would lift the ban.
        """
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the view and the ban list say of an account name at one moment.

    `nss_uid` is what the host itself answers for the name, None where it knows none. `iam_groups` is the membership in
    the last complete snapshot of the subject's issuer, `members_taken_at` the time of that snapshot.
    """

    account: Account | Foreign | Orphan | None
    nss_uid: int | None
    iam_groups: frozenset[str]
    iam_active: bool
    members_taken_at: datetime | None
    bans: tuple[Ban, ...]


class Remark(Enum):
    """What a permit is worth mentioning in the log for."""

    MEMBERS_AGEING = "members-ageing"


@dataclass(frozen=True, slots=True)
class Permit:
    """Yes, for exactly this name and uid."""

    name: str
    uid: int
    rule: str
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny:
    """No. `text` is what the person reads; `detail` is for the log; neither holds a secret."""

    reason: Reason
    text: str
    detail: str = ""
    locks: frozenset[LockReason] = frozenset()


@dataclass(frozen=True, slots=True)
class NotOurs:
    """None of our business: other modules decide (PAM_IGNORE)."""

    name: str


Verdict = Permit | Deny
AccountVerdict = Permit | Deny | NotOurs
