"""A real ledger in a scratch folder, and the changes that tests put into it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.change import (
    AdoptAccount,
    Cause,
    Change,
    CreateAccount,
    CreateGroup,
    JoinGroup,
    LeaveGroup,
    LockAccount,
    UnlockAccount,
)
from tests.unit.build import GPU, NOW, USERS

CAUSE = Cause("members.groups hpc/users", "userName=ada")
GROUPS = (CreateGroup(USERS, 30000, CAUSE), CreateGroup(GPU, 30001, CAUSE))


def open_ledger(tmp_path: Path, *anchors: Path) -> Ledger:
    """Open the ledger of a test in a folder of its own."""
    return Ledger.open(tmp_path / "state" / "ledger.db", anchors=anchors)


def create(account: Account) -> CreateAccount:
    return CreateAccount(account, CAUSE)


def adopt(account: Account) -> AdoptAccount:
    return AdoptAccount(account, "same person as in the site's list", CAUSE)


def lock(account: Account, reason: LockReason = LockReason.LEFT) -> LockAccount:
    return LockAccount(account.subject, account.name, account.uid, reason, CAUSE)


def unlock(account: Account, reason: LockReason = LockReason.LEFT) -> UnlockAccount:
    return UnlockAccount(account.subject, account.name, account.uid, reason, CAUSE)


def join(account: Account, group: GroupName) -> JoinGroup:
    return JoinGroup(account.subject, account.name, account.uid, group, CAUSE)


def leave(account: Account, group: GroupName) -> LeaveGroup:
    return LeaveGroup(account.subject, account.name, account.uid, group, CAUSE)


def commit(
    ledger: Ledger, *changes: Change, now: datetime = NOW, saved: dict[UserName, str] | None = None, by: str = "run"
) -> None:
    """Commit as a run of its own."""
    run_id = ledger.start_run(now, "provision run")
    ledger.commit(run_id, changes, now=now, saved_expiry=saved or {}, by=by)


def with_accounts(tmp_path: Path, accounts: Sequence[Account], *anchors: Path) -> Ledger:
    """Open a ledger that has the two groups of the mapping table and these accounts."""
    ledger = open_ledger(tmp_path, *anchors)
    commit(ledger, *GROUPS, *map(create, accounts))
    return ledger
