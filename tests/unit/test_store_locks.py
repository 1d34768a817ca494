"""The locks that shadow-utils honour, against processes that really hold them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iam_bridge.errors import StoreError
from tests.contract.harness import FilesHarness
from tests.contract.people import account, wanted

HOLD_PWD_LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
fcntl.lockf(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def harness(tmp_path: Path) -> FilesHarness:
    (tmp_path / "etc").mkdir()
    made = FilesHarness(tmp_path / "etc", "etc")
    made.seed()
    return made


@contextmanager
def process(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that says that it is ready, then waits until its input ends."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        running.stdout.readline()
        yield running
        running.stdin.close()


def dead_pid() -> int:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    return ended.pid


def check_refused(harness: FilesHarness, *says: str) -> None:
    before = harness.contents()
    with pytest.raises(StoreError) as caught:
        harness.store().converge(wanted(account()))
    assert all(text in str(caught.value) for text in says), str(caught.value)
    assert "nothing was changed" in str(caught.value)
    assert harness.contents() == before


def test_lckpwdf_held_by_another_process_is_waited_for_and_named(harness: FilesHarness) -> None:
    harness.path(".pwd.lock").touch()
    with process(sys.executable, "-c", HOLD_PWD_LOCK, str(harness.path(".pwd.lock"))) as holder:
        check_refused(harness, f".pwd.lock is held by process {holder.pid} (python", "waited 0.2 s", "run again")
    assert harness.store().converge(wanted(account())).written


def test_passwd_lock_of_a_live_process_is_waited_for_and_named(harness: FilesHarness) -> None:
    with process("/bin/sh", "-c", "echo; exec cat") as holder:
        harness.path("passwd.lock").write_bytes(b"%d\0" % holder.pid)
        check_refused(harness, "passwd.lock is held by process", str(holder.pid))
    assert harness.store().converge(wanted(account())).written


def test_a_lock_that_is_released_in_time_is_no_trouble(harness: FilesHarness) -> None:
    harness.path(".pwd.lock").touch()
    with process(sys.executable, "-c", HOLD_PWD_LOCK, str(harness.path(".pwd.lock"))) as holder:
        freeing = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill {holder.pid}"])
        report = harness.store(lock_timeout_s=20).converge(wanted(account()))
        freeing.wait()
    assert "alice" in report.written


@pytest.mark.parametrize("content", [b"", b"\0", b"soon", b"-1", b"99999999999999"], ids=repr)
def test_a_lock_without_a_pid_counts_as_held(harness: FilesHarness, content: bytes) -> None:
    harness.path("shadow.lock").write_bytes(content)
    check_refused(harness, "shadow.lock is held by a process that it does not name")


def test_the_lock_of_a_dead_process_is_taken_over(harness: FilesHarness) -> None:
    harness.path("group.lock").write_bytes(b"%d" % dead_pid())
    assert harness.store().converge(wanted(account())).written
    assert not harness.path("group.lock").exists()


def test_a_lock_with_our_own_number_is_from_an_earlier_life(harness: FilesHarness) -> None:
    harness.path("group.lock").write_bytes(b"%d" % os.getpid())
    assert harness.store().converge(wanted(account())).written
    assert not harness.path("group.lock").exists()


def test_a_lock_of_a_dead_process_is_removed_by_a_run_with_nothing_to_do(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account()))
    harness.path("passwd.lock").write_bytes(b"%d" % dead_pid())
    assert harness.store().converge(wanted(account())).written == ()
    assert not harness.path("passwd.lock").exists()


def test_the_lock_of_a_live_process_does_not_hold_up_a_run_with_nothing_to_do(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account()))
    with process("/bin/sh", "-c", "echo; exec cat") as holder:
        harness.path("passwd.lock").write_bytes(b"%d\0" % holder.pid)
        assert harness.store().converge(wanted(account())).written == ()


def test_a_lock_that_is_a_link_is_refused(harness: FilesHarness, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    harness.path(".pwd.lock").symlink_to(tmp_path / "victim")
    check_refused(harness, "symbolic link")
    assert (tmp_path / "victim").read_text() == "precious"


def test_subids_elsewhere_are_locked_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from provisioner.stores.disk import Place, open_places
    from provisioner.stores.locks import hold_locks
    from tests.contract.people import rules_for

    for name in ("extra", "etc"):
        (tmp_path / name).mkdir()
    with open_places(rules_for(tmp_path / "extra", layout="extrausers", subids=tmp_path / "etc")) as places:
        assert [place.files for place in places] == [("group", "shadow", "passwd"), ("subuid", "subgid")]
        assert all(isinstance(place, Place) for place in places)
        with hold_locks(places, 1.0):
            held = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.lock")}
    assert held == {
        "extra/.pwd.lock", "extra/group.lock", "extra/shadow.lock", "extra/passwd.lock",
        "etc/.pwd.lock", "etc/subuid.lock", "etc/subgid.lock",
    }  # fmt: skip
    assert {path.name for path in tmp_path.glob("*/*.lock")} == {".pwd.lock"}
