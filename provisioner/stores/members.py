"""The unix groups of the mapping table and who is in them: names of ours come and go, everybody else stays in place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from iam_bridge.model.account import USABLE_IDS, Account, GroupName
from provisioner.stores.rows import Draft, Table, parse_number


def is_usable(number: int) -> bool:
    """Tell whether a uid or gid lies in a block that Linux leaves to sites; what lies outside is never written."""
    return any(low <= number <= high for low, high in USABLE_IDS)


def merge_members(text: str, ours: Collection[str], due: Collection[str]) -> str:
    """Give the member list as it shall be: foreign names in their order, ours exactly those who are due."""
    members = text.split(",") if text else []
    kept = [name for name in members if name not in ours or name in due]
    added = sorted(set(due).difference(kept))
    return ",".join(kept + added) if added or len(kept) != len(members) else text


def _gid_owner(table: Table, gid: int) -> str:
    """Give the first group that has a gid, an empty text where none has."""
    return next((row[0] for row in table.each_row() if parse_number(row[2]) == gid), "")


def _why_not(drafts: Mapping[str, Draft], name: str, gid: int) -> str:
    """Say why a group is not ours to touch; an empty text where it is, or can be made."""
    table = drafts["group"].table
    row = table.find_row(name)
    # A system group grants more than any table may (root, shadow, disk, docker): never joined, whatever is configured.
    if not is_usable(gid):
        return f"group {name}: gid {gid} is a system group's: nobody is put there; map another group"
    if any(name in drafts[kind].table.broken for kind in ("group", "gshadow") if kind in drafts):
        return f"group {name}: the line of that name cannot be read: correct it"
    if row is not None and parse_number(row[2]) != gid:
        return f"group {name}: it has gid {row[2]!r}, the ledger says {gid}: left alone"
    if row is None and (owner := _gid_owner(table, gid)):
        return f"group {name}: gid {gid} belongs to the group {owner!r}: left alone"
    return ""


def _fit_list(draft: Draft, name: str, ours: Collection[str], due: Collection[str]) -> bool:
    """Fit the member list of a row that is there; tell whether it changed."""
    row = draft.table.find_row(name)
    if row is None:
        return False
    members = merge_members(row[3], ours, due)
    if members == row[3]:
        return False
    draft.set_field(name, 3, members)
    return True


def _fit_group(drafts: Mapping[str, Draft], name: str, gid: int, ours: Collection[str], due: Collection[str]) -> bool:
    """Fit one group in group and gshadow; tell whether anything changed."""
    group, gshadow = drafts["group"], drafts.get("gshadow")
    row = group.table.find_row(name)
    if row is None:
        group.add_row(name, "*" if gshadow is None else "x", str(gid), ",".join(sorted(due)))
    changed = row is None or _fit_list(group, name, ours, due)
    if gshadow is None:
        return changed
    # group(5): an x says that the password is in gshadow; without it the site keeps this group out of gshadow.
    if name not in gshadow.table.rows and (row is None or row[1] == "x"):
        gshadow.add_row(name, "!", "", ",".join(sorted(due)) if row is None else merge_members(row[3], ours, due))
        return True
    return _fit_list(gshadow, name, ours, due) or changed


def fit_groups(
    drafts: Mapping[str, Draft], groups: Mapping[GroupName, int], accounts: Iterable[Account]
) -> tuple[list[str], list[str]]:
    """Fit the mapped groups and their members among these accounts; answer the groups that changed, and problems."""
    due: dict[str, set[str]] = {name.text: set() for name in groups}
    ours: set[str] = set()
    given: dict[int, str] = {}
    for account in accounts:
        ours.add(account.name.text)
        if not account.adopted:
            given[account.gid] = account.name.text
        for group in account.groups:
            due.get(group.text, set()).add(account.name.text)
    changed: list[str] = []
    problems: list[str] = []
    for name, gid in sorted((name.text, gid) for name, gid in groups.items()):
        why = _why_not(drafts, name, gid)
        if not why and gid in given:
            why = f"group {name}: gid {gid} belongs to the group {given[gid]!r}: left alone"
        if why:
            problems.append(why)
            continue
        given[gid] = name
        if _fit_group(drafts, name, gid, ours, due[name]):
            changed.append(name)
    return changed, problems
