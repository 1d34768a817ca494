"""Which processes belong to an account, as /proc tells it (proc(5)); read only.

*Theirs* is what runs with their real uid, or what an ordinary user runs inside their login (audit login uid) or by
their effective or saved uid. *Attached* is the same for root and the system's users: sshd's monitor of a session, a
daemon that acts for them for a moment, a service that they restarted by sudo. Those are never ours to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

FIRST_ORDINARY_UID = 1000
TICKS_PER_S = 100  # USER_HZ, what proc(5) counts in on every architecture of Linux that we know
_UNSET = 0xFFFFFFFF  # (uid_t) -1: no login uid
_START_FIELD = 19  # field 22 of stat, counted from field 3, the first behind "(name) "

Belonging = Literal["theirs", "attached"]


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from a later one of the same number by its start time in ticks."""

    pid: int
    parent: int
    session: int
    start: int
    command: str
    uids: tuple[int, int, int]
    """Real, effective and saved."""
    login_uid: int | None

    def belongs_to(self, uid: int) -> Belonging | None:
        """Tell whether the process is theirs, attached to them, or neither."""
        real = self.uids[0]
        if real == uid:
            return "theirs"
        if uid not in self.uids and self.login_uid != uid:
            return None
        return "theirs" if real >= FIRST_ORDINARY_UID else "attached"


def _clean(name: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in name)


def _read_login_uid(folder: Path) -> int | None:
    try:
        login_uid = int((folder / "loginuid").read_bytes())
    except (OSError, ValueError):
        return None
    return None if login_uid == _UNSET else login_uid


def read_process(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """Read one process; None where it is gone, or dead and only waited for."""
    folder = proc / str(pid)
    try:
        head, _, tail = (folder / "stat").read_bytes().rpartition(b") ")
        status = (folder / "status").read_bytes()
    except OSError:
        return None
    fields = tail.split()
    rows = [row.split()[1:4] for row in status.split(b"\n") if row.startswith(b"Uid:")]
    if len(fields) <= _START_FIELD or not rows or len(rows[0]) != 3 or fields[0] in (b"Z", b"X"):
        return None
    real, effective, saved = (int(word) for word in rows[0])
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        start=int(fields[_START_FIELD]),
        command=_clean(head.partition(b"(")[2]),
        uids=(real, effective, saved),
        login_uid=_read_login_uid(folder),
    )


def read_processes(uid: int, proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """List what is theirs or attached to them, by process number."""
    numbers = sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())
    processes = (read_process(pid, proc) for pid in numbers)
    return tuple(process for process in processes if process is not None and process.belongs_to(uid))


def ancestors_of(pid: int, proc: Path = Path("/proc")) -> Iterator[Process]:
    """Go from a process up to the first, itself included, and to the leader of its session."""
    seen: set[int] = set()
    process = read_process(pid, proc)
    leader = read_process(process.session, proc) if process else None
    if leader is not None:
        yield leader
    while process is not None and process.pid not in seen:
        yield process
        seen.add(process.pid)
        process = read_process(process.parent, proc)


def boot_time(proc: Path = Path("/proc")) -> datetime | None:
    """Give the time of the boot, from which start times count; None where it is not told."""
    try:
        rows = (proc / "stat").read_bytes().split(b"\n")
        (seconds,) = (int(row.split()[1]) for row in rows if row.startswith(b"btime "))
    except (OSError, ValueError, IndexError):
        return None
    return datetime.fromtimestamp(seconds, UTC)


def started_at(process: Process, booted: datetime | None) -> datetime | None:
    """Give the time when a process started."""
    return booted + timedelta(seconds=process.start / TICKS_PER_S) if booted else None
