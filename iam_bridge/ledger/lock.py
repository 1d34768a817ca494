"""The run lock: one writer at a time, and the second one is told who the first is.

flock(2) on `<ledger>.lock`, so that it dies with its process. The file also holds who took it, as text for the next
one; after a crash that text is stale, so a refusal checks it against /proc before it repeats it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import time
import weakref
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from iam_bridge.errors import LedgerError, RunLocked
from iam_bridge.ledger.files import why_untrusted
from iam_bridge.ledger.times import stamp

TEXT_MAX = 4096
COMMAND_MAX = 200
LOOKS = 20  # 10 ms apart; a holder needs microseconds from flock to its note, so one that is not there then never comes

_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _leave_to_parent() -> None:
    # flock belongs to the open file: a child that outlives us (an unprivileged pull, say) would go on holding it.
    for lock in list(_held):
        lock.forget()


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_leave_to_parent)


def _started(pid: int) -> str:
    """Give the start time of a process in clock ticks (proc_pid_stat(5), field 22), empty when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class RunLock:
    """Hold the lock of a ledger while in a `with` block; `command` is what a second taker reads about us."""

    def __init__(self, ledger_path: Path, *, now: datetime, command: str) -> None:
        self.path = ledger_path.with_name(ledger_path.name + ".lock")
        self._note = {"pid": os.getpid(), "since": stamp(now), "command": command[:COMMAND_MAX]}
        self._fd = -1

    def __enter__(self) -> Self:
        """Take the lock; raise RunLocked when another process has it, LedgerError when there can be none."""
        fd = self._open()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            note = json.dumps(self._note | {"started": _started(os.getpid())})
            os.ftruncate(fd, 0)
            os.pwrite(fd, note.encode(), 0)
        except BlockingIOError as error:
            sentence = self._who_holds(fd)
            os.close(fd)
            raise RunLocked(sentence, hint="wait until it is done, then try again") from error
        except OSError as error:
            os.close(fd)
            raise LedgerError(f"{self.path} cannot be locked: {error.strerror}") from error
        self._fd = fd
        _watch_forks()
        _held.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            # An empty note says to whoever comes next that the last holder left in good order.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            self.forget()

    def forget(self) -> None:
        """Close our handle on the lock; it is free once every handle is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        _held.discard(self)

    def _open(self) -> int:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"{self.path} cannot be opened: {error.strerror}") from error
        why = why_untrusted(os.fstat(fd), str(self.path), owners=frozenset({os.geteuid()}), folder=False)
        if why:
            os.close(fd)
            raise LedgerError(why, hint="remove it, and see who may write in its folder")
        return fd

    def _who_holds(self, fd: int) -> str:
        """Name the holder, but only one that is alive and is the process that wrote the note."""
        for look in range(LOOKS):
            time.sleep(0.01 if look else 0)
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                note = json.loads(os.pread(fd, TEXT_MAX, 0))
                pid, since, command = int(note["pid"]), str(note["since"]), str(note["command"])
                if note["started"] and _started(pid) == note["started"]:
                    return f"another run is running since {since}, pid {pid}, command {command!r}"
        return f"another run holds {self.path} and has not said who it is"
