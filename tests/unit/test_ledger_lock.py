"""One writer at a time; the second is told who the first is, and only what is true."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from iam_bridge.errors import Exit, InvalidValue, LedgerError, RunLocked
from iam_bridge.ledger.lock import RunLock
from iam_bridge.ledger.times import moment, stamp
from tests.unit.build import NOW


def _lock(tmp_path: Path, command: str = "provision run") -> RunLock:
    return RunLock(tmp_path / "ledger.db", now=NOW, command=command)


def test_the_second_taker_reads_who_has_it(tmp_path: Path) -> None:
    with _lock(tmp_path, "map adopt --from people.csv"), pytest.raises(RunLocked) as caught:
        _lock(tmp_path).__enter__()
    text = str(caught.value)
    assert f"since 2026-05-03T12:00:00.000000Z, pid {os.getpid()}, command 'map adopt --from people.csv'" in text
    assert caught.value.exit_status is Exit.UNAVAILABLE


def test_it_can_be_taken_again_once_it_is_left(tmp_path: Path) -> None:
    for _ in range(3):
        with _lock(tmp_path):
            pass
    assert (tmp_path / "ledger.db.lock").read_bytes() == b""


def test_it_is_left_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), _lock(tmp_path):
        raise ZeroDivisionError
    with _lock(tmp_path):
        pass


def test_the_lock_file_is_ours_alone(tmp_path: Path) -> None:
    with _lock(tmp_path):
        assert (tmp_path / "ledger.db.lock").stat().st_mode & 0o777 == 0o600


def _in_child(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    return pid


def test_it_dies_with_its_process_and_the_stale_note_is_not_repeated(tmp_path: Path) -> None:
    ready, tell = os.pipe()

    def hold() -> None:
        _lock(tmp_path, "the killed one").__enter__()
        os.write(tell, b"x")
        time.sleep(60)

    pid = _in_child(hold)
    os.read(ready, 1)
    with pytest.raises(RunLocked, match=f"pid {pid}, command 'the killed one'"):
        _lock(tmp_path).__enter__()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert b"the killed one" in (tmp_path / "ledger.db.lock").read_bytes(), "the note is stale"
    with _lock(tmp_path, "the next one"), pytest.raises(RunLocked, match="the next one"):
        _lock(tmp_path).__enter__()


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"{",
        b"[]",
        b'{"pid": "x"}',
        b"[" * 5000,
        b"\xff\xfe",
        json.dumps({"pid": 2**22 + 1, "since": "s", "command": "c", "started": "1"}).encode(),
        json.dumps({"pid": os.getpid(), "since": "s", "command": "stale", "started": "1"}).encode(),
    ],
    ids=["empty", "torn", "a list", "wrong types", "deep", "no text", "a pid that is gone", "a pid that was reused"],
)
def test_a_note_that_is_not_the_holders_is_never_believed(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "ledger.db.lock"
    path.write_bytes(note)
    path.chmod(0o600)
    with path.open("r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunLocked) as caught:
            _lock(tmp_path).__enter__()
    assert "has not said who it is" in str(caught.value)
    assert "pid" not in str(caught.value)


def test_a_forked_child_that_outlives_us_does_not_keep_it(tmp_path: Path) -> None:
    ready, tell = os.pipe()
    done, finish = os.pipe()

    def outlive() -> None:
        os.close(finish)
        os.write(tell, b"x")
        os.read(done, 1)

    with _lock(tmp_path):
        pid = _in_child(outlive)
        os.read(ready, 1)
        with pytest.raises(RunLocked):
            _lock(tmp_path).__enter__()
    with _lock(tmp_path):
        pass
    os.close(finish)
    os.waitpid(pid, 0)


def test_a_lock_file_of_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db.lock"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(LedgerError, match="can be written by others"):
        _lock(tmp_path).__enter__()
    path.unlink()
    path.symlink_to(tmp_path / "target")
    with pytest.raises(LedgerError, match="cannot be opened"):
        _lock(tmp_path).__enter__()
    assert not (tmp_path / "target").exists()


def test_times_are_written_in_one_way_that_sorts() -> None:
    east = timezone(timedelta(hours=2))
    assert stamp(datetime(2026, 5, 3, 14, tzinfo=east)) == stamp(NOW) == "2026-05-03T12:00:00.000000Z"
    assert moment(stamp(NOW)) == NOW
    times = [NOW + timedelta(microseconds=n * 333_333) for n in range(9)]
    assert sorted(map(stamp, times)) == [stamp(time) for time in times]


@pytest.mark.parametrize(
    "text", ["", "2026-05-03", "2026-05-03T12:00:00.000000", "2026-13-03T12:00:00.000000Z", 7, None]
)
def test_what_is_no_recorded_time_is_refused(text: object) -> None:
    with pytest.raises(InvalidValue):
        moment(text)


def test_a_time_without_its_zone_is_refused() -> None:
    with pytest.raises(InvalidValue, match="zone"):
        stamp(datetime(2026, 5, 3, tzinfo=UTC).replace(tzinfo=None))
