"""End every session and process of an account, and say what was ended and what is left.

logind ends its sessions where it runs; whatever is left then, or where there is no logind, gets SIGHUP and SIGTERM, a
short grace, and SIGKILL until nothing is found. A process is signalled by a pidfd and looked at again behind it, so
that a number that was given anew meanwhile is never hit. What root runs for them (sshd's monitor) is waited for and
reported, never signalled. Files that could start something later are reported and stay.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from iam_bridge.errors import InvalidValue, RefusedByGuard
from provisioner.processes import (
    FIRST_ORDINARY_UID,
    Process,
    ancestors_of,
    boot_time,
    read_process,
    read_processes,
    started_at,
)

GRACE_S = 0.5
KILL_ROUNDS = 40
PAUSE_S = 0.02
LOGINCTL_TIMEOUT_S = 5.0
_CRONTABS = ("var/spool/cron/crontabs", "var/spool/cron")  # Debian, EL
_AT_JOBS = ("var/spool/cron/atjobs", "var/spool/at")


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """One process of the account.

    `ended` is what was last done to it: loginctl, SIGTERM (with SIGHUP), SIGKILL, or "itself"; "" where it still runs.
    `belonging` is theirs or attached, as in `processes`.
    """

    pid: int
    command: str
    started_at: datetime | None
    ended: str
    belonging: str


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What was found and ended; `later` are files that could start something again, `problems` what went wrong."""

    uid: int
    name: str
    dry_run: bool
    processes: tuple[ProcessEnd, ...]
    later: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def left(self) -> tuple[ProcessEnd, ...]:
        """Give what still runs."""
        return tuple(process for process in self.processes if not process.ended)

    @property
    def ended(self) -> tuple[ProcessEnd, ...]:
        """Give what no longer runs."""
        return tuple(process for process in self.processes if process.ended)


@dataclass(frozen=True, slots=True)
class Host:
    """Where to look and what to call; all of it can be a scratch folder."""

    proc: Path = Path("/proc")
    root: Path = Path("/")
    loginctl: str | None = None
    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def find_loginctl(root: Path = Path("/")) -> str | None:
    """Give the path of loginctl where systemd runs this host (sd_booted(3)), else None."""
    return shutil.which("loginctl") if (root / "run/systemd/system").is_dir() else None


def _other_holder(uid: int, name: str) -> str:
    """Give the account that the host has under a uid instead of `name`; an empty text where it is that one or none."""
    with suppress(KeyError):
        if pwd.getpwnam(name).pw_uid == uid:
            return ""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return ""


