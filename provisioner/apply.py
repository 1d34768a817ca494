"""From a plan to accounts: the ledger first, then the view, then the store, then the homes, then a look back.

The ledger is the one place of truth, and the store is made to say what it says. So a run that dies anywhere leaves a
ledger that knows what was meant, and the next run completes it; nothing is half done and nothing is given twice.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from iam_bridge.errors import StoreError
from iam_bridge.ledger.banlist import read_lost_bans
from iam_bridge.ledger.view_write import write_bans, write_view
from iam_bridge.model.account import Account, UserName
from iam_bridge.model.change import Change, CreateAccount, LockAccount
from iam_bridge.model.state import LedgerState, StoreSnapshot, Wanted, WantedAccount
from provisioner.caches import flush_caches
from provisioner.facts import Site
from provisioner.homes import make_homes

LOCKED_EXPIRY = "1"
_ASKED_MAX = 20


@dataclass(frozen=True, slots=True)
class Applied:
    """What reached the store and the homes; `problems` are sentences for the report, each with what to do."""

    written: tuple[str, ...]
    homes: tuple[UserName, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def _expiry_before(changes: Iterable[Change], store: StoreSnapshot) -> dict[UserName, str]:
    """Keep what stands in the expiry field of those about to be locked, so that unlocking gives it back."""
    names = [change.name for change in changes if isinstance(change, LockAccount)]
    names += [change.account.name for change in changes if isinstance(change, CreateAccount)]
    return {name: (store.users[name.text].expiry or "") if name.text in store.users else "" for name in names}


def record(site: Site, run_id: int, changes: Sequence[Change], store: StoreSnapshot, *, now: datetime, by: str) -> None:
    """Write the changes and their receipts into the ledger, and at once tell the services of locks and bans."""
    site.ledger.commit(run_id, changes, now=now, saved_expiry=_expiry_before(changes, store), by=by)
    tell_services(site, now)


def tell_services(site: Site, now: datetime) -> None:
    """Write the view and the ban list; what has not changed is not written."""
    paths, ledger = site.settings.paths, site.ledger
    bans, generation = ledger.bans(now), ledger.bans_generation()
    if ledger.check_anchors():  # put back from a copy, perhaps: what it forgot is not lifted
        known = ledger.bans(now, include_past=True)
        standing, lost = read_lost_bans(paths.bans, ledger.ledger_id, known, now)
        first = max((ban.ban_id for ban in known), default=0) + 1
        bans += tuple(replace(ban, ban_id=number) for number, ban in enumerate(lost, first))
        generation = max(generation, standing)
    write_bans(paths.bans, bans, ledger_id=ledger.ledger_id, generation=generation)
    write_view(ledger, paths.view)


def wanted_of(state: LedgerState) -> Wanted:
    """Say what the store must hold of all that is ours."""
    accounts = tuple(
        WantedAccount(account, state.saved_expiry.get(account.name)) for account in state.accounts.values()
    )
    return Wanted(accounts, state.groups)


def converge(site: Site, now: datetime) -> Applied:
    """Make the store and the homes say what the ledger says, read the store back, and settle what was pending."""
    state = site.ledger.read_state(now)
    before = site.store.read()
    _check_same_store(site, state, before)
    state = _keep_foreign_expiry(site, state, before)
    report = site.store.converge(wanted_of(state))
    late = flush_caches(site.settings.accounts.folder) if report.written else ()
    rules = site.settings.accounts
    due = [a for a in state.accounts.values() if a.name in state.homes_due] if rules.make_homes else []
    standing = site.store.read() if due or report.written else StoreSnapshot({}, {})
    homes = make_homes([account for account in due if _stands(account, standing)], rules)
    if homes.made or homes.kept:
        site.ledger.homes_made((*homes.made, *homes.kept), now)
    problems = [*report.problems, *homes.problems]
    if report.written:
        problems += [problem for problem in read_back(state, standing) if problem not in problems]
    _settle_expiry(site, state)
    return Applied(report.written, homes.made, tuple(problems), (*late, *homes.remarks))


def _stands(account: Account, store: StoreSnapshot) -> bool:
    """Tell whether the store has the account with its own number: else a home would be somebody else's."""
    user = store.users.get(account.name.text)
    return user is not None and user.uid == account.uid


def _check_same_store(site: Site, state: LedgerState, store: StoreSnapshot) -> None:
    """Refuse a store that has none of ours while the host has them from elsewhere: locks would stand in vain there.

    Raises StoreError. A store that is new, or was emptied, is filled.
    """
    if any(account.name.text in store.users for account in state.accounts.values()):
        return
    for account in list(state.accounts.values())[:_ASKED_MAX]:
        with suppress(KeyError):
            if pwd.getpwnam(account.name.text).pw_uid == account.uid:
                raise StoreError(
                    f"{site.settings.accounts.folder} holds none of our accounts, and this host has {account.name} "
                    "from elsewhere",
                    hint="put accounts.folder and accounts.layout back, or move the rows of all files there first",
                )


def _keep_foreign_expiry(site: Site, state: LedgerState, store: StoreSnapshot) -> LedgerState:
    """Keep what somebody wrote into the expiry field of a locked account since, before our mark goes over it again."""
    users = store.users
    found: dict[UserName, str] = {}
    for account in state.accounts.values():
        if account.is_open:
            continue
        user = users.get(account.name.text)
        if user is not None and user.uid == account.uid and user.expiry not in {None, LOCKED_EXPIRY}:
            found[account.name] = user.expiry or ""
    changed = {name: text for name, text in found.items() if state.saved_expiry.get(name) != text}
    if not changed:
        return state
    site.ledger.save_expiry(changed)
    return replace(state, saved_expiry={**state.saved_expiry, **changed})


def _settle_expiry(site: Site, state: LedgerState) -> None:
    """Forget the saved expiry of open accounts from whose row our mark is gone; one that comes later is not ours."""
    saved = {
        a.name: state.saved_expiry[a.name]
        for a in state.accounts.values()
        if a.is_open and a.name in state.saved_expiry
    }
    if saved:
        users = site.store.read().users
        rows = {name: users[name.text].expiry for name in saved if name.text in users}
        settled = [name for name, expiry in rows.items() if expiry == saved[name] or expiry != LOCKED_EXPIRY]
        if settled:
            site.ledger.clear_saved_expiry(settled)


def read_back(state: LedgerState, store: StoreSnapshot) -> list[str]:
    """Compare the store with the ledger after writing; a sentence for each account that is not as it must be."""
    return [problem for account in state.accounts.values() if (problem := _misfit(account, store))]


def _misfit(account: Account, store: StoreSnapshot) -> str:
    user = store.users.get(account.name.text)
    if user is None:
        return f"{account.name} is not in the store after it was written; run: iam-bridge map audit"
    if user.uid != account.uid:
        return (
            f"{account.name} has uid {user.uid} in the store and {account.uid} in the ledger; run: iam-bridge map audit"
        )
    if not account.is_open and user.expiry != LOCKED_EXPIRY:
        return f"{account.name} is locked in the ledger and not in the store; run: iam-bridge provision run"
    for group in account.groups:
        standing = store.groups.get(group.text)
        if standing is None or account.name.text not in standing.members:
            return f"{account.name} is not in the unix group {group} after it was written; run: iam-bridge map audit"
    return ""
