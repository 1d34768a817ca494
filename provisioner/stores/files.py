"""Accounts in local files: `/etc` (or a folder like it), or what libnss-extrausers reads.

`read` takes no lock. `converge` first looks whether there is anything to do, without a lock and without a write; only
then it takes the locks, reads again, finishes what a killed run left, and replaces the files that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from iam_bridge.errors import StoreError
from iam_bridge.model.rules import AccountRules
from iam_bridge.model.state import StoreGroup, StoreReport, StoreSnapshot, StoreUser, Wanted
from provisioner.stores import journal as notes
from provisioner.stores.commit import Rewrite, commit, leftover_names, recover
from provisioner.stores.disk import WRITE_ORDER, Place, list_names, open_places, read_file
from provisioner.stores.fit import Fit, fit_tables
from provisioner.stores.locks import hold_locks, is_abandoned
from provisioner.stores.rows import Table, parse_number, parse_table


def _list_users(passwd: Table, shadow: Table) -> dict[str, StoreUser]:
    users: dict[str, StoreUser] = {}
    for name, _, uid_text, gid_text, _, home, shell in passwd.each_row():
        uid, gid = parse_number(uid_text), parse_number(gid_text)
        if uid is not None and gid is not None:
            row = shadow.find_row(name)
            users[name] = StoreUser(name, uid, gid, home, shell, None if row is None else row[7])
    return users


def _list_groups(group: Table) -> dict[str, StoreGroup]:
    groups: dict[str, StoreGroup] = {}
    for name, _, gid_text, members in group.each_row():
        gid = parse_number(gid_text)
        if gid is not None:
            groups[name] = StoreGroup(name, gid, frozenset(filter(None, members.split(","))))
    return groups


def _check_whole(folder: Path, tables: Mapping[str, Table]) -> None:
    """Raise StoreError where root stands in one file and not in another: it was cut, or is just being written.

    To replace such a file would make the loss last.
    """
    holders = [kind for kind in ("passwd", "group", "shadow") if "root" in tables[kind].rows]
    lacking = [kind for kind in ("passwd", "group", "shadow") if kind not in holders]
    if holders and lacking:
        raise StoreError(
            f"{folder}/{lacking[0]} has no root, and {holders[0]} has: it seems to be cut; nothing was changed",
            hint=f"compare it with {folder}/{lacking[0]}-, the copy before the last change",
        )


class FilesStore:
    """Holds accounts in passwd, group, shadow, gshadow, subuid and subgid; implements `ports.AccountStore`."""

    def __init__(
        self, rules: AccountRules, *, journal: Path, today: Callable[[], int], lock_timeout_s: float = 30.0
    ) -> None:
        """Take the rules; nothing is opened yet.

        `journal` is a file in a folder that only we can write; `today` gives the days since 1970-01-01 (UTC).
        """
        self._rules = rules
        self._journal = journal
        self._today = today
        self._lock_timeout_s = lock_timeout_s
        self._parsed: dict[str, Table] = {}

    def read(self) -> StoreSnapshot:
        """Give every user and group that the files hold; lines that are no rows are left out."""
        with open_places(self._rules) as places:
            _, tables = self._read_tables(places)
        return StoreSnapshot(_list_users(tables["passwd"], tables["shadow"]), _list_groups(tables["group"]))

    def converge(self, wanted: Wanted) -> StoreReport:
        """Make the files hold what is wanted of ours; touch nothing else and write nothing where they do already.

        Raises StoreError; until the journal stands (disk full, no permission, a lock that is held) every file is then
        as it was.
        """
        day = self._today()
        with open_places(self._rules) as places:
            before, tables = self._read_tables(places)
            _check_whole(places[0].path, tables)
            fit = fit_tables(tables, wanted, self._rules, day)
            if not self._rewrites(places, before, fit) and not self._has_leftovers(places):
                return StoreReport(fit.written, fit.problems)
            with hold_locks(places, self._lock_timeout_s):
                recovered = recover(places, self._journal)
                seen = before
                before, tables = self._read_tables(places)
                if before != seen:  # somebody wrote between our look and our lock
                    _check_whole(places[0].path, tables)
                    fit = fit_tables(tables, wanted, self._rules, day)
                rewrites = self._rewrites(places, before, fit)
                if rewrites:
                    commit(places, rewrites, fit.written, self._journal)
        return StoreReport(tuple(sorted({*recovered, *fit.written})), fit.problems)

    def _read_tables(self, places: Sequence[Place]) -> tuple[dict[str, bytes | None], dict[str, Table]]:
        """Read all files, parsing only those that differ from the last time.

        Against the order of writing, so that a passwd row seen beside a run at work comes with its lock.

        A site whose groups have no gshadow (grpconv(8) was undone) keeps it so: a new gshadow would take over from
        the passwords in group. Where there are no groups yet, it is made.
        """
        contents = {name: read_file(place, name) for place in places for name in reversed(place.files)}
        if contents.get("gshadow", b"") is None and contents["group"]:
            del contents["gshadow"]
        tables: dict[str, Table] = {}
        for name, content in contents.items():
            known = self._parsed.get(name)
            tables[name] = known if known and known.raw == content else parse_table(name, content or b"")
        self._parsed = tables
        return contents, tables

    def _has_leftovers(self, places: Sequence[Place]) -> bool:
        """Tell whether a killed run left its journal, a file of its own or a lock."""
        if notes.is_there(self._journal):
            return True
        for place in places:
            names = list_names(place)
            if any(leftover in names for name in place.files for leftover in leftover_names(name)):
                return True
            if any(f"{name}.lock" in names and is_abandoned(place, name) for name in place.files):
                return True
        return False

    def _rewrites(self, places: Sequence[Place], before: Mapping[str, bytes | None], fit: Fit) -> list[Rewrite]:
        """Give the files that differ, in the order in which they are replaced."""
        by_name = {name: place for place in places for name in place.files}
        rewrites: list[Rewrite] = []
        for name in WRITE_ORDER:
            if name in fit.drafts:
                after = fit.drafts[name].render()
                if after != (before[name] or b""):
                    rewrites.append(Rewrite(by_name[name], name, before[name], after))
        return rewrites
