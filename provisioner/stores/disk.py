"""The folders of a store, held open: every file is reached from its folder's descriptor and never through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import StoreError
from iam_bridge.model.rules import AccountRules

ETC_FILES = ("group", "gshadow", "shadow", "passwd")
EXTRAUSERS_FILES = ("group", "shadow", "passwd")  # libnss-extrausers reads no gshadow
SUBID_FILES = ("subuid", "subgid")
WRITE_ORDER = (*ETC_FILES, *SUBID_FILES)
"""Every beginning of this order is a safe state: a passwd row never stands without its group and its lock."""

_HINTS = {
    errno.ENOSPC: "make room on that file system and run again",
    errno.EDQUOT: "make room on that file system and run again",
    errno.EROFS: "mount it writable, or set accounts.folder to a folder that can be written",
    errno.EACCES: "run as root, or set accounts.folder to a folder of your own",
    errno.EPERM: "run as root, or set accounts.folder to a folder of your own",
    errno.ELOOP: "put the file itself there",
    errno.ENOENT: "create it, or correct the settings file",
}


@dataclass(frozen=True, slots=True)
class Place:
    """An open folder and the files of the store that live in it."""

    path: Path
    fd: int
    files: tuple[str, ...]


@contextmanager
def told(doing: str, hint: str = "") -> Iterator[None]:
    """Turn what the operating system refuses into one StoreError sentence: `cannot DOING: why`."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.ELOOP:  # what O_NOFOLLOW answers; its own words speak of many links
            why = "it is a symbolic link"
        known = _HINTS.get(error.errno or 0, "")
        raise StoreError(f"cannot {doing}: {why}", hint="; ".join(filter(None, (known, hint)))) from error


def _open_folder(path: Path) -> int:
    with told(f"open the folder {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if mode & stat.S_IWOTH:
        os.close(fd)
        raise StoreError(f"{path} is writable by everybody", hint=f"chmod o-w {path}")
    return fd


@contextmanager
def open_places(rules: AccountRules) -> Iterator[tuple[Place, ...]]:
    """Open the folders of the store; raise StoreError where one is missing or writable by everybody."""
    files = ETC_FILES if rules.layout == "etc" else EXTRAUSERS_FILES
    with ExitStack() as opened:
        fd = _open_folder(rules.folder)
        opened.callback(os.close, fd)
        if rules.subid_folder is None:
            yield (Place(rules.folder, fd, files),)
            return
        other = _open_folder(rules.subid_folder)
        opened.callback(os.close, other)
        if os.path.samestat(os.fstat(fd), os.fstat(other)):
            yield (Place(rules.folder, fd, (*files, *SUBID_FILES)),)
        else:
            yield (Place(rules.folder, fd, files), Place(rules.subid_folder, other, SUBID_FILES))


def open_file(place: Place, name: str) -> int | None:
    """Open a regular file of a folder for reading, None where there is none; raise StoreError for anything else."""
    with told(f"read {place.path / name}"):
        try:
            # O_NONBLOCK: a FIFO in the place of a file must not hold us up.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place.fd)
        except FileNotFoundError:
            return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"{place.path / name} is no regular file", hint="put the file itself there")
    return fd


def read_all(fd: int) -> bytes:
    """Read an open file from its start to its end."""
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def read_file(place: Place, name: str) -> bytes | None:
    """Read a file of a folder, None where there is none."""
    fd = open_file(place, name)
    if fd is None:
        return None
    try:
        with told(f"read {place.path / name}"):
            return read_all(fd)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write everything, force it to the disk, and read it back; raise OSError where the disk holds something else."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.fsync(fd)
    if read_all(fd) != content:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def remove(place: Place, name: str) -> None:
    """Remove a file of ours if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=place.fd)


def list_names(place: Place) -> frozenset[str]:
    """Give the names of everything in a folder."""
    with told(f"list the folder {place.path}"):
        return frozenset(os.listdir(place.fd))
