"""`iam-bridge map`: who is who, and why; and an admin's own word on an account."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.arguments import Who, find_account, need_account, parse_past, parse_reason, parse_who
from iam_bridge.cli.context import open_ledger, read_config, utc_now
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import moment, print_fields, print_json, print_table, say
from iam_bridge.errors import Exit
from iam_bridge.ledger.records import WhoWas
from iam_bridge.model.account import Account, lock_words

app = new_family("Say who is who and why.")

Person = Annotated[str, typer.Argument(metavar="WHO", help="An account name, uid:N or SUB@https://issuer/.")]
NO_GROUPS = "-"


@app.command("list", epilog=example("iam-bridge map list", "iam-bridge map list --json"))
def list_(config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """List all accounts of the ledger, by uid."""
    with open_ledger(read_config(config)) as ledger:
        accounts = sorted(ledger.read_state(utc_now()).accounts.values(), key=lambda account: account.uid)
    if as_json:
        print_json(accounts)
    else:
        rows = [(a.name, a.uid, state_of(a), _groups_of(a), a.subject) for a in accounts]
        print_table(("NAME", "UID", "STATE", "GROUPS", "SUBJECT"), rows, empty="no accounts yet")
    return Exit.OK


def state_of(account: Account) -> str:
    """Say in one word, or a few, whether an account is open."""
    return f"locked: {lock_words(account.locks)}" if account.locks else "open"


def _groups_of(account: Account) -> str:
    return " ".join(sorted(map(str, account.groups))) or NO_GROUPS


@app.command(epilog=example("iam-bridge map show ada", "iam-bridge map show uid:20017"))
def show(who: Person, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Show one account as the ledger holds it."""
    now = utc_now()
    with open_ledger(read_config(config)) as ledger:
        account = need_account(ledger, ledger.read_state(now), who)
        since = ledger.who(now, uid=account.uid)
        member = ledger.member(account.subject)
    if as_json:
        print_json({"account": account, "since": since and since.since, "member": member})
        return Exit.OK
    print_fields(
        [
            *fields_of(account),
            ("since", moment(since.since) if since else "unknown"),
            ("IAM name", member.username if member else "not in the last whole list"),
            ("IAM groups", " ".join(sorted(member.groups)) if member else NO_GROUPS),
        ]
    )
    return Exit.OK


def fields_of(account: Account) -> list[tuple[str, object]]:
    """Give an account as names and values."""
    return [
        ("account", account.name),
        ("subject", account.subject),
        ("uid", account.uid),
        ("gid", account.gid),
        ("home", account.home),
        ("shell", account.shell),
        ("groups", _groups_of(account)),
        ("state", state_of(account)),
        ("came by", "adoption" if account.adopted else "membership"),
    ]


@app.command(
    short_help="Say who held a uid or a name, now or at a date.",
    epilog=example("iam-bridge map who uid:20017 --at 2026-05-03", "iam-bridge map who ada"),
)
def who(
    person: Person,
    at: Annotated[str | None, typer.Option("--at", metavar="DATE", help="A day (its end, UTC), or a time.")] = None,
    config: Config = SETTINGS_FILE,
    as_json: Json = False,
) -> Exit:
    """Say who held a uid or a name, now or at a date; exit status 1 where nobody did."""
    asked = parse_who(person)
    now = utc_now()
    when = parse_past(at, now)
    with open_ledger(read_config(config)) as ledger:
        uid, name = asked.uid, asked.name
        if asked.subject is not None:
            account = find_account(ledger.read_state(now), asked)
            uid = account.uid if account else 0
        found = ledger.who(when, uid=uid, name=name)
    if as_json:
        print_json(found)
    elif found is None:
        say(f"nobody: the ledger gave {asked} to no one until {moment(when)}")
        say(_host_says(asked) if asked.subject is None else "no account is theirs")
    else:
        print_fields(_fields_of_past(found))
    return Exit.FAILED if found is None else Exit.OK


def _host_says(asked: Who) -> str:
    """Say what the host knows of a name or number that the ledger does not know."""
    try:
        entry = pwd.getpwnam(asked.name) if asked.name is not None else pwd.getpwuid(asked.uid or 0)
    except KeyError:
        return "this host knows none of that name or number either"
    return f"this host has {entry.pw_name} (uid {entry.pw_uid}), which is none of ours"


