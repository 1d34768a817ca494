"""What is due: the members of each source against the ledger. Pure, deterministic, sorted.

A snapshot that is not complete may create accounts and join groups; it never locks, leaves or unlocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from iam_bridge.model.account import Account, GroupName, LockReason
from iam_bridge.model.change import Cause, Change, JoinGroup, LeaveGroup, LockAccount, Refusal, UnlockAccount, in_order
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from iam_bridge.model.rules import SourceRules
from iam_bridge.policy.mapping import (
    decide_accounts,
    decide_groups,
    granting_group,
    newcomers,
    record_of,
    unix_groups,
)
from iam_bridge.policy.names import Numbers
from iam_bridge.policy.world import World

ABSENT = "not among the members of the last complete snapshot"


@dataclass(frozen=True, slots=True)
class Draft:
    """What is due before any guard looked at it."""

    changes: tuple[Change, ...]
    refused: tuple[Refusal, ...]
    remarks: tuple[str, ...]


def _lock(account: Account, reason: LockReason, cause: Cause) -> LockAccount:
    return LockAccount(account.subject, account.name, account.uid, reason, cause)


def _unlock(account: Account, reason: LockReason, cause: Cause) -> UnlockAccount:
    return UnlockAccount(account.subject, account.name, account.uid, reason, cause)


def _toggle(account: Account, reason: LockReason, due: bool, cause: Cause) -> list[Change]:
    """Make one lock reason what it should be."""
    if due and reason not in account.locks:
        return [_lock(account, reason, cause)]
    if not due and reason in account.locks:
        return [_unlock(account, reason, cause)]
    return []


def _membership(account: Account, wanted: Collection[GroupName], cause: Cause, *, may_leave: bool) -> list[Change]:
    person = (account.subject, account.name, account.uid)
    changes: list[Change] = [JoinGroup(*person, group, cause) for group in wanted if group not in account.groups]
    if may_leave:
        changes += [LeaveGroup(*person, group, cause) for group in account.groups if group not in wanted]
    return changes


def _due_for(
    account: Account, member: Member | None, source: SourceRules, usable: Collection[GroupName], complete: bool
) -> list[Change]:
    """Give what is due for one account, whose member record is None where the source does not list them."""
    if member is None:
        if not complete:
            return []
        return _toggle(account, LockReason.LEFT, True, Cause("members.groups", ABSENT))
    group = granting_group(member, source.groups)
    cause = Cause(f"members.groups {group}" if group else "members.groups", record_of(member))
    changes: list[Change] = []
    if complete:
        changes += _toggle(account, LockReason.SUSPENDED, not member.active, cause)
        changes += _toggle(account, LockReason.LEFT, group is None, cause)
    if group is not None and member.active:
        wanted = unix_groups(member, source.groups, usable)
        changes += _membership(account, wanted, cause, may_leave=complete)
    return changes


def _due_by_bans(accounts: Iterable[Account], banned: Collection[Subject]) -> list[Change]:
    """Make the lock `banned` say what the bans say: one that ran out opens, one that came before the account locks."""
    changes: list[Change] = []
    for account in accounts:
        changes += _toggle(account, LockReason.BANNED, account.subject in banned, Cause("ban", "the bans in force"))
    return changes


def _suspended(snapshot: MemberSnapshot, source: SourceRules, known: Mapping[Subject, Account]) -> list[Refusal]:
    return [
        Refusal(member.subject, member.username, "suspended at the IAM")
        for member in snapshot.members
        if not member.active and member.subject not in known and granting_group(member, source.groups) is not None
    ]


def _remarks(world: World, by_issuer: Mapping[Issuer, SourceRules]) -> list[str]:
    remarks = [
        f"the list of {snapshot.issuer} is not complete, so nothing is removed: {snapshot.reason}"
        for snapshot in world.snapshots
        if not snapshot.complete
    ]
    for snapshot in world.snapshots:
        missing = [rule.iam for rule in by_issuer[snapshot.issuer].groups if rule.iam not in snapshot.groups]
        remarks += [f"the mapped IAM group {group} does not exist at {snapshot.issuer}" for group in missing]
    strays = {str(s.issuer) for s in world.ledger.accounts if s.issuer not in by_issuer}
    remarks += [f"accounts of {issuer} stay as they are: no source lists its members" for issuer in sorted(strays)]
    if world.ledger.stopped:
        remarks.append(f"no number is given: {world.ledger.stopped}")
    return remarks


def diff(world: World) -> Draft:
    """Compare what the IAM says with what the ledger holds, and give what is due, in order."""
    by_issuer = {source.issuer: source for source in world.sources}
    numbers = Numbers(world.ledger.numbers_given, world.host.busy_numbers)
    groups = decide_groups(world, numbers)
    changes: list[Change] = list(groups.changes)
    refused: list[Refusal] = []
    for snapshot in world.snapshots:
        source = by_issuer[snapshot.issuer]
        members = {member.subject: member for member in snapshot.members}
        refused += _suspended(snapshot, source, world.ledger.accounts)
        for account in world.ledger.accounts.values():
            if account.subject.issuer == snapshot.issuer:
                member = members.get(account.subject)
                changes += _due_for(account, member, source, groups.usable, _whole(snapshot, source))
    new = newcomers(world.snapshots, by_issuer, world.ledger.accounts)
    created, turned_away = decide_accounts(world, new, groups.usable, numbers)
    changes += created
    changes += _due_by_bans(world.ledger.accounts.values(), world.banned)
    remarks = [*_remarks(world, by_issuer), *groups.problems]
    return Draft(in_order(changes), tuple(refused + turned_away), tuple(remarks))


def _whole(snapshot: MemberSnapshot, source: SourceRules) -> bool:
    """Tell whether a snapshot may remove: complete, with members, and every mapped group in it."""
    return snapshot.complete and bool(snapshot.members) and all(rule.iam in snapshot.groups for rule in source.groups)
