"""What an audit looks at and what it says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.model.account import UserName
from iam_bridge.model.change import Plan
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.state import LedgerState, StoreSnapshot


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing that is not as it should be: `code` for programs, `who` it is about, and what to do next."""

    code: str
    who: str
    uid: int
    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class HostUser:
    """A user as the host's name service answers."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class HomeFact:
    """What stands where a home should be: `kind` is folder, link or other."""

    kind: str
    owner: int
    mode: int


@dataclass(frozen=True, slots=True)
class SourceAge:
    """When a source gave its last complete list, and why the last attempt gave none."""

    issuer: Issuer
    taken_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A change that is parked under a digest."""

    digest: str
    kind: str
    name: str
    uid: int
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """Everything that an audit looks at, at one moment.

    `host_users` are our names and all uids of our range as the name service has them; `homes` what stands at each
    account's home, None for nothing; `strays` are (path, owner) of what lies among the homes and is none; `plan` is
    what a run would do by the last complete lists; `running` counts processes by uid, `later` names files that could
    start some; `group_counts` are supplementary groups by name; `elsewhere` is what other parts found by themselves.
    """

    now: datetime
    ledger: LedgerState
    store: StoreSnapshot
    host_users: Mapping[str, HostUser]
    homes: Mapping[UserName, HomeFact | None]
    strays: tuple[tuple[str, int], ...]
    shells: frozenset[str]
    sources: tuple[SourceAge, ...]
    plan: Plan
    suspended: frozenset[Subject]
    parked: tuple[Waiting, ...]
    banned: frozenset[Subject]
    running: Mapping[int, int]
    later: Mapping[UserName, tuple[str, ...]]
    group_counts: Mapping[str, int]
    elsewhere: tuple[AuditFinding, ...] = ()
