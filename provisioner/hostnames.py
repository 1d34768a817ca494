"""Names and numbers that are in use around us and must not be given, each name with the sentence why.

Four sources: a list of system names (a data file), NSS, the store's own files, and what people who are gone left
behind: a home, mail, a crontab, ranges of subordinate ids. A new account of such a name would find another's things.
Directories (sssd, LDAP) often refuse enumeration, so every candidate is asked for by name and number as well.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from iam_bridge.model.rules import AccountRules
from iam_bridge.model.state import HostNames
from iam_bridge.policy.names import RESERVED_PREFIXES
from provisioner.stores.disk import open_places, read_file, told
from provisioner.stores.rows import Table, parse_number, parse_table


@dataclass(frozen=True, slots=True)
class HostPaths:
    """Where things with people's names on them lie; the defaults are Debian's."""

    mail: Path = Path("/var/mail")
    crontabs: Path = Path("/var/spool/cron/crontabs")


@cache
def read_reserved_names() -> frozenset[str]:
    """Give the system names of Debian and EL that no person gets, used on this host or not."""
    text = (resources.files("provisioner") / "data" / "reserved-names.txt").read_text(encoding="ascii")
    lines = (line.partition("#")[0] for line in text.splitlines())
    return frozenset(name for line in lines for name in line.split())


class _Found:
    """Collects names with the first reason for each, and numbers."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.numbers: set[int] = set()

    def add(self, name: str, why: str) -> None:
        """Take a name; its lower-case spelling counts too, since mail and file systems may not tell them apart."""
        for spelling in {name, name.lower()}:
            self.names.setdefault(spelling, f"{spelling!r} {why}")


def _names_below(folder: Path) -> Iterator[tuple[str, int]]:
    """Give name and owner of everything in a folder, nothing where there is no such folder.

    Without root some folders stay closed (crontabs), but then no account of this host can be made either.
    """
    with told(f"list {folder}"):
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        except PermissionError:
            if os.geteuid() == 0:
                raise
            return
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # gone since
                    yield entry.name, entry.stat(follow_symlinks=False).st_uid


def _add_nss(found: _Found) -> None:
    for user in pwd.getpwall():
        found.add(user.pw_name, "is an account of this host")
        found.numbers.update((user.pw_uid, user.pw_gid))
    for group in grp.getgrall():
        found.add(group.gr_name, "is a group of this host")
        found.numbers.add(group.gr_gid)


def _numbers(texts: Iterable[str]) -> Iterator[int]:
    return (number for number in map(parse_number, texts) if number is not None)


def _add_table(found: _Found, table: Table, path: Path) -> None:
    for name in (*table.rows, *table.broken):
        if table.kind in {"subuid", "subgid"} and name.isdigit():  # subuid(5): a row may name a uid
            found.numbers.update(_numbers((name,)))
        elif name:
            found.add(name, f"stands in {path}")
    if table.kind in {"passwd", "group"}:
        last = 4 if table.kind == "passwd" else 3
        for row in table.each_row():
            found.numbers.update(_numbers(row[2:last]))


def _add_files(found: _Found, rules: AccountRules) -> None:
    with open_places(rules) as places:
        for place in places:
            for name in place.files:
                _add_table(found, parse_table(name, read_file(place, name) or b""), place.path / name)


def _home_folder(rules: AccountRules) -> Path:
    """Give the folder whose entries are homes: what stands before the part that holds the name."""
    before, _, _ = rules.home.partition("{name}")
    return Path(before) if before.endswith("/") else Path(before).parent


def _add_leftovers(found: _Found, rules: AccountRules, paths: HostPaths) -> None:
    homes = _home_folder(rules)
    for name, owner in _names_below(homes):
        found.add(name, f"has a home in {homes}")
        found.numbers.add(owner)
    for name, _ in _names_below(paths.mail):
        found.add(name, f"has mail in {paths.mail}")
    for name, _ in _names_below(paths.crontabs):
        found.add(name, f"has a crontab in {paths.crontabs}")


def read_host_names(rules: AccountRules, paths: HostPaths | None = None) -> HostNames:
    """Gather every name and number in use; our own accounts and groups are among them, the ledger tells which.

    Raises StoreError where a source is there and cannot be read: a name that we cannot rule out is not free.
    """
    found = _Found()
    for name in read_reserved_names():
        found.add(name, "is a system name")
    _add_nss(found)
    _add_files(found, rules)
    _add_leftovers(found, rules, paths or HostPaths())
    return HostNames(found.names, frozenset(found.numbers))


def find_busy_name(name: str) -> str:
    """Ask for one name, which directories answer even where they do not enumerate: why it is busy, or an empty text.

    Raises StoreError where the host does not answer.
    """
    if name.startswith(RESERVED_PREFIXES) or name in read_reserved_names():
        return f"{name!r} is a system name"
    with told(f"look up the name {name!r}"), suppress(KeyError):
        return f"{name!r} is the account with uid {pwd.getpwnam(name).pw_uid} on this host"
    with told(f"look up the name {name!r}"), suppress(KeyError):
        return f"{name!r} is the group with gid {grp.getgrnam(name).gr_gid} on this host"
    return ""


def is_busy_number(number: int) -> bool:
    """Ask whether a uid or gid is somebody's; raise StoreError where the host does not answer."""
    for ask in (pwd.getpwuid, grp.getgrgid):
        with told(f"look up the number {number}"), suppress(KeyError):
            ask(number)
            return True
    return False
