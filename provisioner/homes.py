"""Homes from skel, made aside and moved into place whole, so that no half-made home can ever be entered.

Links are never followed: everything is reached from the descriptor of its folder. A home that is there already is ours
if its owner is right, and left alone in any other case: making it fit would hand somebody's files to somebody else.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from iam_bridge.errors import StoreError
from iam_bridge.model.account import Account, UserName
from iam_bridge.model.rules import AccountRules
from provisioner.skel import Skel, lay_out, read_skel

_TEMP_PREFIX = ".iam-bridge-"
_TEMP_SUFFIX = ".tmp"
_RENAME_NOREPLACE = 1  # renameat2(2)
_LIBC = ctypes.CDLL(None, use_errno=True)
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class HomeReport:
    """What became of the homes: `made` now, `kept` because they were there with the right owner; both are done."""

    made: tuple[UserName, ...]
    kept: tuple[UserName, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Lists:
    """A report in the making."""

    made: list[UserName] = field(default_factory=list)
    kept: list[UserName] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class _NoHome(Exception):
    """Why one home cannot be made; becomes a problem of the report."""


def _open_parent(path: str) -> int:
    """Open the folder that holds homes; raise _NoHome unless it is safe to make homes in."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _NoHome(f"the folder {path} cannot be opened ({os.strerror(error.errno or 0)}): create it") from error
    held = os.fstat(fd)
    if held.st_uid not in {0, os.geteuid()}:
        why = f"the folder {path} belongs to uid {held.st_uid}: chown it to root"
    elif held.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"the folder {path} is writable by others: chmod go-w {path}"
    else:
        return fd
    os.close(fd)
    raise _NoHome(why)


def _remove_leftovers(parent: int) -> None:
    """Remove what a killed run left; `rmtree` works from descriptors, so that nobody can lead it astray."""
    for name in os.listdir(parent):
        uid = name.removeprefix(_TEMP_PREFIX).removesuffix(_TEMP_SUFFIX)
        if name == f"{_TEMP_PREFIX}{uid}{_TEMP_SUFFIX}" and uid.isdigit():
            shutil.rmtree(name, dir_fd=parent)


def _is_there(parent: int, account: Account) -> bool:
    """Tell whether the home is there and right; raise _NoHome where something else stands in its place."""
    try:
        found = os.lstat(os.path.basename(account.home), dir_fd=parent)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise _NoHome(f"{account.home} is no directory: left alone; move it away")
    if found.st_uid != account.uid:
        raise _NoHome(f"{account.home} belongs to uid {found.st_uid}, not {account.uid}: left alone; move it away")
    return True


def _move(parent: int, temp: str, name: str) -> None:
    """Rename without replacing anything; raise OSError."""
    done = _LIBC.renameat2(parent, os.fsencode(temp), parent, os.fsencode(name), _RENAME_NOREPLACE)
    if done == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code))
    # NFS has no such flag. A plain rename replaces nothing but an empty directory, in a folder that only we can write.
    os.rename(temp, name, src_dir_fd=parent, dst_dir_fd=parent)


def _make(parent: int, account: Account, skel: Skel, mode: int) -> None:
    """Make one home aside and move it into place; raise OSError."""
    temp = f"{_TEMP_PREFIX}{account.uid}{_TEMP_SUFFIX}"
    owner = (account.uid, account.gid) if os.geteuid() == 0 else None
    os.mkdir(temp, 0o700, dir_fd=parent)
    try:
        fd = os.open(temp, _OPEN_FOLDER, dir_fd=parent)
        try:
            lay_out(skel, fd, owner)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        _move(parent, temp, os.path.basename(account.home))
    except OSError:
        with suppress(OSError):  # the first trouble is the one to tell; the next run removes it
            shutil.rmtree(temp, dir_fd=parent)
        raise


def _make_one(parent: int, account: Account, skel: Skel, mode: int) -> bool:
    """See to one home; tell whether it was made now. Raises _NoHome."""
    if _is_there(parent, account):
        return False
    if os.geteuid() not in {0, account.uid}:
        raise _NoHome(f"{account.home} cannot be given to uid {account.uid}: run as root")
    try:
        _make(parent, account, skel, mode)
    except OSError as error:
        raise _NoHome(f"{account.home} cannot be made: {os.strerror(error.errno or 0)}") from error
    return True


def _is_plain(home: str) -> bool:
    """Tell whether a path is absolute, without detours, and ends in a name."""
    plain = home.isprintable() and home[:1] == "/" and home[:2] != "//"  # POSIX lets two slashes mean another root
    return plain and home != "/" and os.path.normpath(home) == home


def _group_by_parent(accounts: Iterable[Account], problems: list[str]) -> dict[str, list[Account]]:
    """Sort accounts by the folder of their homes; those that we did not make are not ours to house."""
    folders: dict[str, list[Account]] = {}
    for account in accounts:
        if account.adopted:
            continue
        if _is_plain(account.home):
            folders.setdefault(os.path.dirname(account.home), []).append(account)
        else:
            problems.append(f"{account.name}: {account.home!r} is no path for a home: correct accounts.home")
    return folders


def _make_all(parent: int, people: Iterable[Account], skel: Skel, mode: int, report: _Lists) -> None:
    """Make the homes of one folder; raise OSError where the folder itself gives trouble."""
    _remove_leftovers(parent)
    for account in people:
        try:
            made = _make_one(parent, account, skel, mode)
            (report.made if made else report.kept).append(account.name)
        except _NoHome as error:
            report.problems.append(f"{account.name}: {error}")
    os.fsync(parent)


def make_homes(accounts: Iterable[Account], rules: AccountRules) -> HomeReport:
    """Make the homes that are missing; one that cannot be made is a problem and stops no other.

    Raises StoreError where skel cannot be used at all (no such folder, too large).
    """
    lists = _Lists()
    folders = _group_by_parent(accounts, lists.problems)
    if not folders:
        return HomeReport((), (), tuple(lists.problems), ())
    skel = read_skel(rules.skel)
    for path, people in folders.items():
        try:
            parent = _open_parent(path)
        except _NoHome as error:
            lists.problems.extend(f"{account.name}: {error}" for account in people)
            continue
        try:
            _make_all(parent, people, skel, rules.home_mode, lists)
        except OSError as error:
            raise StoreError(f"cannot make homes in {path}: {os.strerror(error.errno or 0)}") from error
        finally:
            os.close(parent)
    return HomeReport(tuple(lists.made), tuple(lists.kept), tuple(lists.problems), skel.remarks)
