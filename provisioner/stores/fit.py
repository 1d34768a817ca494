"""Fit the tables of a files store to what is wanted of ours: a pure decision, every file at once.

Somebody else's row is never changed. A name of ours that stands in somebody else's row (another uid, a line that
nobody can read, a number that a foreign account has) is a problem to report, and that account is left alone in all
files. Fields of a passwd row are written once, at creation: people may chsh, and the audit looks after the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from iam_bridge.model.account import Account
from iam_bridge.model.rules import AccountRules
from iam_bridge.model.state import Wanted, WantedAccount
from provisioner.stores.members import fit_groups, is_usable
from provisioner.stores.rows import Draft, Table, is_number, parse_number
from provisioner.stores.subids import add_ranges

LOCKED_EXPIRY = "1"  # usermod(8), -L: "set the EXPIRE_DATE to 1"; shadow(5) calls 0 ambiguous
_AGING = ("0", "99999", "7")  # login.defs(5): PASS_MIN_DAYS, PASS_MAX_DAYS, PASS_WARN_AGE as shipped


@dataclass(frozen=True, slots=True)
class Fit:
    """The drafts of all files, the names that gain by them, and what could not be done."""

    drafts: Mapping[str, Draft]
    written: tuple[str, ...]
    problems: tuple[str, ...]


def decide_expiry(account: Account, saved: str | None, field_now: str) -> str:
    """Give the expiry field as it shall be; one that we did not write is never cleared."""
    if not account.is_open:
        return LOCKED_EXPIRY
    if saved is not None and field_now == LOCKED_EXPIRY:
        return saved
    return field_now


def owners_of(table: Table) -> dict[int, str]:
    """Give the name that has a number (uid or gid), the first one where several do, as libc answers."""
    owners: dict[int, str] = {}
    for fields in table.each_row():
        number = parse_number(fields[2])
        if number is not None:
            owners.setdefault(number, fields[0])
    return owners


@dataclass(slots=True)
class _Work:
    """Everything one fit has at hand; `gids` and `uids` are read from the tables when the first row is added."""

    drafts: Mapping[str, Draft]
    wanted: Wanted
    rules: AccountRules
    day: str
    mapped: frozenset[str]
    written: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    _owners: dict[str, dict[int, str]] = field(default_factory=dict)

    def table(self, kind: str) -> Table:
        return self.drafts[kind].table

    def owners(self, kind: str) -> dict[int, str]:
        if kind not in self._owners:
            self._owners[kind] = owners_of(self.drafts[kind].table)
        return self._owners[kind]


def _why_broken(work: _Work, name: str, *kinds: str) -> str:
    """Say in which of these files a line of this name cannot be read."""
    for kind in kinds:
        if kind in work.drafts and name in work.table(kind).broken:
            return f"{name}: the line of that name in {kind} cannot be read: correct it"
    return ""


def _why_not_new(work: _Work, account: Account) -> str:
    """Say why no row can be added for an account; an empty text where one can."""
    name = account.name.text
    owner = work.owners("passwd").get(account.uid)
    shadow = work.table("shadow").find_row(name)
    if account.adopted:
        return f"{name}: adopted, but passwd has no row of that name: restore it, or release the account"
    if not is_usable(account.uid) or not is_usable(account.gid):
        return f"{name}: uid {account.uid} or gid {account.gid} lies where no site may give numbers"
    if owner is not None:
        return f"{name}: uid {account.uid} belongs to {owner!r} in passwd: left alone; find out whose it is"
    if shadow is not None and shadow[1][:1] not in {"*", "!"}:
        return f"{name}: shadow has a row with a password that somebody left; remove that row first"
    return ""


def _why_no_group(work: _Work, account: Account) -> str:
    """Say why the private group cannot be; an empty text where it is there or can be made."""
    name = account.name.text
    if broken := _why_broken(work, name, "group", "gshadow"):
        return broken
    if name in work.mapped:
        return f"{name}: a mapped group has the same name: rename the group in the mapping table"
    row = work.table("group").find_row(name)
    if row is not None and is_number(row[2], account.gid):
        return ""
    if row is not None:
        return f"{name}: a group of that name has gid {row[2]!r}, the ledger says {account.gid}: left alone"
    owner = work.owners("group").get(account.gid)
    return "" if owner is None else f"{name}: gid {account.gid} belongs to the group {owner!r}: left alone"


def _check_standing(account: Account, row: list[str]) -> tuple[str, str]:
    """Compare a passwd row with the ledger: why it is not ours, and what to tell though it is.

    The same name and uid are our account whatever its gid: a lock must reach it.
    """
    name = account.name.text
    if not is_number(row[2], account.uid):
        return f"{name}: passwd gives uid {row[2]!r}, the ledger {account.uid}: left alone; find out whose it is", ""
    if not is_number(row[3], account.gid):
        return "", f"{name}: passwd gives gid {row[3]!r}, the ledger {account.gid}: set it back by usermod -g"
    return "", ""


def _fit_private_group(work: _Work, account: Account) -> None:
    name = account.name.text
    shadowed = "gshadow" in work.drafts
    if name not in work.table("group").rows:
        work.drafts["group"].add_row(name, "x" if shadowed else "*", str(account.gid), "")
        work.owners("group")[account.gid] = name
        work.written.add(name)
    if shadowed and name not in work.table("gshadow").rows:
        work.drafts["gshadow"].add_row(name, "!", "", "")
        work.written.add(name)


def _fit_shadow(work: _Work, wanted: WantedAccount) -> None:
    account, name = wanted.account, wanted.account.name.text
    row = work.table("shadow").find_row(name)
    if row is None and account.adopted:
        work.problems.append(f"{name}: adopted, but shadow has no row of that name: a lock has nowhere to stand")
    elif row is None:
        expiry = "" if account.is_open else LOCKED_EXPIRY
        work.drafts["shadow"].add_row(name, "*", work.day, *_AGING, "", expiry, "")
        work.written.add(name)
    else:
        expiry = decide_expiry(account, wanted.saved_expiry, row[7])
        if expiry != row[7]:
            work.drafts["shadow"].set_field(name, 7, expiry)
            work.written.add(name)


def _fit_account(work: _Work, wanted: WantedAccount) -> bool:
    """Fit one account in group, gshadow, shadow and passwd; tell whether its name is ours in these files."""
    account, name = wanted.account, wanted.account.name.text
    row = work.table("passwd").find_row(name)
    why, told = (_why_not_new(work, account), "") if row is None else _check_standing(account, row)
    why = _why_broken(work, name, "passwd", "shadow") or why
    group = "" if why or account.adopted else _why_no_group(work, account)
    if row is None:
        why = why or group
    work.problems.extend(filter(None, (why,) if why else (told, group)))
    if why:
        return False
    if not account.adopted and not group:
        _fit_private_group(work, account)
    _fit_shadow(work, wanted)
    if row is None:
        uid, gid = str(account.uid), str(account.gid)
        work.drafts["passwd"].add_row(name, "x", uid, gid, account.gecos, account.home, account.shell)
        work.owners("passwd")[account.uid] = name
        work.written.add(name)
    return True


def _fit_subids(work: _Work, accounts: list[Account]) -> None:
    for kind, ids, source in (("subuid", work.rules.uids, "passwd"), ("subgid", work.rules.gids, "group")):
        named, problems = add_ranges(
            work.drafts[kind],
            [account for account in accounts if not account.adopted],
            ids=ids,
            uids=work.rules.uids,
            count=work.rules.subid_count,
            numbers=partial(work.owners, source),
        )
        work.written.update(named)
        work.problems.extend(problems)


def fit_tables(tables: Mapping[str, Table], wanted: Wanted, rules: AccountRules, day: int) -> Fit:
    """Decide every change; `day` counts from 1970-01-01 and goes into the last-change field of new shadow rows."""
    drafts = {kind: Draft(table) for kind, table in tables.items()}
    work = _Work(drafts, wanted, rules, str(day), frozenset(name.text for name in wanted.groups))
    ours = [entry.account for entry in wanted.accounts if _fit_account(work, entry)]
    groups, problems = fit_groups(drafts, wanted.groups, ours)
    work.written.update(groups)
    work.problems.extend(problems)
    if "subuid" in drafts:
        _fit_subids(work, ours)
    return Fit(drafts, tuple(sorted(work.written)), tuple(work.problems))
