"""`iam-bridge map adopt`: a table of people and accounts, checked whole, then taken over whole."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.cli.context import (
    make_site,
    open_ledger_or_empty,
    pull_everybody,
    utc_now,
    who_asks,
    writing,
)
from iam_bridge.cli.people_table import Claim, parse_table, read_table
from iam_bridge.cli.render import note, print_json, print_table, say
from iam_bridge.errors import Exit, RefusedByGuard
from iam_bridge.model.account import LockReason
from iam_bridge.model.change import Cause, Change, LockAccount
from iam_bridge.model.identity import Member, Subject
from iam_bridge.model.rules import Settings
from iam_bridge.policy.adoption import Adoption, AdoptionFacts, HomeSeen, decide_adoption
from provisioner.facts import Site
from provisioner.hostnames import read_reserved_names
from provisioner.run import Pulled, apply_by_hand

PROBLEMS_SHOWN = 50


def adopt_table(settings: Settings, source: Path, *, dry_run: bool, as_json: bool) -> Exit:
    """Take over every account of the table, or none; print what speaks for each."""
    claims, problems = parse_table(read_table(source))
    pulled = pull_everybody(settings)
    by = f"map adopt by {who_asks()}"
    if dry_run:
        with open_ledger_or_empty(settings) as ledger:
            adoptions = _decide(make_site(settings, ledger), claims, problems, pulled, source)
        applied_problems: tuple[str, ...] = ()
    else:
        with writing(settings, by, create=True) as site:
            adoptions = _decide(site, claims, problems, pulled, source)
            now = utc_now()
            applied_problems = apply_by_hand(site, _changes(site, adoptions, now), now=now, by=by).problems
    _print(adoptions, as_json=as_json, dry_run=dry_run)
    for problem in applied_problems:
        say(f"! {problem}", "bad")
    return Exit.FAILED if applied_problems else Exit.OK


def _decide(
    site: Site, claims: Sequence[Claim], malformed: Sequence[tuple[int, str]], pulled: Pulled, source: Path
) -> list[Adoption]:
    """Decide every row; raise RefusedByGuard with all that is wrong, by line."""
    facts = _gather(site, claims, pulled)
    problems = [*malformed, *_repeated(claims)]
    adoptions: list[Adoption] = []
    for claim in claims:
        verdict = decide_adoption(claim.name, claim.subject, claim.proof, facts)
        if isinstance(verdict, str):
            problems.append((claim.line, verdict))
        else:
            adoptions.append(verdict)
    if problems:
        for sentence in pulled.unavailable:
            note(sentence)
        raise _refuse(source, sorted(set(problems)))
    return adoptions


def _refuse(source: Path, problems: list[tuple[int, str]]) -> RefusedByGuard:
    shown = "".join(f"\n  line {line}: {what}" for line, what in problems[:PROBLEMS_SHOWN])
    more = len(problems) - PROBLEMS_SHOWN
    shown += f"\n  and {more} more" if more > 0 else ""
    word = "problem" if len(problems) == 1 else "problems"
    return RefusedByGuard(
        f"{source}: {len(problems)} {word}, so nothing is taken over:{shown}", hint="correct the table and run it again"
    )


def _repeated(claims: Sequence[Claim]) -> list[tuple[int, str]]:
    problems: list[tuple[int, str]] = []
    names: dict[str, int] = {}
    people: dict[Subject, int] = {}
    for claim in claims:
        first = names.setdefault(claim.name.text, claim.line)
        if first != claim.line:
            problems.append((claim.line, f"the account {claim.name} stands in line {first} already"))
        first = people.setdefault(claim.subject, claim.line)
        if first != claim.line:
            problems.append((claim.line, f"the subject {claim.subject.sub} stands in line {first} already"))
    return problems


def _gather(site: Site, claims: Sequence[Claim], pulled: Pulled) -> AdoptionFacts:
    store = site.store.read()
    members = {member.subject: member for snapshot in pulled.snapshots for member in snapshot.members}
    for claim in claims:
        if claim.subject not in members:  # a list that is not whole today: what the last whole one said counts
            record = site.ledger.member(claim.subject)
            if record is not None and not any(
                s.issuer == claim.subject.issuer and s.complete for s in pulled.snapshots
            ):
                members[claim.subject] = Member(
                    record.subject, record.username, record.active, record.created, record.groups
                )
    names = [claim.name.text for claim in claims]
    users = [store.users[name] for name in names if name in store.users]
    return AdoptionFacts(
        ledger=site.ledger.read_state(utc_now()),
        store=store,
        sources=site.settings.sources,
        members=members,
        reserved=read_reserved_names(),
        host_uids={name: uid for name in names if (uid := _host_uid(name)) is not None},
        homes={user.name: home for user in users if (home := _look_at(user.home)) is not None},
    )


def _host_uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _look_at(home: str) -> HomeSeen | None:
    with suppress(OSError, ValueError):
        found = os.stat(home)
        return HomeSeen(found.st_uid, datetime.fromtimestamp(found.st_mtime, UTC))
    return None


def _changes(site: Site, adoptions: Sequence[Adoption], now: datetime) -> list[Change]:
    """Give the changes; somebody who is banned by subject, name or number is locked in the same breath."""
    bans = site.ledger.bans(now)
    changes: list[Change] = [adoption.change for adoption in adoptions]
    for adoption in adoptions:
        account = adoption.change.account
        if any(b.subject == account.subject or b.name == account.name.text or b.uid == account.uid for b in bans):
            cause = Cause("ban", "the bans in force")
            changes.append(LockAccount(account.subject, account.name, account.uid, LockReason.BANNED, cause))
    return changes


def _print(adoptions: Sequence[Adoption], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        rows = [
            {"account": a.change.account, "iam_name": a.iam_name, "proof": a.change.proof, "cautions": a.cautions}
            for a in adoptions
        ]
        print_json({"dry_run": dry_run, "adopted": rows})
        return
    table = [
        (a.change.account.name, a.change.account.uid, a.change.account.subject, a.iam_name, a.change.proof)
        for a in adoptions
    ]
    print_table(("NAME", "UID", "SUBJECT", "IAM NAME", "PROOF"), table)
    for adoption in adoptions:
        for caution in adoption.cautions:
            say(f"! {adoption.change.account.name}: {caution}", "change")
    done = "would be taken over; nothing is written" if dry_run else "taken over; the next run looks after their groups"
    say(f"{len(adoptions)} {'account' if len(adoptions) == 1 else 'accounts'} {done}", "good")
