"""The facts that a decision on accounts needs, gathered from the ledger, the store and the host.

What is costly (enumerating NSS, listing homes) is gathered only where somebody is to get a name or a number.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from iam_bridge.collector import no_collection
from iam_bridge.errors import SettingsError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.change import CreateAccount, CreateGroup, Plan
from iam_bridge.model.identity import MemberSnapshot, Subject
from iam_bridge.model.rules import AccountRules, Settings
from iam_bridge.model.state import HostNames, LedgerState, StoreSnapshot
from iam_bridge.model.verdict import Ban
from iam_bridge.policy.diff import diff
from iam_bridge.policy.guard import guard
from iam_bridge.policy.mapping import newcomers
from iam_bridge.policy.world import World
from iam_bridge.ports import AccountStore
from provisioner.hostnames import HostPaths, find_busy_name, is_busy_number, read_host_names, read_reserved_names

NSSWITCH = Path("/etc/nsswitch.conf")
_LISTED_WHOLE = {"files", "extrausers", "compat", "systemd", "db", "cache"}
_ROUNDS_MAX = 20
_CROWDED = (
    "a directory of this host has numbers of our range, one after the other: give accounts.ids a range of its own"
)
RECONCILE = "run: iam-bridge ledger reconcile"


@dataclass(frozen=True, slots=True)
class Site:
    """One cluster as a run sees it: what the settings say, who is who, and where the accounts live."""

    settings: Settings
    ledger: Ledger
    store: AccountStore
    host: HostPaths


def banned_subjects(bans: Iterable[Ban], now: datetime) -> frozenset[Subject]:
    """Give the people whom a ban stops now, as far as they are known."""
    return frozenset(ban.subject for ban in bans if ban.subject is not None and ban.holds_at(now))


def _unknown_users(store: StoreSnapshot, state: LedgerState, rules: AccountRules) -> list[str]:
    """List users with a uid of our range that the ledger never gave: a store ahead of its ledger, or a stranger."""
    found = {user.uid: name for name, user in store.users.items() if user.uid in rules.uids}
    found.update((entry.pw_uid, entry.pw_name) for entry in pwd.getpwall() if entry.pw_uid in rules.uids)
    return [f"{name} (uid {uid})" for uid, name in sorted(found.items()) if uid not in state.numbers_given]


def _stop_at_orphans(state: LedgerState, store: StoreSnapshot, rules: AccountRules) -> LedgerState:
    unknown = _unknown_users(store, state, rules)
    if not unknown or state.stopped:
        return state
    shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
    return replace(
        state, stopped=f"the host has users in our id range that the ledger does not know: {shown}; {RECONCILE}"
    )


def _lists_everybody(nsswitch: Path) -> bool:
    """Tell whether enumerating NSS shows all names; directories behind sssd or nslcd often do not list theirs."""
    try:
        lines = nsswitch.read_text(errors="replace").splitlines()
    except OSError:
        return False
    words = [word for line in lines if line.startswith(("passwd:", "group:")) for word in line.split()[1:]]
    return all(word in _LISTED_WHOLE or word.startswith("[") for word in words)


def _newly_busy(plan: Plan, host: HostNames) -> HostNames:
    """Ask NSS for each name and number about to be given; what it knows after all counts as busy."""
    names, numbers = dict(host.busy_names), set(host.busy_numbers)
    for change in plan.changes:
        match change:
            case CreateAccount(account=account):
                wanted, ids = account.name.text, {account.uid, account.gid}
            case CreateGroup(group=group, gid=gid):
                wanted, ids = group.text, {gid}
            case _:
                continue
        if wanted not in names and (why := find_busy_name(wanted)):
            names[wanted] = why
        numbers.update(number for number in ids if is_busy_number(number))
    return HostNames(names, frozenset(numbers))


def _gives_something(world: World) -> bool:
    """Tell whether somebody is to get a name or a number."""
    known = world.ledger.accounts
    by_issuer = {source.issuer: source for source in world.sources}
    groups = {rule.unix for source in world.sources for rule in source.groups if rule.unix is not None}
    return bool(groups - set(world.ledger.groups)) or bool(newcomers(world.snapshots, by_issuer, known))


def _check_spelling(settings: Settings, state: LedgerState) -> None:
    """Refuse an issuer with a final slash more or less than before: everybody would get a second account."""
    standing = {subject.issuer for subject in state.accounts}
    for source in settings.sources:
        for issuer in standing - {source.issuer}:
            if issuer.matches(source.issuer.url):
                raise SettingsError(
                    f"the ledger has the people of {source.issuer} under {issuer}",
                    hint=f"write {issuer} wherever {settings.path} names this issuer",
                )


@no_collection()
def make_plan(
    site: Site, snapshots: Sequence[MemberSnapshot], now: datetime, *, initial: int | None = None
) -> tuple[World, Plan]:
    """Decide what is due, with everything that was looked at. Reads; writes nothing.

    Raises SettingsError where an issuer is written otherwise than in the ledger.
    """
    settings = site.settings
    state, store = site.ledger.read_state(now), site.store.read()
    _check_spelling(settings, state)
    world = World(
        snapshots=tuple(snapshots),
        sources=settings.sources,
        ids=settings.accounts,
        ledger=state,
        store=store,
        host=HostNames({}, frozenset()),
        reserved=read_reserved_names(),
        banned=banned_subjects(site.ledger.bans(now), now),
    )
    if not _gives_something(world):
        return world, guard(diff(world), state, snapshots, settings.limits, now, initial=initial)
    state = _stop_at_orphans(state, store, settings.accounts)
    world = replace(world, ledger=state, host=read_host_names(settings.accounts, site.host))
    for _ in range(_ROUNDS_MAX):
        plan = guard(diff(world), state, snapshots, settings.limits, now, initial=initial)
        if _lists_everybody(NSSWITCH):
            return world, plan
        host = _newly_busy(plan, world.host)
        if host == world.host:
            return world, plan
        world = replace(world, host=host)
    # Not one of the last candidates may be given unasked.
    world = replace(world, ledger=replace(state, stopped=_CROWDED))
    return world, guard(diff(world), state, snapshots, settings.limits, now, initial=initial)
