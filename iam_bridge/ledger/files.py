"""Files that only we may write: how they are checked, read whole, and replaced.

A reader on the login path believes a file only if nobody but root and itself could have written it, and its folder
likewise (whoever may write the folder may replace the file).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def why_untrusted(found: os.stat_result, what: str, *, owners: frozenset[int], folder: bool) -> str:
    """Say why a file or folder cannot be trusted, in one sentence; empty when it can."""
    if folder and not stat.S_ISDIR(found.st_mode):
        return f"{what} is no folder"
    if not folder and not stat.S_ISREG(found.st_mode):
        return f"{what} is no regular file"
    if found.st_uid not in owners:
        return f"{what} belongs to uid {found.st_uid}"
    if found.st_mode & WRITABLE_BY_OTHERS:
        return f"{what} can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def why_unsafe_to_read(path: Path, found: os.stat_result) -> str:
    """Say why a reader must not believe the file: somebody other than root or ourselves could have written it."""
    owners = frozenset({0, os.geteuid()})
    try:
        parent = os.stat(path.parent)
    except OSError as error:
        return f"{path.parent} cannot be looked at: {error.strerror}"
    return why_untrusted(parent, str(path.parent), owners=owners, folder=True) or why_untrusted(
        found, str(path), owners=owners, folder=False
    )


def read_bounded(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """Read a small file whole, not through a link at its end; raise OSError, also when it is larger than `most`."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if found.st_size > most:
            raise OSError(0, f"larger than {most} bytes", str(path))
        data = b""
        while chunk := os.read(fd, most + 1 - len(data)):
            data += chunk
            if len(data) > most:
                raise OSError(0, f"larger than {most} bytes", str(path))
        return data, found
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, fill: Callable[[Path], None], *, mode: int, gid: int | None = None) -> None:
    """Put a new file in place of `path` in one step: made aside by `fill`, fsync, rename, fsync of the folder.

    `fill` gets the path of an empty file that only we can open. Raises OSError; the old file then still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    _remove_leftovers(path)
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fill(aside)
        if gid is not None:
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
        os.fsync(fd)
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def write_text(path: Path, text: str, *, mode: int, gid: int | None = None) -> bool:
    """Make `path` hold exactly this text and mode; tell whether it had to be written. Raises OSError."""
    data = text.encode()
    try:
        standing, found = read_bounded(path, len(data))
    except OSError:
        pass
    else:
        right_group = gid is None or found.st_gid == gid
        if standing == data and stat.S_IMODE(found.st_mode) == mode and right_group:
            return False
    replace_file(path, lambda aside: _fill(aside, data), mode=mode, gid=gid)
    return True


def _remove_leftovers(path: Path) -> None:
    """Remove what writers that were killed left beside `path`; what a living one is filling stays."""
    for left in path.parent.glob(f".{path.name}.*.new"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and (int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")):
            left.unlink(missing_ok=True)


def _fill(aside: Path, data: bytes) -> None:
    with aside.open("r+b", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
