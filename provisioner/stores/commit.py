"""Replace several files as nearly at once as Unix allows: prepared aside, noted in the journal, renamed in order.

Until the journal stands, a failure changes nothing. From then on the work can only be finished: by us, or by the next
run (`finish` is both). All of it happens under the locks of `locks`.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import StoreError
from provisioner.stores.disk import Place, open_file, read_file, remove, told, write_all
from provisioner.stores.journal import Entry, Journal, digest_of, read_journal, remove_journal, write_journal
from provisioner.stores.locks import lock_temp

_SECRET = ("shadow", "gshadow")
_NOTHING_CHANGED = "nothing was changed"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A file and what it shall hold; `before` is None where it does not exist yet."""

    place: Place
    name: str
    before: bytes | None
    after: bytes


def temp_name(name: str) -> str:
    """Give the name under which a new file waits; fixed, so that the next run finds what a killed one left."""
    return f"{name}.iam-bridge"


def leftover_names(name: str) -> tuple[str, ...]:
    """Give every name that a killed run may have left beside a file."""
    return temp_name(name), temp_name(f"{name}-"), lock_temp(name)


def _shadow_gid() -> int:
    """Give the gid of Debian's `shadow` group; -1 (leave it) where the host has none."""
    try:
        return grp.getgrnam("shadow").gr_gid
    except KeyError:
        return -1


def _dress_like(fd: int, like: int) -> None:
    """Give a new file the owner, the mode and the extended attributes (SELinux label, ACL) of the one it replaces."""
    old, new = os.fstat(like), os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, old.st_mode & 0o7777)
    try:
        names = os.listxattr(like)
    except OSError:  # a file system without any
        return
    for name in names:
        os.setxattr(fd, name, os.getxattr(like, name))


def _dress_new(fd: int, name: str) -> None:
    """Give a file that was not there Debian's owner and mode."""
    if name in _SECRET and os.geteuid() == 0:
        os.fchown(fd, 0, _shadow_gid())
    os.fchmod(fd, 0o640 if name in _SECRET else 0o644)


def _write_aside(place: Place, name: str, content: bytes, like: int | None) -> None:
    """Write a complete file beside its final place; `name` is its final name, `like` the open file that it replaces."""
    temp = temp_name(name)
    with told(f"write {place.path / temp}", _NOTHING_CHANGED):
        remove(place, temp)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temp, flags, 0o600, dir_fd=place.fd)
        try:
            if like is None:
                _dress_new(fd, name)
            else:
                _dress_like(fd, like)
            write_all(fd, content)
        finally:
            os.close(fd)


def _prepare(rewrite: Rewrite) -> None:
    """Write the new file aside, and the backup that shadow-utils keep (`passwd-`).

    The backup is a copy and no hard link: after a crash between two renames a link would make `passwd-` the same file
    as `passwd`, and the next useradd truncates its backup in place.
    """
    place, name = rewrite.place, rewrite.name
    like = open_file(place, name)
    try:
        if like is not None and rewrite.before is not None:
            _write_aside(place, f"{name}-", rewrite.before, like)
        _write_aside(place, name, rewrite.after, like)
    finally:
        if like is not None:
            os.close(like)


def clean(places: Sequence[Place], journal: Path) -> None:
    """Remove everything that a run leaves when it is killed, the journal last."""
    for place in places:
        with told(f"clean the folder {place.path}"):
            for name in place.files:
                for leftover in leftover_names(name):
                    remove(place, leftover)
    remove_journal(journal)


def _replace(place: Place, entry: Entry) -> bool:
    """Put one prepared file into place; False where somebody else changed the file, or the prepared one is gone."""
    current = digest_of(read_file(place, entry.name))
    if current == entry.after:
        return True
    if current != entry.before or digest_of(read_file(place, temp_name(entry.name))) != entry.after:
        return False
    with told(f"replace {place.path / entry.name}", "the next run completes the work"):
        backup = f"{entry.name}-"
        with suppress(FileNotFoundError):  # a new file has no backup; a killed run may have put it there already
            os.rename(temp_name(backup), backup, src_dir_fd=place.fd, dst_dir_fd=place.fd)
        os.rename(temp_name(entry.name), entry.name, src_dir_fd=place.fd, dst_dir_fd=place.fd)
        os.fsync(place.fd)
    return True


def finish(places: Sequence[Place], journal: Journal) -> str:
    """Put every prepared file into place; give the path of the first one that cannot be, an empty text when all are."""
    by_file = {(str(place.path), name): place for place in places for name in place.files}
    for entry in journal.entries:
        place = by_file.get((entry.folder, entry.name))
        if place is None or not _replace(place, entry):
            return f"{entry.folder}/{entry.name}"
    return ""


def recover(places: Sequence[Place], path: Path) -> tuple[str, ...]:
    """Finish what a killed run had prepared, remove what it left; give the names of those who gained by it.

    Where a file has changed since, its prepared successor is dropped: what is wanted is computed anew anyway.
    """
    journal = read_journal(path)
    if journal is not None:
        finish(places, journal)
    clean(places, path)
    return () if journal is None else journal.written


def commit(places: Sequence[Place], rewrites: Sequence[Rewrite], written: Sequence[str], path: Path) -> None:
    """Replace the files in the order given; raise StoreError.

    Before the journal stands a failure leaves every file as it was. A file that another program changed without
    taking our locks stops the rest, since what we computed rests on it.
    """
    entries = tuple(Entry(str(r.place.path), r.name, digest_of(r.before), digest_of(r.after)) for r in rewrites)
    journal = Journal(entries, tuple(written))
    try:
        for rewrite in rewrites:
            _prepare(rewrite)
        write_journal(path, journal)
    except StoreError:
        with suppress(StoreError):  # the first trouble is the one to tell; what stays is removed by the next run
            clean(places, path)
        raise
    stopped = finish(places, journal)
    clean(places, path)
    if stopped:
        raise StoreError(f"{stopped} was changed by a program that takes no lock, while we held it", hint="run again")
