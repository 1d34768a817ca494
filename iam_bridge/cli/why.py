"""Everything behind one account, gathered for `map why`."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from datetime import datetime

from iam_bridge.cli.render import moment, print_fields, print_table, say, span
from iam_bridge.errors import ViewError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.records import Receipt, Why
from iam_bridge.model.account import Account, lock_words
from iam_bridge.model.rules import Settings
from iam_bridge.model.verdict import Ban, Deny, NotOurs
from iam_bridge.policy.login import decide_account
from pam_module.facts import Facts
from pam_module.records import LogLines


@dataclass(frozen=True, slots=True)
class Waiting:
    """A change to the person that waits for an admin's word."""

    digest: str
    kind: str
    detail: str
    why: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What stands behind an account: `locked_by` is the receipt of each lock that holds, `login` today's verdict."""

    why: Why
    locked_by: tuple[Receipt, ...]
    parked: tuple[Waiting, ...]
    permitted: bool
    login: str
    now: datetime


def explain(ledger: Ledger, settings: Settings, account: Account, now: datetime) -> Explained:
    """Gather it all; what login says comes from the same files and the same decision as the daemon's."""
    why = ledger.why(account.name.text)
    assert why is not None, "the account was just found"
    permitted, login = _ask_login(settings, account, now)
    parked = tuple(
        Waiting(group.digest, line.kind, line.detail, group.why)
        for group in ledger.parked()
        for line in group.lines
        if line.subject == str(account.subject)
    )
    return Explained(why, _locked_by(ledger, account), parked, permitted, login, now)


def _locked_by(ledger: Ledger, account: Account) -> tuple[Receipt, ...]:
    last = {r.detail: r for r in ledger.history(subject=account.subject) if r.kind == "lock"}
    words = sorted(lock.value for lock in account.locks)
    return tuple(last[word] for word in words if word in last)


def _ask_login(settings: Settings, account: Account, now: datetime) -> tuple[bool, str]:
    """Ask the account phase, which every login passes: whether it permits, and its answer in words."""
    name = account.name.text
    facts = Facts(settings.paths.view, settings.paths.bans, LogLines(lambda _: None))
    try:
        known = facts.read(name, _host_uid(name), settings.login.rules.uids)
    except ViewError as error:
        return False, f"denied, since it cannot be decided: {error}"
    finally:
        facts.close()
    match decide_account(name, known, settings.login.rules, now):
        case Deny(reason=reason, text=text, detail=detail):
            return False, f"denied ({reason.value}): {detail or text}"
        case NotOurs():
            return False, "none of our business: the host's other modules decide"
        case permit:
            return True, f"permitted by {permit.rule}"


def _host_uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def print_why(found: Explained) -> None:
    """Print it, the answer first."""
    account = found.why.account
    say(f"{account.name} (uid {account.uid}) is {account.subject}", "strong")
    say(f"login now: {found.login}", "good" if found.permitted else "bad")
    print_fields([("state", lock_words(account.locks) or "open"), *_origin(found.why), *_record(found)])
    for receipt in found.locked_by:
        say(f"locked: {receipt.detail} since {moment(receipt.at)} by {receipt.by}", "bad")
        say(f"    {receipt.rule}: {receipt.record}", "dim")
    for waiting in found.parked:
        say(f"! {waiting.kind} {waiting.detail} waits: {waiting.why}", "bad")
        say(f"    iam-bridge provision approve {waiting.digest}", "strong")
    for ban in found.why.bans:
        say(_ban_words(ban, found.now), "bad" if ban.holds_at(found.now) else "dim")
    rows = [(r.seq, moment(r.at), r.kind, r.detail, r.by, r.rule) for r in found.why.latest]
    print_table(("RECEIPT", "AT", "WHAT", "DETAIL", "BY", "RULE"), rows, empty="no receipts")


def _origin(why: Why) -> list[tuple[str, object]]:
    made, run = why.created, why.run
    if made is None:
        return [("made by", "unknown: no receipt tells")]
    fields: list[tuple[str, object]] = [
        ("made by", f"{made.kind}, receipt {made.seq}, {moment(made.at)}"),
        ("rule then", made.rule),
        ("IAM record then", made.record),
    ]
    if run is not None:
        fields.append(("run", f"{run.run_id}, {run.command}, {run.outcome or 'interrupted'}"))
    return fields


def _record(found: Explained) -> list[tuple[str, object]]:
    member, source = found.why.member, found.why.source
    if source is None or source.taken_at is None:
        return [("IAM record now", "no whole list of the source was seen yet")]
    age = f"as listed {span((found.now - source.taken_at).total_seconds())} ago"
    if member is None:
        return [("IAM record now", f"none, {age}")]
    if any(waiting.kind in ("lock", "leave") for waiting in found.parked):
        age = "kept from an earlier list, since a change waits"
    state = "active" if member.active else "suspended"
    groups = " ".join(sorted(member.groups)) or "none"
    return [("IAM record now", f"{member.username}, {state}, groups {groups}, {age}")]


def _ban_words(ban: Ban, now: datetime) -> str:
    word = "banned" if ban.holds_at(now) else "was banned"
    until = f" until {moment(ban.until)}" if ban.until else ""
    return f"{word} since {moment(ban.since)}{until} (ban {ban.ban_id}): {ban.reason or 'no reason given'}"
