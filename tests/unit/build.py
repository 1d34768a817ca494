"""Values for tests of the pure parts: one issuer, one source, members and accounts by short calls."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.model.account import Account, GroupName, IdRange, LockReason, UserName
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from iam_bridge.model.rules import (
    AccountRules,
    GroupRule,
    IssuerRules,
    Limit,
    Limits,
    LoginRules,
    Requirement,
    SourceRules,
)
from iam_bridge.model.state import HostNames, LedgerState, StoreSnapshot

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
ISSUER = Issuer.parse("https://iam.example.org/")
OTHER = Issuer.parse("https://other.example.org/")
IDS = IdRange(20000, 59999)
AUDIENCE = ("https://login.hpc.example.org",)
USERS, GPU = GroupName.parse("hpcusers"), GroupName.parse("gpu")
RULES = (
    GroupRule("hpc/users", USERS, grants_account=True, adopt=False),
    GroupRule("hpc/gpu", GPU, grants_account=False, adopt=False),
)


def subject(sub: str = "s-ada", issuer: Issuer = ISSUER) -> Subject:
    return Subject.parse(issuer, sub)


def issuer_rules(**changes: object) -> IssuerRules:
    values: dict[str, object] = {
        "issuer": ISSUER, "algorithms": ("RS256", "ES256"), "types": frozenset({"at+jwt", "jwt"}), "validation": "offline",
        "client": None, "ca_file": None, "refresh_s": 21600, "usable_s": 172800, "timeout_s": 5, "down": "deny",
    }  # fmt: skip
    return IssuerRules(**(values | changes))  # type: ignore[arg-type]


def source(
    groups: tuple[GroupRule, ...] = RULES, issuer: Issuer = ISSUER, trusted: frozenset[str] = frozenset()
) -> SourceRules:
    return SourceRules(issuer, "indigo-iam", groups, None, None, None, trusted, 30, "nobody")


def account_rules(**changes: object) -> AccountRules:
    values: dict[str, object] = {
        "uids": IDS, "gids": IDS, "name_sources": ("preferred_username",), "home": "/home/{name}", "shell": "/bin/bash",
        "skel": None, "home_mode": 0o700, "layout": "etc", "folder": Path("/etc"), "subid_folder": None, "subid_count": 0,
    }  # fmt: skip
    return AccountRules(**(values | changes))  # type: ignore[arg-type]


def member(
    sub: str = "s-ada", username: str = "ada", groups: tuple[str, ...] = ("hpc/users",), *, active: bool = True,
    created: datetime = NOW, issuer: Issuer = ISSUER, attributes: dict[str, str] | None = None,
) -> Member:  # fmt: skip
    return Member(subject(sub, issuer), username, active, created, frozenset(groups), attributes or {})


def snapshot(
    *members: Member, complete: bool = True, issuer: Issuer = ISSUER, groups: tuple[str, ...] = ("hpc/users", "hpc/gpu")
) -> MemberSnapshot:
    return MemberSnapshot(issuer, members, frozenset(groups), NOW, complete, "" if complete else "a page was short")


def account(
    sub: str = "s-ada", name: str = "ada", uid: int = 20000, groups: tuple[GroupName, ...] = (USERS,), locks: tuple[LockReason, ...] = (),
    *, issuer: Issuer = ISSUER, adopted: bool = False,
) -> Account:  # fmt: skip
    return Account(
        subject(sub, issuer), UserName.parse(name), uid, uid, f"/home/{name}", "/bin/bash",
        frozenset(groups), frozenset(locks), f"iam-bridge-{uid}", adopted,
    )  # fmt: skip


def ledger(*accounts: Account, **changes: object) -> LedgerState:
    values: dict[str, object] = {
        "generation": 1, "accounts": {a.subject: a for a in accounts}, "groups": {USERS: 30000, GPU: 30001} if accounts else {},
        "names_given": frozenset(a.name.text for a in accounts), "numbers_given": frozenset(a.uid for a in accounts),
        "saved_expiry": {}, "homes_due": frozenset(), "member_counts": (), "recent_creates": 0, "recent_removals": 0,
        "approved": frozenset(), "stopped": "",
    }  # fmt: skip
    return LedgerState(**(values | changes))  # type: ignore[arg-type]


EMPTY_STORE = StoreSnapshot({}, {})
EMPTY_HOST = HostNames({}, frozenset())
LIMITS = Limits(Limit(5, 5), Limit(50, 10), 10)
LOGIN_RULES = LoginRules(AUDIENCE, (Requirement(ISSUER, "hpc/users"),), 900, 86400, (IDS,))