def check_end(uid: int, name: str, *, adopted: bool, proc: Path = Path("/proc")) -> None:
    """Refuse what must never be ended: root, the system's users, somebody else's, and the session that this runs in.

    Raises RefusedByGuard, InvalidValue for a name that is no file name.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidValue(f"{name!r} is no account name")
    if uid <= 0 or uid >= 0xFFFFFFFF:
        raise RefusedByGuard(f"the processes of uid {uid} are never ended")
    if uid < FIRST_ORDINARY_UID and not adopted:
        raise RefusedByGuard(
            f"uid {uid} ({name}) is below {FIRST_ORDINARY_UID} and not adopted, so its processes are not ended"
        )
    if other := _other_holder(uid, name):
        raise RefusedByGuard(
            f"uid {uid} is {other} on this host, not {name}, so its processes are not ended",
            hint="run: iam-bridge map audit",
        )
    if uid in os.getresuid():
        raise RefusedByGuard(f"this command itself runs as {name}", hint="run it as root from another account")
    for process in ancestors_of(os.getpid(), proc):
        if process.belongs_to(uid):
            raise RefusedByGuard(
                f"this command runs inside a session of {name} (process {process.pid}, {process.command})",
                hint="run it from another account's session",
            )


def _send(process: Process, number: signal.Signals, proc: Path) -> str:
    """Signal exactly this process; give "" or why it was not possible."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"process {process.pid} cannot be held: {error.strerror}"
    try:
        # The descriptor holds whoever has the number now; only the same start time makes it the one that was found.
        now = read_process(process.pid, proc)
        if now is not None and now.start == process.start:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    except OSError as error:
        return f"process {process.pid} ({process.command}) cannot be signalled: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def _kill_all_at_once(uid: int) -> list[str]:
    """Kill all that has this uid in one step of the kernel, which no fork outruns (kill(2), pid -1); give problems."""
    try:
        # Its status says nothing: kill fails where nothing is left to kill, and the next look tells the rest.
        subprocess.run(
            ["/bin/sh", "-c", "kill -KILL -1"],
            user=uid,
            group=uid,
            extra_groups=(),
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOGINCTL_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [f"processes that fork cannot be killed at once: {error}"]
    return []


class _Ending:
    """One run: who was seen, and what was last done to them."""

    def __init__(self, uid: int, host: Host) -> None:
        self.uid = uid
        self.host = host
        self.seen: dict[tuple[int, int], Process] = {}
        self.done_to: dict[tuple[int, int], str] = {}
        self.problems: list[str] = []

    def look(self) -> tuple[Process, ...]:
        """Find what runs now, and remember it."""
        found = read_processes(self.uid, self.host.proc)
        self.seen.update({(process.pid, process.start): process for process in found})
        return found

    def theirs(self) -> tuple[Process, ...]:
        """Find what runs now and is to be ended."""
        return tuple(process for process in self.look() if process.belongs_to(self.uid) == "theirs")

    def mark(self, processes: Iterable[Process], how: str) -> None:
        """Note what was done to processes."""
        self.done_to.update({(process.pid, process.start): how for process in processes})

    def signal(self, processes: Iterable[Process], *numbers: signal.Signals) -> None:
        """Send signals to processes, and note the last."""
        for process in processes:
            problem = ""
            for number in numbers:
                problem = problem or _send(process, number, self.host.proc)
            if problem:
                self.problems.append(problem)
            else:
                self.mark([process], numbers[-1].name)

    def wait(self, seconds: float, find: Callable[[], tuple[Process, ...]]) -> tuple[Process, ...]:
        """Look until nothing is found or the time is over; give what was found last."""
        deadline = self.host.monotonic() + seconds
        while (found := find()) and self.host.monotonic() < deadline:
            self.host.pause(PAUSE_S)
        return found


def _end_by_logind(loginctl: str, ending: _Ending) -> None:
    before = ending.theirs()
    # Lingering first: a manager that lingers would be started again.
    for verb in ("disable-linger", "terminate-user"):
        command = [loginctl, "--no-ask-password", verb, str(ending.uid)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LOGINCTL_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            ending.problems.append(f"loginctl {verb} failed: {type(error).__name__}")
            continue
        # It fails for somebody who is not logged in, which is what is wanted.
        if done.returncode != 0 and before and verb == "terminate-user":
            ending.problems.append(f"loginctl {verb} ended with status {done.returncode}")
    ending.mark(before, "loginctl")


def _end_by_signals(ending: _Ending, grace_s: float) -> None:
    # An interactive shell ignores SIGTERM and takes SIGHUP; a stopped process takes neither before SIGCONT.
    ending.signal(ending.theirs(), signal.SIGHUP, signal.SIGTERM)
    left = ending.wait(grace_s, ending.theirs)
    for _ in range(KILL_ROUNDS):
        known = len(ending.problems)
        ending.signal(left, signal.SIGKILL)
        # Also where nothing was found: a process that forks and ends again and again is gone before it is looked at.
        if ending.uid >= FIRST_ORDINARY_UID and os.geteuid() == 0:
            ending.problems += _kill_all_at_once(ending.uid)
        left = ending.wait(PAUSE_S, ending.theirs)
        if not left or len(ending.problems) > known:  # what was not permitted once is not permitted the next time
            return


def find_later(uid: int, name: str, root: Path = Path("/")) -> tuple[str, ...]:
    """List files that could start something for the account later: crontab, at jobs, lingering."""
    found: list[str] = []
    for place in (*_CRONTABS, "var/lib/systemd/linger"):
        file = root / place / name
        with suppress(OSError):
            if file.is_file():
                found.append(str(file))
    for place in _AT_JOBS:
        with suppress(OSError):
            jobs = sorted((root / place).iterdir())
            found += [str(job) for job in jobs if job.is_file() and job.lstat().st_uid == uid]
    return tuple(found)


def _report(name: str, ending: _Ending, later: tuple[str, ...], *, dry_run: bool) -> SessionReport:
    running = {(process.pid, process.start) for process in ending.look()}
    booted = boot_time(ending.host.proc)
    processes = [
        ProcessEnd(
            pid=process.pid,
            command=process.command,
            started_at=started_at(process, booted),
            ended="" if key in running else ending.done_to.get(key, "itself"),
            belonging=process.belongs_to(ending.uid) or "",
        )
        for key, process in sorted(ending.seen.items())
    ]
    problems = tuple(dict.fromkeys(ending.problems))
    return SessionReport(ending.uid, name, dry_run, tuple(processes), later, problems)


def end_sessions(
    uid: int,
    name: str,
    *,
    adopted: bool = False,
    dry_run: bool = False,
    grace_s: float = GRACE_S,
    host: Host | None = None,
) -> SessionReport:
    """End all that runs for an account, within about a second; with `dry_run` only list it.

    `adopted` allows a uid below 1000. Raises RefusedByGuard for what must never be ended, see `check_end`; whatever
    else stands in the way is in the report, as are the processes that are left.
    """
    host = host or Host(loginctl=find_loginctl())
    check_end(uid, name, adopted=adopted, proc=host.proc)
    ending = _Ending(uid, host)
    later = find_later(uid, name, host.root)
    ending.look()
    if not dry_run:
        if host.loginctl:
            _end_by_logind(host.loginctl, ending)
            ending.wait(grace_s, ending.theirs)
        _end_by_signals(ending, grace_s)
        ending.wait(grace_s, ending.look)  # sshd's monitor ends by itself once its session is gone
    return _report(name, ending, later, dry_run=dry_run)
