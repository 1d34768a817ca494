"""Count what anybody writes into a folder, as the kernel sees it (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x40, 0x80, 0x100, 0x200
_WRITES = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Give a list that at the end of the block holds the name of a file for each change to the folder or in it."""
    fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0 or _libc.inotify_add_watch(fd, os.fsencode(folder), _WRITES) < 0:
        raise OSError(ctypes.get_errno(), "inotify was refused")
    changes: list[str] = []
    try:
        yield changes
        changes += _read_names(fd)
    finally:
        os.close(fd)


def _read_names(fd: int) -> Iterator[str]:
    while True:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            yield data[at - length : at].rstrip(b"\0").decode()
