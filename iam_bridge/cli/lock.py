"""`iam-bridge map lock` and `unlock`: an admin's own word on an account."""

from __future__ import annotations

from iam_bridge.cli.arguments import need_account
from iam_bridge.cli.context import utc_now, who_asks, writing
from iam_bridge.cli.render import say
from iam_bridge.cli.session_view import has_failed, print_sessions
from iam_bridge.errors import Exit
from iam_bridge.model.account import LockReason, lock_words
from iam_bridge.model.change import Cause, Change, LockAccount, UnlockAccount
from iam_bridge.model.rules import Settings
from provisioner.apply import Applied
from provisioner.locked_sessions import end_locked_sessions
from provisioner.run import apply_by_hand

BY_HAND = frozenset({LockReason.ADMIN, LockReason.IDLE})
"""Locks that `unlock` takes back; the others end with their cause."""
HOW_OTHERS_END = {
    LockReason.LEFT: "it ends when the IAM lists them in a mapped group again",
    LockReason.SUSPENDED: "it ends when the IAM makes them active again",
    LockReason.BANNED: "it ends with the ban: iam-bridge ban list",
}


def lock_account(settings: Settings, who: str, reason: str) -> Exit:
    """Lock, and end what runs; said again, it completes what an interruption left."""
    by = f"map lock by {who_asks()}"
    with writing(settings, by) as site:
        account = need_account(site.ledger, site.ledger.read_state(utc_now()), who)
        locks: list[Change] = []
        if LockReason.ADMIN not in account.locks:
            cause = Cause("map lock", reason or "no reason given")
            locks = [LockAccount(account.subject, account.name, account.uid, LockReason.ADMIN, cause)]
        applied = apply_by_hand(site, locks, now=utc_now(), by=by)
        locked = need_account(site.ledger, site.ledger.read_state(utc_now()), who)
        ended = end_locked_sessions([locked])
    done = "is locked" if locks else "was locked by an admin already"
    say(f"{account.name} (uid {account.uid}) {done}; locked by: {lock_words(locked.locks)}", "good")
    print_sessions(ended)
    return _print_problems(applied, failed=any(map(has_failed, ended)))


def unlock_account(settings: Settings, who: str) -> Exit:
    """Take back what an admin may take back, and say how the other locks end."""
    by = f"map unlock by {who_asks()}"
    with writing(settings, by) as site:
        account = need_account(site.ledger, site.ledger.read_state(utc_now()), who)
        ours = sorted(account.locks & BY_HAND, key=lambda lock: lock.value)
        cause = Cause("map unlock", "an admin's word")
        changes = [UnlockAccount(account.subject, account.name, account.uid, lock, cause) for lock in ours]
        applied = apply_by_hand(site, changes, now=utc_now(), by=by)
    done = f"is no longer locked by {lock_words(ours)}" if ours else "has no lock of an admin"
    say(f"{account.name} (uid {account.uid}) {done}", "good")
    for lock in sorted(account.locks - BY_HAND, key=lambda lock: lock.value):
        say(f"still locked: {lock.value}; {HOW_OTHERS_END[lock]}", "change")
    return _print_problems(applied)


def _print_problems(applied: Applied, *, failed: bool = False) -> Exit:
    for problem in applied.problems:
        say(f"! {problem}", "bad")
    return Exit.FAILED if applied.problems or failed else Exit.OK
