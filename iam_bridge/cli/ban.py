"""`iam-bridge ban`: stop an identity at every door, and end what runs.

The order matters: the ban holds at the doors before a session is ended, or the person would be back at once.
"""

from __future__ import annotations

import pwd
from datetime import datetime
from typing import Annotated

import typer

from iam_bridge.cli.arguments import Who, find_account, parse_end, parse_reason, parse_who
from iam_bridge.cli.context import open_ledger_or_empty, read_config, utc_now, who_asks, writing
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import moment, print_json, print_table, say
from iam_bridge.cli.session_view import has_failed, print_sessions
from iam_bridge.errors import BridgeError, Exit, LedgerError, RefusedByGuard
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.account import Account, LockReason
from iam_bridge.model.change import Cause, Change, LockAccount, UnlockAccount
from iam_bridge.model.identity import Subject
from iam_bridge.model.rules import Settings
from iam_bridge.model.state import LedgerState
from iam_bridge.model.verdict import Ban
from provisioner.apply import tell_services
from provisioner.facts import Site
from provisioner.run import apply_by_hand
from provisioner.sessions import SessionReport, end_sessions

app = new_family("Stop an identity everywhere.")

Person = Annotated[str, typer.Argument(metavar="WHO", help="An account name, uid:N or SUB@https://issuer/.")]
NO_ACCOUNT = "they have no account (iam-bridge map list shows who has one)"
ELSEWHERE = (
    "tokens that the IAM issued live on at other services until they expire: suspend the person at the IAM as well "
    "if they must not work there either"
)


@app.command(
    short_help="Ban somebody: no door opens, what runs is ended.",
    epilog=example(
        "iam-bridge ban add ada --reason 'key found on a public page'",
        "iam-bridge ban add 2f1c...@https://iam.example.org/ --until 7d --dry-run",
    ),
)
def add(
    who: Person,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="WHEN", help="A day (its end, UTC), a time, or 2h, 7d; else for good."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="One line; the person reads it.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    config: Config = SETTINGS_FILE,
) -> Exit:
    """Ban somebody, with or without an account: no door opens, the account is locked, what runs is ended.

    Exit status 0: banned and nothing of theirs runs; 1: banned, but something could not be done.
    """
    settings, asked, text = read_config(config), parse_who(who), parse_reason(reason)
    end = parse_end(until, utc_now()) if until is not None else None
    if dry_run:
        return _rehearse(settings, asked, end)
    by = f"ban add by {who_asks()}"
    with writing(settings, by, create=True) as site:
        now = utc_now()
        account = _check_ours(settings, asked, site.ledger.read_state(now))
        ban = site.ledger.add_ban(
            now, by, subject=asked.subject, name=asked.name, uid=asked.uid, reason=text, until=end
        )
        problems = _close_doors(site, account, ban, now=now, by=by)
        sessions = [_end(account)] if account else []
        namesakes = _namesakes(site.ledger, asked) if account is None else []
    _print_added(ban, account, sessions, problems)
    for subject in namesakes:
        say(
            f"the IAM lists somebody of that name, who may get another one here: iam-bridge ban add {subject}", "change"
        )
    return Exit.FAILED if problems or any(map(has_failed, sessions)) else Exit.OK


def _check_ours(settings: Settings, asked: Who, state: LedgerState) -> Account | None:
    """Give the account, None where there is none yet; raise RefusedByGuard for one of the host that is not ours."""
    account = find_account(state, asked)
    if account is not None or asked.subject is not None:
        return account
    try:
        entry = pwd.getpwnam(asked.name) if asked.name is not None else pwd.getpwuid(asked.uid or 0)
    except KeyError:
        return None
    if entry.pw_uid in settings.accounts.uids:
        return None
    raise RefusedByGuard(
        f"{entry.pw_name} (uid {entry.pw_uid}) is an account of this host and none of ours, so no ban would stop it",
        hint=f"lock it with: usermod --lock --expiredate 1 {entry.pw_name}",
    )


def _namesakes(ledger: Ledger, asked: Who) -> list[Subject]:
    """Find members whose IAM name is the one that was banned; their account here may come to have another."""
    members = ledger.members().values() if asked.name is not None else ()
    return [member.subject for member in members if member.username == asked.name]


def _close_doors(site: Site, account: Account | None, ban: Ban, *, now: datetime, by: str) -> list[str]:
    """Tell the services, then lock the account; give what went wrong, since what runs is to be ended all the same."""
    problems: list[str] = []
    try:
        tell_services(site, now)
        locks: list[Change] = []
        if account is not None and LockReason.BANNED not in account.locks:
            cause = Cause(f"ban {ban.ban_id}", ban.reason or "no reason given")
            locks = [LockAccount(account.subject, account.name, account.uid, LockReason.BANNED, cause)]
        problems += apply_by_hand(site, locks, now=now, by=by).problems
    except BridgeError as error:
        problems.append(
            f"the ban stands in the ledger, and not everywhere yet: {error}; then: iam-bridge provision run"
        )
    return problems


def _end(account: Account, *, dry_run: bool = False) -> SessionReport:
    name = account.name.text
    try:
        return end_sessions(account.uid, name, adopted=account.adopted, dry_run=dry_run)
    except BridgeError as error:
        return SessionReport(account.uid, name, dry_run, (), (), (str(error),))


def _rehearse(settings: Settings, asked: Who, end: datetime | None) -> Exit:
    with open_ledger_or_empty(settings) as ledger:
        account = _check_ours(settings, asked, ledger.read_state(utc_now()))
    until = f"until {moment(end)}" if end else "until it is lifted"
    say(f"would ban {asked} {until}; nothing is written", "strong")
    if account is None:
        say(f"{NO_ACCOUNT}; whoever comes to have it would be refused at every door")
    else:
        say(f"would lock {account.name} (uid {account.uid}), the account of {account.subject}")
        print_sessions([_end(account, dry_run=True)])
    return Exit.OK


