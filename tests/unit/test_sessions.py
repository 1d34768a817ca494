"""Whose a process is, what is never ended, and (as root) that everything of an account ends."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from iam_bridge.errors import InvalidValue, RefusedByGuard
from provisioner import sessions
from provisioner.processes import read_process, read_processes
from provisioner.sessions import Host, end_sessions, find_later

UID = 47123


def put_process(
    proc: Path,
    pid: int,
    uids: str = f"{UID} {UID} {UID} {UID}",
    *,
    login_uid: str | None = None,
    name: str = "sleep",
    state: str = "S",
    parent: int = 1,
    start: int = 500,
) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = [state, str(parent), "1", str(pid), *["0"] * 15, str(start), "0"]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    (folder / "status").write_text(f"Name:\tx\nUid:\t{uids}\nGid:\t1\t1\t1\t1\n")
    if login_uid is not None:
        (folder / "loginuid").write_text(login_uid)


WHOSE = {
    "their own": (f"{UID} {UID} {UID} {UID}", None, "theirs"),
    "a set-uid program of theirs": (f"{UID} 0 0 0", None, "theirs"),
    "another person's shell inside their login": ("47124 47124 47124 47124", str(UID), "theirs"),
    "a program of another person that runs as them": (f"47124 {UID} {UID} {UID}", None, "theirs"),
    "sshd's monitor of their session": ("0 0 0 0", str(UID), "attached"),
    "a service that they restarted by sudo": ("106 106 106 106", str(UID), "attached"),
    "root acting for them a moment": (f"0 {UID} 0 {UID}", None, "attached"),
    "another person's": ("47124 47124 47124 47124", "47124", None),
    "root's own": ("0 0 0 0", "4294967295", None),
    "one without a login uid": ("0 0 0 0", "garbage", None),
}


@pytest.mark.parametrize(("uids", "login_uid", "whose"), WHOSE.values(), ids=WHOSE.keys())
def test_whose_a_process_is(tmp_path: Path, uids: str, login_uid: str | None, whose: str | None) -> None:
    put_process(tmp_path, 7, uids, login_uid=login_uid)
    process = read_process(7, tmp_path)
    assert process is not None
    assert process.belongs_to(UID) == whose
    assert [found.pid for found in read_processes(UID, tmp_path)] == ([7] if whose else [])


@pytest.mark.parametrize("name", ["a) S 1 1 (b", "a b", ") ) )"])
def test_a_hostile_process_name_moves_no_field(tmp_path: Path, name: str) -> None:
    put_process(tmp_path, 7, name=name, parent=42, start=99)
    process = read_process(7, tmp_path)
    assert process is not None
    assert (process.command, process.parent, process.start) == (name, 42, 99)


def test_a_process_name_is_shown_without_control_bytes(tmp_path: Path) -> None:
    put_process(tmp_path, 7, name="x\x1b[2Jé\n")
    process = read_process(7, tmp_path)
    assert process is not None
    assert process.command == "x?[2J???"


@pytest.mark.parametrize("state", ["Z", "X"])
def test_what_is_dead_and_only_waited_for_does_not_count(tmp_path: Path, state: str) -> None:
    put_process(tmp_path, 7, state=state)
    assert read_processes(UID, tmp_path) == ()


@pytest.mark.parametrize("text", ["", "7 (x", "7 (x) S 1"])
def test_a_process_that_vanishes_while_it_is_read_is_none(tmp_path: Path, text: str) -> None:
    put_process(tmp_path, 7)
    (tmp_path / "7/stat").write_text(text)
    assert read_process(7, tmp_path) is None


def test_a_dry_run_lists_with_start_times_and_ends_nothing(tmp_path: Path) -> None:
    put_process(tmp_path / "proc", 7, start=1000)
    put_process(tmp_path / "proc", 8, "0 0 0 0", login_uid=str(UID), name="sshd")
    (tmp_path / "proc/stat").write_text("cpu 1 2\nbtime 1700000000\n")
    report = end_sessions(UID, "tess", dry_run=True, host=Host(tmp_path / "proc", tmp_path))
    assert [(p.pid, p.command, p.ended, p.belonging) for p in report.processes] == [
        (7, "sleep", "", "theirs"),
        (8, "sshd", "", "attached"),
    ]
    started = report.processes[0].started_at
    assert started is not None
    assert started.timestamp() == 1_700_000_010
    assert report.left == report.processes
    assert report.dry_run


@pytest.mark.parametrize("uid", [0, -1, 0xFFFFFFFF, 1, 106, 999])
def test_root_and_the_systems_users_are_refused(tmp_path: Path, uid: int) -> None:
    with pytest.raises(RefusedByGuard, match="ended"):
        end_sessions(uid, "x", host=Host(tmp_path, tmp_path))


def test_an_adopted_uid_below_1000_is_taken_and_root_never(tmp_path: Path) -> None:
    assert end_sessions(999, "tess", adopted=True, dry_run=True, host=Host(tmp_path, tmp_path)).processes == ()
    with pytest.raises(RefusedByGuard, match="uid 0 are never ended"):
        end_sessions(0, "root", adopted=True, host=Host(tmp_path, tmp_path))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc", "a\0b"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidValue, match="no account name"):
        end_sessions(UID, name, host=Host(tmp_path, tmp_path))


def test_the_account_that_this_runs_as_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getresuid", lambda: (0, UID, 0))
    with pytest.raises(RefusedByGuard, match="this command itself runs as tess"):
        end_sessions(UID, "tess", host=Host(tmp_path, tmp_path))


def test_a_uid_that_the_host_gives_to_somebody_else_is_refused(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    with pytest.raises(RefusedByGuard, match=f"uid {nobody} is nobody on this host, not ada"):
        end_sessions(nobody, "ada", host=Host(proc=tmp_path))
    if os.geteuid() != nobody:
        assert end_sessions(nobody, "nobody", dry_run=True, host=Host(proc=tmp_path)).processes == ()


@pytest.mark.parametrize("uids", [f"{UID} {UID} {UID} {UID}", "0 0 0 0"], ids=["their shell", "root by sudo"])
def test_a_session_that_this_runs_in_is_refused(tmp_path: Path, uids: str) -> None:
    put_process(tmp_path, os.getpid(), "0 0 0 0", parent=77)
    put_process(tmp_path, 77, "0 0 0 0", parent=78, name="sudo")
    put_process(tmp_path, 78, uids, login_uid=str(UID), parent=78, name="bash")
    with pytest.raises(RefusedByGuard, match=r"inside a session of tess \(process 78, bash\)"):
        end_sessions(UID, "tess", host=Host(tmp_path, tmp_path))


def test_what_could_start_something_later_is_listed_and_stays(tmp_path: Path) -> None:
    for path in ("var/spool/cron/crontabs/tess", "var/spool/cron/crontabs/toni", "var/lib/systemd/linger/tess"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "var/spool/cron/atjobs").mkdir()
    (tmp_path / "var/spool/cron/atjobs/a0001").touch()
    found = find_later(os.getuid(), "tess", tmp_path)
    assert [path.removeprefix(str(tmp_path)) for path in found] == [
        "/var/spool/cron/crontabs/tess",
        "/var/lib/systemd/linger/tess",
        "/var/spool/cron/atjobs/a0001",
    ]
    assert find_later(os.getuid() + 1, "nobodyhere", tmp_path) == ()
    assert all(Path(path).exists() for path in found)


def fake_loginctl(folder: Path, body: str) -> str:
    program = folder / "loginctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{body}\n')
    program.chmod(0o755)
    return str(program)


def test_logind_is_asked_to_stop_lingering_before_it_ends_the_user(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    end_sessions(UID, "tess", host=Host(tmp_path / "proc", tmp_path, fake_loginctl(tmp_path, "exit 1")))
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == [f"--no-ask-password disable-linger {UID}", f"--no-ask-password terminate-user {UID}"]


def test_a_host_without_systemd_has_no_loginctl(tmp_path: Path) -> None:
    assert sessions.find_loginctl(tmp_path) is None


@contextmanager
def running(program: str, uid: int = UID) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program as the uid; it says a line when it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        user=uid,
        group=uid,
        extra_groups=[],
        cwd="/",
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"in\n"
            yield process
        finally:
            process.kill()


SAY = "import os, signal, sys, time; print('in', flush=True);"
SLEEPS = SAY + "time.sleep(100)"
IGNORES = (
    "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGHUP)];"
    + SAY
    + "time.sleep(100)"
)
STOPPED = SAY + "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(100)"
FORKS = (  # each child replaces its parent, so that none lives long enough to be found by looking
    "import os, signal\n[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGHUP)]\n"
    "print('in', flush=True)\nfor _ in range(6000):\n    if os.fork(): os._exit(0)\n"
)


def status_of(process: subprocess.Popen[bytes]) -> int:
    return process.wait(5)


@pytest.mark.root
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
class TestAsRoot:
    """Real processes of a scratch uid."""

    def test_a_process_that_sleeps_ends_by_the_polite_signal(self) -> None:
        with running(SLEEPS) as process:
            report = end_sessions(UID, "tess", host=Host())
            assert status_of(process) == -signal.SIGHUP
        (ended,) = report.processes
        assert (ended.pid, ended.ended, report.left, report.problems) == (process.pid, "SIGTERM", (), ())
        assert ended.started_at is not None
        assert abs(ended.started_at.timestamp() - time.time()) < 30

    def test_a_process_that_ignores_it_is_killed_after_the_grace(self) -> None:
        with running(IGNORES) as process:
            before = time.monotonic()
            report = end_sessions(UID, "tess", host=Host())
            assert time.monotonic() - before < 1.5
            assert status_of(process) == -signal.SIGKILL
        assert [(p.pid, p.ended) for p in report.processes] == [(process.pid, "SIGKILL")]

    def test_a_stopped_process_is_ended_too(self) -> None:
        with running(STOPPED) as process:
            assert end_sessions(UID, "tess", host=Host()).left == ()
            assert status_of(process) in (-signal.SIGKILL, -signal.SIGHUP)

    def test_a_process_that_forks_faster_than_one_can_look_is_ended(self) -> None:
        with running(FORKS) as process:
            before = time.monotonic()
            report = end_sessions(UID, "tess", host=Host())
            assert process.stdout is not None
            assert process.stdout.read() == b""  # the pipe ends when the last of them is gone
            assert time.monotonic() - before < 1.5
        assert (report.left, report.problems) == ((), ())

    def test_other_peoples_processes_are_not_touched(self) -> None:
        with running(SLEEPS, UID + 1) as other, running(SLEEPS) as process:
            report = end_sessions(UID, "tess", host=Host())
            assert [p.pid for p in report.processes] == [process.pid]
            assert other.poll() is None

    def test_a_dry_run_ends_nothing(self) -> None:
        with running(SLEEPS) as process:
            report = end_sessions(UID, "tess", dry_run=True, host=Host())
            assert [p.pid for p in report.left] == [process.pid]
            assert process.poll() is None

    def test_with_nothing_to_end_it_is_done_at_once(self) -> None:
        before = time.monotonic()
        assert end_sessions(UID, "tess", host=Host()).processes == ()
        assert time.monotonic() - before < 0.5

    def test_a_number_that_was_given_anew_is_not_hit(self) -> None:
        with running(SLEEPS) as process:
            found = read_process(process.pid)
            assert found is not None
            earlier = type(found)(
                found.pid, found.parent, found.session, found.start - 1, *(found.command, found.uids, found.login_uid)
            )
            assert sessions._send(earlier, signal.SIGKILL, Path("/proc")) == ""
            assert process.poll() is None

    def test_what_logind_ended_is_told_apart(self, tmp_path: Path) -> None:
        with running(SLEEPS) as process:
            loginctl = fake_loginctl(tmp_path, f'[ "$2" != terminate-user ] || kill -KILL {process.pid}')
            report = end_sessions(UID, "tess", host=Host(loginctl=loginctl))
            assert status_of(process) == -signal.SIGKILL
        assert [(p.pid, p.ended) for p in report.processes] == [(process.pid, "loginctl")]

    def test_where_logind_fails_signals_do_it_and_the_report_says_so(self, tmp_path: Path) -> None:
        with running(SLEEPS):
            report = end_sessions(UID, "tess", host=Host(loginctl=fake_loginctl(tmp_path, "exit 3")))
        assert report.left == ()
        assert report.problems == ("loginctl terminate-user ended with status 3",)

    def test_without_root_it_reports_what_it_may_not_end(self) -> None:
        with running(SLEEPS) as process:
            program = (
                "from provisioner.sessions import *; r = end_sessions(47123, 'tess', host=Host());"
                "print([p.pid for p in r.left], r.problems)"
            )
            done = subprocess.run(
                [sys.executable, "-c", program],
                user=UID + 1,
                group=UID + 1,
                extra_groups=[],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
            if "Permission denied" in done.stderr or "No module named" in done.stderr:
                pytest.skip("the package is not readable for another user here")
            assert process.poll() is None
        assert done.stdout.startswith(f"[{process.pid}]"), done.stderr
        assert "cannot be signalled: Operation not permitted" in done.stdout


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    yield
    if os.getuid() == 0:
        for process in read_processes(UID):
            if process.uids[0] == UID:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
