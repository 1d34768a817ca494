"""From members to accounts: who is to have one, in which unix groups, and who is turned away and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from iam_bridge.model.account import Account, GroupName, LockReason, gecos_of
from iam_bridge.model.change import Cause, CreateAccount, CreateGroup, Refusal
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from iam_bridge.model.rules import GroupRule, SourceRules
from iam_bridge.policy.names import Numbers, decide_name
from iam_bridge.policy.world import World

ADOPTED_GID_MIN = 1000


def granting_group(member: Member, rules: Iterable[GroupRule]) -> str | None:
    """Give the first mapped IAM group of the member that makes an account, None where there is none."""
    return next((rule.iam for rule in rules if rule.grants_account and rule.iam in member.groups), None)


def unix_groups(member: Member, rules: Iterable[GroupRule], usable: Collection[GroupName]) -> frozenset[GroupName]:
    """Give the unix groups that the table maps the member's IAM groups to, as far as those groups may be used."""
    names = (rule.unix for rule in rules if rule.iam in member.groups and rule.unix is not None)
    return frozenset(name for name in names if name in usable)


def record_of(member: Member) -> str:
    """Write the IAM record behind a change in one short line, cleaned of what could confuse a reader."""
    name = "".join(c if c.isprintable() else "?" for c in member.username[:64])
    groups = ",".join(sorted(member.groups)[:20])
    return f"userName={name} active={str(member.active).lower()} created={member.created:%Y-%m-%d} groups={groups}"


@dataclass(frozen=True, slots=True)
class GroupsDecided:
    """Unix groups to make, those that may be used, and sentences on those that may not."""

    changes: tuple[CreateGroup, ...]
    usable: frozenset[GroupName]
    problems: tuple[str, ...]


def _decide_group(rule: GroupRule, name: GroupName, world: World) -> int | str | None:
    """Give the gid of a group to adopt, None for one to make, or the sentence that refuses it."""
    if name.text in world.reserved:
        return f"the unix group {name} belongs to the system and is never joined"
    standing = world.store.groups.get(name.text)
    if standing is not None:
        if not rule.adopt:
            return f"the unix group {name} exists already; say adopt: true to take it over"
        if standing.gid < ADOPTED_GID_MIN:
            return f"the unix group {name} has gid {standing.gid}, below {ADOPTED_GID_MIN}, and is never joined"
        return standing.gid
    if rule.adopt:
        return f"the unix group {name} is to be adopted and is not in the store"
    if name.text in world.host.busy_names:
        return f"the unix group {name} cannot be made: {world.host.busy_names[name.text]}"
    return None


def decide_groups(world: World, numbers: Numbers) -> GroupsDecided:
    """Decide the unix groups of the mapping table: those in the ledger stay, others are made or adopted or refused."""
    changes: dict[GroupName, CreateGroup] = {}
    problems: list[str] = []
    wanted = [(rule, rule.unix) for source in world.sources for rule in source.groups if rule.unix is not None]
    for rule, name in wanted:
        if name in world.ledger.groups or name in changes:
            continue
        verdict = _decide_group(rule, name, world)
        if name.text in world.ledger.names_given:
            verdict = f"the unix group {name} cannot be made: an account of this ledger has or had the name"
        if verdict is None and world.ledger.stopped:
            verdict = f"the unix group {name} waits: {world.ledger.stopped}"
        gid = numbers.take(world.ids.gids) if verdict is None else verdict
        if isinstance(gid, int):
            changes[name] = CreateGroup(name, gid, Cause(f"members.groups {rule.iam}", "settings"))
        else:
            problems.append(gid or f"the unix group {name} waits: the gid range is used up")
    used = frozenset(name for _, name in wanted)
    usable = frozenset(name for name in used if name in world.ledger.groups or name in changes)
    return GroupsDecided(tuple(changes.values()), usable, tuple(dict.fromkeys(problems)))


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A member who is to have an account and has none yet."""

    member: Member
    rule: str
    source: SourceRules


def newcomers(
    snapshots: Iterable[MemberSnapshot], sources: Mapping[Issuer, SourceRules], known: Collection[Subject]
) -> tuple[Newcomer, ...]:
    """List who is to get an account, by (IAM creation time, id): never by the order of a page."""
    found = [
        Newcomer(member, f"members.groups {group}", sources[snapshot.issuer])
        for snapshot in snapshots
        for member in snapshot.members
        if member.active
        and member.subject not in known
        and (group := granting_group(member, sources[snapshot.issuer].groups)) is not None
    ]
    return tuple(sorted(found, key=lambda new: (new.member.created, new.member.subject)))


def decide_accounts(
    world: World, new: Iterable[Newcomer], usable: Collection[GroupName], numbers: Numbers
) -> tuple[list[CreateAccount], list[Refusal]]:
    """Give each newcomer a name and numbers, or a refusal."""
    ids, ledger = world.ids, world.ledger
    busy = dict.fromkeys(ledger.names_given, "an account of this ledger has or had the name")
    busy.update(world.host.busy_names)
    table = [rule.unix.text for source in world.sources for rule in source.groups if rule.unix is not None]
    busy.update((name, f"{name} is a group of the mapping table") for name in table)
    created: list[CreateAccount] = []
    refused: list[Refusal] = []
    for person in new:
        member = person.member
        pair = None if ledger.stopped else numbers.take_pair(ids.uids, ids.gids)
        if pair is None:
            why = ledger.stopped or "the id range is used up; give a larger one in accounts.ids"
            refused.append(Refusal(member.subject, member.username, why))
            continue
        choice = decide_name(member, pair[0], ids.name_sources, person.source.trusted_attributes, busy)
        if isinstance(choice, str):
            refused.append(Refusal(member.subject, member.username, choice))
            continue
        busy[choice.name.text] = "an account made in the same run has the name"
        account = Account(
            subject=member.subject,
            name=choice.name,
            uid=pair[0],
            gid=pair[1],
            home=ids.home.replace("{name}", choice.name.text),
            shell=ids.shell,
            groups=unix_groups(member, person.source.groups, usable),
            locks=frozenset({LockReason.BANNED}) if member.subject in world.banned else frozenset(),
            gecos=gecos_of(pair[0]),
        )
        passed = f"; passed over: {'; '.join(choice.passed_over)}" if choice.passed_over else ""
        created.append(
            CreateAccount(account, Cause(f"{person.rule}; name from {choice.source}{passed}", record_of(member)))
        )
    return created, refused
