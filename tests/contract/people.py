"""People and rules that the tests of account stores, homes and host names share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from iam_bridge.model.account import Account, GroupName, IdRange, LockReason, UserName, gecos_of
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.rules import AccountRules
from iam_bridge.model.state import Wanted, WantedAccount

ISSUER = Issuer.parse("https://iam.example.org/")
UIDS = IdRange.parse(20000, 59999)
GROUP = GroupName("hpcusers")
GPU = GroupName("gpu")


def rules_for(folder: Path, *, layout: str = "etc", subids: Path | None = None, **changes: object) -> AccountRules:
    values: dict[str, object] = {
        "uids": UIDS,
        "gids": UIDS,
        "name_sources": ("preferred_username",),
        "home": "/home/{name}",
        "shell": "/bin/bash",
        "skel": None,
        "home_mode": 0o700,
        "layout": layout,
        "folder": folder,
        "subid_folder": subids,
        "subid_count": 65536,
    }
    return AccountRules(**{**values, **changes})  # type: ignore[arg-type]


def account(
    name: str = "alice",
    uid: int = 20000,
    *,
    groups: Iterable[GroupName] = (),
    locks: Iterable[LockReason] = (),
    **changes: object,
) -> Account:
    values: dict[str, object] = {
        "subject": Subject(ISSUER, f"sub-{name}"),
        "name": UserName(name),
        "uid": uid,
        "gid": uid,
        "home": f"/home/{name}",
        "shell": "/bin/bash",
        "groups": frozenset(groups),
        "locks": frozenset(locks),
        "gecos": gecos_of(uid),
    }
    return Account(**{**values, **changes})  # type: ignore[arg-type]


def wanted(*accounts: Account | WantedAccount, groups: dict[GroupName, int] | None = None) -> Wanted:
    entries = tuple(a if isinstance(a, WantedAccount) else WantedAccount(a, None) for a in accounts)
    return Wanted(entries, {GROUP: 50000, GPU: 50001} if groups is None else groups)
