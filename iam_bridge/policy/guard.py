"""The brakes: what of a draft goes ahead, and what waits for an admin's word.

Limits count people over a rolling 24 hours. What is above one is parked whole, since no rule could say which half of
a suspicious list is the right one; the rest of the run goes on. What an admin approved goes ahead, as long as it is
still due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from iam_bridge.model.account import LockReason
from iam_bridge.model.change import Change, CreateAccount, LeaveGroup, LockAccount, Parked, Plan, key_of
from iam_bridge.model.identity import MemberSnapshot, Subject
from iam_bridge.model.rules import Limits
from iam_bridge.model.state import LedgerState
from iam_bridge.policy.diff import Draft

WINDOW = timedelta(hours=24)
_BY_THE_IAM = (LockReason.LEFT, LockReason.SUSPENDED)


def is_removal(change: Change) -> bool:
    """Tell whether a change takes something away because the IAM no longer says so; bans and admins are no limit's."""
    return isinstance(change, LeaveGroup) or (isinstance(change, LockAccount) and change.reason in _BY_THE_IAM)


def _subject_of(change: Change) -> Subject:
    if isinstance(change, LockAccount | LeaveGroup):
        return change.subject
    assert isinstance(change, CreateAccount)
    return change.account.subject


def _people(changes: Iterable[Change]) -> int:
    return len({_subject_of(change) for change in changes})


def shrunk(snapshots: Iterable[MemberSnapshot], ledger: LedgerState, limits: Limits, now: datetime) -> tuple[str, ...]:
    """Say which sources list far fewer members than at their highest in the window.

    A drop counts when it is above the percentage *and* above `locks.most`: on a small site one leaver is no landslide.
    After an outage longer than the window the last whole list counts, however old: it is the only one to compare with.
    """
    found = []
    for snapshot in snapshots:
        counts = [(at, n) for at, issuer, n in ledger.member_counts if issuer == snapshot.issuer]
        recent = [n for at, n in counts if now - at < WINDOW] or [n for _, n in counts[-1:]]
        highest = max(recent, default=0)
        drop = highest - len(snapshot.members)
        if snapshot.complete and drop > max(limits.locks.most, highest * limits.shrink_percent // 100):
            found.append(
                f"{snapshot.issuer} lists {len(snapshot.members)} members and listed {highest} within 24 hours "
                f"or when it last gave a whole list (limits.shrink: {limits.shrink_percent} %)"
            )
    return tuple(found)


def emptied(draft: Draft, ledger: LedgerState) -> tuple[str, ...]:
    """Say which issuers would have no open account left, where more than one is open now.

    A group that lost all its members, or an answer without groups, is complete in form; on a small site no number
    stops it.
    """
    standing = Counter(account.subject.issuer for account in ledger.accounts.values() if account.is_open)
    losing = {change.subject for change in draft.changes if isinstance(change, LockAccount) and is_removal(change)}
    closing = Counter(subject.issuer for subject in losing if ledger.accounts[subject].is_open)
    return tuple(
        f"nobody of {issuer} would have an open account any more, and {count} have one now"
        for issuer, count in closing.items()
        if count > 1 and count == standing[issuer]
    )


def _why_removals(people: int, ledger: LedgerState, limits: Limits, others: Sequence[str]) -> str:
    base = sum(account.is_open for account in ledger.accounts.values()) + ledger.recent_removals
    allowed = limits.locks.allows(base)
    if people + ledger.recent_removals > allowed:
        return (
            f"{people} people would lose something, {ledger.recent_removals} did within 24 hours, and {allowed} may "
            f"(limits.locks: {limits.locks.most} or {limits.locks.percent} %)"
        )
    return "; ".join(others)


def _why_second_accounts(creates: Iterable[Change], ledger: LedgerState) -> str:
    """Say who seems to have an account already under another issuer: the same `sub`, which is hardly chance."""
    standing = {subject.sub: subject.issuer for subject in ledger.accounts}
    moved = [subject for change in creates if (subject := _subject_of(change)).sub in standing]
    if not moved:
        return ""
    return (
        f"{len(moved)} people of {moved[0].issuer} have the same subject as accounts of {standing[moved[0].sub]}: "
        "if that issuer was renamed, they would get second accounts and not find their files"
    )


def _why_creates(people: int, ledger: LedgerState, limits: Limits, initial: int | None) -> str:
    allowed = limits.creates.allows(len(ledger.accounts) - ledger.recent_creates)
    if initial is not None and not ledger.accounts:
        allowed = max(allowed, initial)
    if people + ledger.recent_creates > allowed:
        hint = "" if ledger.accounts else "; for a first run say --initial N"
        return (
            f"{people} accounts would be made, {ledger.recent_creates} were within 24 hours, and {allowed} may "
            f"(limits.creates: {limits.creates.most} or {limits.creates.percent} %{hint})"
        )
    return ""


def _held(changes: Sequence[Change], approved: Collection[tuple[str, str, str]]) -> list[Change]:
    return [change for change in changes if key_of(change) not in approved]


def guard(
    draft: Draft,
    ledger: LedgerState,
    snapshots: Sequence[MemberSnapshot],
    limits: Limits,
    now: datetime,
    *,
    initial: int | None = None,
) -> Plan:
    """Split a draft into what goes ahead and what is parked. `initial` raises the creation limit of a first run."""
    removals = _held([change for change in draft.changes if is_removal(change)], ledger.approved)
    creates = _held([change for change in draft.changes if isinstance(change, CreateAccount)], ledger.approved)
    parked: list[Parked] = []
    others = (*emptied(draft, ledger), *shrunk(snapshots, ledger, limits, now))
    if removals and (why := _why_removals(_people(removals), ledger, limits, others)):
        parked.append(Parked(tuple(removals), why))
    if creates:
        why = _why_creates(_people(creates), ledger, limits, initial) or _why_second_accounts(creates, ledger)
        if why:
            parked.append(Parked(tuple(creates), why))
    waiting = {key_of(change) for group in parked for change in group.changes}
    ahead = tuple(change for change in draft.changes if key_of(change) not in waiting)
    return Plan(ahead, tuple(parked), draft.refused, draft.remarks)