def _print_added(ban: Ban, account: Account | None, sessions: list[SessionReport], problems: list[str]) -> None:
    until = f"until {moment(ban.until)}" if ban.until else "until it is lifted"
    say(f"ban {ban.ban_id}: {target_of(ban)} is banned since {moment(ban.since)}, {until}", "good")
    if account is None:
        say(f"{NO_ACCOUNT}; whoever comes to have it is refused at every door")
    else:
        say(f"{account.name} (uid {account.uid}) is locked; token, key and certificate are refused")
    print_sessions(sessions)
    say(ELSEWHERE, "dim")
    for problem in problems:
        say(f"! {problem}", "bad")


def target_of(ban: Ban) -> str:
    """Say whom a ban is on, as the admin named them and as far as they are known."""
    named = [str(ban.subject)] if ban.subject else []
    named += [ban.name] if ban.name else []
    named += [f"uid:{ban.uid}"] if ban.uid is not None else []
    return " = ".join(named)


@app.command("list", epilog=example("iam-bridge ban list", "iam-bridge ban list --all --json"))
def list_(
    show_all: Annotated[bool, typer.Option("--all", help="Past bans, too.")] = False,
    config: Config = SETTINGS_FILE,
    as_json: Json = False,
) -> Exit:
    """List the bans in force."""
    now = utc_now()
    with open_ledger_or_empty(read_config(config)) as ledger:
        bans = ledger.bans(now, include_past=show_all)
        accounts = ledger.read_state(now).accounts
    names = {ban.ban_id: accounts[ban.subject].name.text for ban in bans if ban.subject and ban.subject in accounts}
    if as_json:
        print_json([{"ban": ban, "account": names.get(ban.ban_id, ""), "holds": ban.holds_at(now)} for ban in bans])
        return Exit.OK
    rows = [
        (
            ban.ban_id,
            target_of(ban),
            names.get(ban.ban_id, "-"),
            moment(ban.since),
            moment(ban.until) if ban.until else "for good",
            "holds" if ban.holds_at(now) else "over",
            ban.reason,
        )
        for ban in bans
    ]
    print_table(("BAN", "WHO", "ACCOUNT", "SINCE", "UNTIL", "STATE", "REASON"), rows, empty="no bans")
    return Exit.OK


@app.command(
    short_help="End a ban, or all that hold on somebody.",
    epilog=example("iam-bridge ban lift 3", "iam-bridge ban lift ada"),
)
def lift(
    what: Annotated[str, typer.Argument(metavar="BAN", help="The number of a ban, or whom all bans are lifted from.")],
    config: Config = SETTINGS_FILE,
) -> Exit:
    """End a ban, or all that hold on somebody; the account opens unless another lock holds."""
    number = int(what) if what.isascii() and what.isdigit() and len(what) < 10 else None
    asked = parse_who(what) if number is None else None
    settings, by = read_config(config), f"ban lift by {who_asks()}"
    with writing(settings, by) as site:
        now = utc_now()
        state = site.ledger.read_state(now)
        chosen = [number] if number is not None else _find_bans(site.ledger, asked or Who(), state, now)
        lifted = [site.ledger.lift_ban(ban_id, now, by) for ban_id in chosen]
        opened = _accounts_freed(site.ledger, lifted, state, now)
        cause = Cause("ban lift", f"by {who_asks()}")
        changes = [UnlockAccount(a.subject, a.name, a.uid, LockReason.BANNED, cause) for a in opened]
        problems = apply_by_hand(site, changes, now=now, by=by).problems
    _print_lifted(lifted, opened, state)
    for problem in problems:
        say(f"! {problem}", "bad")
    return Exit.FAILED if problems else Exit.OK


def _find_bans(ledger: Ledger, asked: Who, state: LedgerState, now: datetime) -> list[int]:
    account = find_account(state, asked)
    subject = account.subject if account else asked.subject
    found = [
        ban.ban_id
        for ban in ledger.bans(now)
        if (subject is not None and ban.subject == subject)
        or (asked.name is not None and ban.name == asked.name)
        or (asked.uid is not None and ban.uid == asked.uid)
    ]
    if not found:
        raise LedgerError(f"no ban holds on {asked}", hint="iam-bridge ban list shows those that do")
    return found


def _accounts_freed(ledger: Ledger, lifted: list[Ban], state: LedgerState, now: datetime) -> list[Account]:
    still = {ban.subject for ban in ledger.bans(now)}
    subjects = dict.fromkeys(ban.subject for ban in lifted if ban.subject is not None and ban.subject not in still)
    accounts = (state.accounts.get(subject) for subject in subjects)
    return [account for account in accounts if account is not None and LockReason.BANNED in account.locks]


def _print_lifted(lifted: list[Ban], opened: list[Account], state: LedgerState) -> None:
    for ban in lifted:
        say(f"ban {ban.ban_id} on {target_of(ban)} is lifted", "good")
    for account in opened:
        left = sorted(lock.value for lock in account.locks - {LockReason.BANNED})
        words = f"stays locked: {', '.join(left)}" if left else "is open again"
        say(f"{account.name} (uid {account.uid}) {words}")
    still = {ban.subject for ban in lifted if ban.subject is not None} - {account.subject for account in opened}
    for subject in sorted(still & state.accounts.keys()):
        say(f"{state.accounts[subject].name} stays banned: another ban holds, see iam-bridge ban list", "change")
