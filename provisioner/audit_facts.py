"""What an audit looks at, gathered: ledger, store, name service, homes, processes, view and ban list.

Reads and writes nothing. Costs one enumeration of the name service, one look at each home and one pass over the
processes; names that the enumeration does not show (directories behind sssd) are asked for one by one.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from iam_bridge.errors import ViewError
from iam_bridge.ledger.banlist import BanList
from iam_bridge.ledger.chain import verify_lines
from iam_bridge.ledger.finding import Finding
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.records import MemberRecord
from iam_bridge.ledger.view import View
from iam_bridge.model.account import Account
from iam_bridge.model.identity import Member, MemberSnapshot
from iam_bridge.model.rules import AccountRules, Settings
from iam_bridge.model.state import LedgerState, StoreSnapshot
from iam_bridge.policy.findings import AuditFacts, AuditFinding, HomeFact, HostUser, SourceAge, Waiting
from provisioner.facts import Site, banned_subjects, make_plan
from provisioner.locked_sessions import count_processes
from provisioner.sessions import find_later

SHELLS = Path("/etc/shells")


def gather(site: Site, now: datetime) -> AuditFacts:
    """Gather everything; raise BridgeError where ledger or store cannot be read at all."""
    ledger, rules = site.ledger, site.settings.accounts
    members = ledger.members()
    world, plan = make_plan(site, _last_lists(site, members.values(), now), now)
    state, store = world.ledger, world.store
    accounts = tuple(state.accounts.values())
    banned = banned_subjects(ledger.bans(now), now)
    closed = [account for account in accounts if not account.is_open or account.subject in banned]
    return AuditFacts(
        now=now,
        ledger=state,
        store=store,
        host_users=ask_host(accounts, rules),
        homes={account.name: _look_at(account.home) for account in accounts},
        strays=tuple(_find_strays(rules, accounts)),
        shells=_read_shells(),
        sources=tuple(_list_sources(site)),
        plan=plan,
        suspended=frozenset(subject for subject, member in members.items() if not member.active),
        parked=tuple(_list_parked(ledger)),
        banned=banned,
        running=count_processes(account.uid for account in closed),
        later={a.name: files for a in closed if (files := find_later(a.uid, a.name.text))},
        group_counts=_count_groups(store),
        elsewhere=tuple(_ask_others(site)),
    )


def _last_lists(site: Site, members: Iterable[MemberRecord], now: datetime) -> list[MemberSnapshot]:
    """Give the last complete list of each source again; what the settings map was in it, or it was not complete."""
    taken = {source.issuer: source.taken_at for source in site.ledger.sources()}
    by_issuer: dict[str, list[Member]] = {}
    for record in members:
        member = Member(record.subject, record.username, record.active, record.created, record.groups)
        by_issuer.setdefault(record.subject.issuer.url, []).append(member)
    lists = []
    for source in site.settings.sources:
        at = taken.get(source.issuer)
        if at is not None:
            people = tuple(by_issuer.get(source.issuer.url, ()))
            groups = frozenset(rule.iam for rule in source.groups)
            lists.append(MemberSnapshot(source.issuer, people, groups, min(at, now), complete=True))
    return lists


def ask_host(accounts: Iterable[Account], rules: AccountRules) -> dict[str, HostUser]:
    """Ask the name service for our names, and for every user with a number of our range that it lists."""
    listed = {entry.pw_name: entry for entry in pwd.getpwall()}
    found = {name: entry for name, entry in listed.items() if entry.pw_uid in rules.uids}
    for account in accounts:
        name = account.name.text
        with suppress(KeyError):
            found[name] = listed[name] if name in listed else pwd.getpwnam(name)
    return {name: HostUser(name, entry.pw_uid, entry.pw_gid) for name, entry in found.items()}


def _look_at(home: str) -> HomeFact | None:
    try:
        found = os.lstat(home)
    except OSError:
        return None
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "link" if stat.S_ISLNK(found.st_mode) else "other"
    return HomeFact(kind, found.st_uid, stat.S_IMODE(found.st_mode))


def _find_strays(rules: AccountRules, accounts: Iterable[Account]) -> Iterator[tuple[str, int]]:
    """Give what lies beside the homes and is none, with its owner."""
    homes = {account.home for account in accounts}
    folder = Path(rules.home.partition("{name}")[0])
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = str(folder / entry.name)
            if path not in homes:
                with suppress(FileNotFoundError):  # gone since
                    yield path, entry.stat(follow_symlinks=False).st_uid


def _read_shells() -> frozenset[str]:
    try:
        lines = SHELLS.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.strip() for line in lines if line.startswith("/"))


def _list_sources(site: Site) -> Iterator[SourceAge]:
    known = {source.issuer: source for source in site.ledger.sources()}
    for rules in site.settings.sources:
        row = known.get(rules.issuer)
        yield SourceAge(rules.issuer, row.taken_at if row else None, row.reason if row else "")


def _list_parked(ledger: Ledger) -> Iterator[Waiting]:
    for group in ledger.parked():
        for line in group.lines:
            yield Waiting(group.digest, line.kind, line.name, line.uid, line.subject, line.detail)


def _count_groups(store: StoreSnapshot) -> Counter[str]:
    """Count supplementary groups by name, those of the store and those that only the name service has."""
    members = {group.gr_name: frozenset(group.gr_mem) for group in grp.getgrall()}
    for name, group in store.groups.items():
        members[name] = members.get(name, frozenset()) | group.members
    return Counter(name for names in members.values() for name in names)


def _ask_others(site: Site) -> Iterator[AuditFinding]:
    """Give what ledger, receipts, view, ban list and journal say of themselves."""
    settings = site.settings
    # An anchor that is ahead has stopped allocation, which is told as that.
    yield from (finding for finding in verify_chains(site) if finding.code != "anchor")
    yield from _ask_files(site, settings)
    if os.path.lexists(settings.paths.journal):
        what = "a run was killed while it wrote the store: its journal is still there"
        yield AuditFinding("journal", str(settings.paths.journal), 0, what, "iam-bridge provision run completes it")


def verify_chains(site: Site) -> Iterator[AuditFinding]:
    """Check the ledger and every file of receipts that this host has."""
    receipts = site.settings.login.receipts
    yield from map(_of, site.ledger.verify())
    if os.path.lexists(receipts):
        yield from map(_of, verify_lines(receipts))


def _ask_files(site: Site, settings: Settings) -> Iterator[AuditFinding]:
    """Read view and ban list as the services do: what they believe must be what the ledger says."""
    todo = "iam-bridge provision run writes it again"
    view, bans = View(settings.paths.view), BanList(settings.paths.bans)
    try:
        view.reload_if_changed()
        if (view.ledger_id, view.generation) != (site.ledger.ledger_id, site.ledger.generation()):
            what = f"the view has generation {view.generation} and the ledger {site.ledger.generation()}"
            yield AuditFinding("view-behind", str(settings.paths.view), 0, what, todo)
    except ViewError as error:
        yield AuditFinding("view-unusable", str(settings.paths.view), 0, error.message, error.hint or todo)
    finally:
        view.close()
    try:
        bans.reload_if_changed()
        if (bans.ledger_id, bans.generation) != (site.ledger.ledger_id, site.ledger.bans_generation()):
            what = f"the ban list has generation {bans.generation} and the ledger {site.ledger.bans_generation()}"
            yield AuditFinding("bans-behind", str(settings.paths.bans), 0, what, todo)
    except ViewError as error:
        yield AuditFinding("bans-unusable", str(settings.paths.bans), 0, error.message, error.hint or todo)


def _of(finding: Finding) -> AuditFinding:
    return AuditFinding(finding.code, "", 0, finding.what, finding.hint)


def numbers_and_names_seen(state: LedgerState, store: StoreSnapshot, rules: AccountRules) -> tuple[set[int], set[str]]:
    """Give numbers and names of our ranges that store, name service or homes have and the ledger does not.

    For `ledger reconcile`: a restored ledger must not give them again.
    """
    numbers: set[int] = set()
    names: set[str] = set()
    users = [(user.name, user.uid, user.gid) for user in store.users.values()]
    users += [(entry.pw_name, entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()]
    groups = [(group.name, group.gid) for group in store.groups.values()]
    groups += [(group.gr_name, group.gr_gid) for group in grp.getgrall()]
    for name, uid, gid in users:
        if uid in rules.uids:
            numbers |= {uid} | ({gid} if gid in rules.gids else set())
            names.add(name)
    for name, gid in groups:
        if gid in rules.gids:
            numbers.add(gid)
            names.add(name)
    for path, owner in _find_strays(rules, ()):
        if owner in rules.uids:
            numbers.add(owner)
            names.add(Path(path).name)
    return numbers - state.numbers_given, names - state.names_given
