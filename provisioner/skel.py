"""What every new home begins with: `/etc/skel` read once, laid out as often as there are people."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import StoreError

_MOST_BYTES = 16 << 20
_MOST_ENTRIES = 1000
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SkelFile:
    """A file: its name, its mode (no set-id bits) and its content."""

    name: str
    mode: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SkelLink:
    """A symbolic link, copied as a link."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class SkelFolder:
    """A folder and what it holds."""

    name: str
    mode: int
    entries: tuple[SkelFile | SkelLink | SkelFolder, ...]


@dataclass(frozen=True, slots=True)
class Skel:
    """All of it; `remarks` say what was left out."""

    entries: tuple[SkelFile | SkelLink | SkelFolder, ...]
    remarks: tuple[str, ...] = ()


class _Reader:
    """Reads one skel, counting what it takes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes = 0
        self._entries = 0
        self.remarks: list[str] = []

    def _count(self, size: int) -> None:
        self._bytes += size
        self._entries += 1
        if self._bytes > _MOST_BYTES or self._entries > _MOST_ENTRIES:
            raise StoreError(
                f"{self._path} holds more than {_MOST_ENTRIES} entries or {_MOST_BYTES >> 20} MiB",
                hint="point accounts.skel to the folder that new homes shall begin with",
            )

    def _read_file(self, folder: int, name: str, shown: Path) -> SkelFile | None:
        fd = os.open(name, _OPEN_FILE, dir_fd=folder)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                self.remarks.append(f"{shown} is no regular file and was left out")
                return None
            self._count(status.st_size)
            return SkelFile(name, status.st_mode & 0o777, file.read(_MOST_BYTES))

    def read(self, fd: int, shown: Path) -> tuple[SkelFile | SkelLink | SkelFolder, ...]:
        """Read an open folder; raise OSError or StoreError."""
        entries: list[SkelFile | SkelLink | SkelFolder] = []
        for name in sorted(os.listdir(fd)):
            mode = os.lstat(name, dir_fd=fd).st_mode
            if stat.S_ISLNK(mode):
                self._count(0)
                entries.append(SkelLink(name, os.readlink(name, dir_fd=fd)))
            elif stat.S_ISDIR(mode):
                self._count(0)
                below = os.open(name, _OPEN_FOLDER, dir_fd=fd)
                try:
                    entries.append(SkelFolder(name, mode & 0o777, self.read(below, shown / name)))
                finally:
                    os.close(below)
            elif not stat.S_ISREG(mode):
                self.remarks.append(f"{shown / name} is no regular file and was left out")
            elif (file := self._read_file(fd, name, shown / name)) is not None:
                entries.append(file)
        return tuple(entries)


def read_skel(path: Path | None) -> Skel:
    """Read the whole skel, an empty one for None; raise StoreError where it cannot be read or is too large."""
    if path is None:
        return Skel(())
    reader = _Reader(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Skel(reader.read(fd, path), tuple(reader.remarks))
        finally:
            os.close(fd)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise StoreError(f"cannot read {path}: {why}", hint="correct accounts.skel, or say none") from error


def _lay_file(entry: SkelFile, folder: int, owner: tuple[int, int] | None) -> None:
    fd = os.open(entry.name, _OPEN_NEW, 0o600, dir_fd=folder)
    try:
        view = memoryview(entry.content)
        while view:
            view = view[os.write(fd, view) :]
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, entry.mode)
    finally:
        os.close(fd)


def _lay_folder(entry: SkelFolder, folder: int, owner: tuple[int, int] | None) -> None:
    os.mkdir(entry.name, 0o700, dir_fd=folder)
    fd = os.open(entry.name, _OPEN_FOLDER, dir_fd=folder)
    try:
        _lay(entry.entries, fd, owner)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, entry.mode)
    finally:
        os.close(fd)


def _lay(entries: tuple[SkelFile | SkelLink | SkelFolder, ...], folder: int, owner: tuple[int, int] | None) -> None:
    for entry in entries:
        if isinstance(entry, SkelFile):
            _lay_file(entry, folder, owner)
        elif isinstance(entry, SkelFolder):
            _lay_folder(entry, folder, owner)
        else:
            os.symlink(entry.target, entry.name, dir_fd=folder)
            if owner is not None:
                os.chown(entry.name, *owner, dir_fd=folder, follow_symlinks=False)


def lay_out(skel: Skel, folder: int, owner: tuple[int, int] | None) -> None:
    """Write everything into an open, empty folder; `owner` is (uid, gid), None to keep our own. Raises OSError."""
    _lay(skel.entries, folder, owner)