def _fields_of_past(found: WhoWas) -> list[tuple[str, object]]:
    if found.subject is None:
        known = f"given before {moment(found.since)}, to somebody whom the restored ledger does not know"
        return [("name", found.name or "unknown"), ("uid", found.uid or "unknown"), ("subject", known)]
    return [
        ("name", found.name),
        ("uid", found.uid),
        ("gid", found.gid),
        ("subject", found.subject),
        ("since", moment(found.since)),
        ("until", moment(found.until) if found.until else "still"),
        ("locked today", lock_words(found.locks) or "no"),
    ]


@app.command(short_help="Say what stands behind an account.", epilog=example("iam-bridge map why ada"))
def why(who: Person, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Say what stands behind an account: IAM record, rule, run, receipts, locks, bans, and what login says now."""
    from iam_bridge.cli.why import explain, print_why

    settings = read_config(config)
    now = utc_now()
    with open_ledger(settings) as ledger:
        account = need_account(ledger, ledger.read_state(now), who)
        found = explain(ledger, settings, account, now)
    if as_json:
        print_json(found)
    else:
        print_why(found)
    return Exit.OK


@app.command(
    short_help="List the receipts on a person, oldest first.",
    epilog=example("iam-bridge map history ada", "iam-bridge map history uid:20017 --json"),
)
def history(who: Person, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """List the receipts on a person, oldest first: what was done, when, by whom, on which rule and record."""
    asked = parse_who(who)
    with open_ledger(read_config(config)) as ledger:
        receipts = ledger.history(subject=asked.subject, name=asked.name, uid=asked.uid)
    if as_json:
        print_json(receipts)
    else:
        rows = [(r.seq, moment(r.at), r.kind, r.name, r.detail, r.by, r.rule) for r in receipts]
        print_table(("NO", "AT", "WHAT", "NAME", "DETAIL", "BY", "RULE"), rows, empty=f"no receipt names {asked}")
    return Exit.OK if receipts else Exit.FAILED


@app.command(
    short_help="Compare ledger, host, members and bans.",
    epilog=example("iam-bridge map audit", "iam-bridge map audit --json"),
)
def audit(config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Compare ledger, name service, shadow, homes, members and bans; one row per finding, and what to do about it.

    Exit status 0: all is as it should be; 1: there are findings.
    """
    from iam_bridge.cli.audit import run_audit

    return run_audit(read_config(config), as_json=as_json)


@app.command(
    short_help="Lock an account by an admin's word.",
    epilog=example("iam-bridge map lock ada --reason 'asked for by her group leader'"),
)
def lock(
    who: Person,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the receipts; one line.")],
    config: Config = SETTINGS_FILE,
) -> Exit:
    """Lock an account by an admin's word: no way in is open, and what runs is ended; only `unlock` opens it again."""
    from iam_bridge.cli.lock import lock_account

    return lock_account(read_config(config), who, parse_reason(reason))


@app.command(short_help="Take an admin's lock back.", epilog=example("iam-bridge map unlock ada"))
def unlock(who: Person, config: Config = SETTINGS_FILE) -> Exit:
    """Take an admin's lock (or one for idleness) back; other locks, such as `left` or `banned`, stay and are said."""
    from iam_bridge.cli.lock import unlock_account

    return unlock_account(read_config(config), who)


@app.command(
    short_help="Take over accounts that exist already.",
    epilog=example("iam-bridge map adopt --from people.csv --dry-run"),
)
def adopt(
    source: Annotated[Path, typer.Option("--from", metavar="CSV", help="Columns name, issuer, sub and perhaps proof.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and show; write nothing.")] = False,
    config: Config = SETTINGS_FILE,
    as_json: Json = False,
) -> Exit:
    """Take over accounts that exist already, for people whom the IAM lists: all rows of the table, or none.

    The number, the home and the shell stay as they are. From then on membership decides about the account.
    """
    from iam_bridge.cli.adopt import adopt_table

    return adopt_table(read_config(config), source, dry_run=dry_run, as_json=as_json)
