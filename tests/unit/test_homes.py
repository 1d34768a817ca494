"""Homes: whole or not there, never through a link, never over somebody else's."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from iam_bridge.errors import StoreError
from iam_bridge.model.account import Account, UserName
from provisioner import homes as module
from provisioner.homes import make_homes
from provisioner.skel import read_skel
from tests.contract.interrupt import count_steps, failing_at, kill_at
from tests.contract.people import account, rules_for

ROOT = os.geteuid() == 0
UID = 20000 if ROOT else os.geteuid()


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o755)
    return tmp_path / "home"


@pytest.fixture
def skel(tmp_path: Path) -> Path:
    folder = tmp_path / "skel"
    (folder / ".config/app").mkdir(parents=True)
    (folder / ".profile").write_bytes(b"umask 077\n")
    (folder / ".config/app/tool").write_bytes(b"\x00\xff" * 5000)
    (folder / ".config/app/tool").chmod(0o6755)
    (folder / ".config/app").chmod(0o750)
    (folder / ".link").symlink_to("/etc/passwd")
    return folder


def person(homes: Path, name: str = "alice", **changes: object) -> Account:
    return account(name, UID, **{"home": f"{homes}/{name}", **changes})


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(folder))] = (status.st_uid, status.st_gid, mode, content)
    return found


def test_a_home_is_made_from_skel(homes: Path, skel: Path) -> None:
    report = make_homes([person(homes)], rules_for(homes, skel=skel, home_mode=0o711))
    gid = UID if ROOT else os.getegid()
    assert report.made == (UserName("alice"),)
    assert report.problems == report.remarks == ()
    assert listing(homes) == {
        "alice": (UID, gid, 0o711, b""),
        "alice/.config": (UID, gid, stat.S_IMODE((skel / ".config").stat().st_mode), b""),
        "alice/.config/app": (UID, gid, 0o750, b""),
        "alice/.config/app/tool": (UID, gid, 0o755, b"\x00\xff" * 5000),
        "alice/.link": (UID, gid, 0, "/etc/passwd"),
        "alice/.profile": (UID, gid, stat.S_IMODE((skel / ".profile").stat().st_mode), b"umask 077\n"),
    }
    assert os.stat("/etc/passwd").st_uid == 0


def test_modes_do_not_depend_on_the_umask(homes: Path, skel: Path) -> None:
    old = os.umask(0o077)
    try:
        make_homes([person(homes)], rules_for(homes, skel=skel))
    finally:
        os.umask(old)
    assert stat.S_IMODE((homes / "alice").stat().st_mode) == 0o700
    assert stat.S_IMODE((homes / "alice/.config/app/tool").stat().st_mode) == 0o755


def test_a_home_with_the_right_owner_is_kept_as_it_is(homes: Path, skel: Path) -> None:
    rules = rules_for(homes, skel=skel)
    make_homes([person(homes)], rules)
    (homes / "alice/work").write_text("precious")
    (homes / "alice/.profile").unlink()
    before = listing(homes)
    report = make_homes([person(homes)], rules)
    assert (report.made, report.kept) == ((), (UserName("alice"),))
    assert listing(homes) == before


@pytest.mark.skipif(not ROOT, reason="another's home needs root to be made")
def test_a_home_of_somebody_else_is_left_alone(homes: Path, skel: Path) -> None:
    (homes / "alice").mkdir()
    os.chown(homes / "alice", 4711, 4711)
    report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert report.problems == (f"alice: {homes}/alice belongs to uid 4711, not {UID}: left alone; move it away",)
    assert listing(homes)["alice"][0] == 4711
    assert list((homes / "alice").iterdir()) == []


@pytest.mark.parametrize("kind", ["link to a folder", "dangling link", "file"])
def test_what_is_no_directory_is_left_alone(homes: Path, skel: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "victim").mkdir()
    if kind == "file":
        (homes / "alice").write_text("x")
    else:
        (homes / "alice").symlink_to(tmp_path / ("victim" if kind == "link to a folder" else "none"))
    report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert "is no directory: left alone" in report.problems[0]
    assert list((tmp_path / "victim").iterdir()) == []


def test_one_problem_stops_nobody_else(homes: Path, skel: Path) -> None:
    (homes / "alice").write_text("x")
    report = make_homes([person(homes), person(homes, "bob")], rules_for(homes, skel=skel))
    assert report.made == (UserName("bob"),)
    assert len(report.problems) == 1


@pytest.mark.parametrize(("mode", "says"), [(0o777, "chmod go-w"), (0o1777, "chmod go-w"), (0o775, "chmod go-w")])
def test_a_parent_that_others_may_write_is_refused(homes: Path, skel: Path, mode: int, says: str) -> None:
    homes.chmod(mode)
    report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert says in report.problems[0]
    assert list(homes.iterdir()) == []


@pytest.mark.skipif(not ROOT, reason="needs a folder of somebody else")
def test_a_parent_of_somebody_else_is_refused(homes: Path, skel: Path) -> None:
    os.chown(homes, 4711, 4711)
    report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert report.problems == (f"alice: the folder {homes} belongs to uid 4711: chown it to root",)


def test_a_missing_parent_is_told(homes: Path, skel: Path) -> None:
    report = make_homes([person(homes / "none")], rules_for(homes, skel=skel))
    assert "none cannot be opened (No such file or directory): create it" in report.problems[0]


@pytest.mark.parametrize(
    "home", ["home/alice", "/", "/{homes}/alice", "{homes}/../alice", "{homes}/alice/", "{homes}/h\n/alice", ""]
)
def test_a_home_that_is_no_plain_path_is_a_problem(homes: Path, home: str) -> None:
    report = make_homes([person(homes, home=home.format(homes=homes))], rules_for(homes))
    assert "is no path for a home" in report.problems[0]
    assert "\n" not in report.problems[0]


def test_an_adopted_account_gets_no_home_from_us(homes: Path) -> None:
    report = make_homes([person(homes, adopted=True)], rules_for(homes))
    assert (report.made, report.kept, report.problems) == ((), (), ())
    assert list(homes.iterdir()) == []


def test_without_root_only_our_own_home_can_be_made(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.lstat(homes).st_uid or 65533)
    monkeypatch.setattr(module, "_open_parent", lambda path: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    report = make_homes([person(homes, gid=1)] if not ROOT else [person(homes)], rules_for(homes))
    if ROOT:
        assert report.problems == (f"alice: {homes}/alice cannot be given to uid {UID}: run as root",)
    else:
        assert report.made == (UserName("alice"),)


def test_nothing_in_place_is_ever_replaced(homes: Path, skel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes the folder between our look and our rename."""
    real = module.lay_out

    def lay_out(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        (homes / "alice").mkdir()

    monkeypatch.setattr(module, "lay_out", lay_out)
    report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert report.problems == (f"alice: {homes}/alice cannot be made: File exists",)
    assert sorted(os.listdir(homes)) == ["alice"]
    assert os.listdir(homes / "alice") == []


def test_a_file_system_without_the_flag_is_served(homes: Path, skel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoFlag:
        @staticmethod
        def renameat2(*_: object) -> int:
            module.ctypes.set_errno(errno.EINVAL)
            return -1

    monkeypatch.setattr(module, "_LIBC", NoFlag)
    assert make_homes([person(homes)], rules_for(homes, skel=skel)).made == (UserName("alice"),)
    assert (homes / "alice/.profile").exists()


def test_after_a_kill_at_any_step_the_next_run_makes_the_same_home(tmp_path: Path, skel: Path) -> None:
    def fresh(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    done = fresh("done")
    work = count_steps(lambda: make_homes([person(done)], rules_for(done, skel=skel)))
    assert work > 15
    for step in range(1, work + 1):
        homes = fresh(f"homes{step}")
        kill_at(step, lambda homes=homes: make_homes([person(homes)], rules_for(homes, skel=skel)))  # type: ignore[misc]
        assert not (homes / "alice").exists() or listing(homes) == listing(done)
        report = make_homes([person(homes)], rules_for(homes, skel=skel))
        assert report.problems == ()
        assert listing(homes) == listing(done)


def test_a_full_disk_leaves_no_half_home(homes: Path, skel: Path) -> None:
    for number in range(1, 3):
        with failing_at(number, errno.ENOSPC, only=("write",)):
            report = make_homes([person(homes)], rules_for(homes, skel=skel))
        assert report.problems == (f"alice: {homes}/alice cannot be made: No space left on device",)
        assert list(homes.iterdir()) == []


def test_only_our_own_leftovers_are_removed(homes: Path) -> None:
    for name in (".iam-bridge-20001.tmp", ".iam-bridge-x.tmp", ".iam-bridge-1", "keep.tmp"):
        (homes / name).mkdir()
        (homes / name / "file").touch()
    make_homes([person(homes)], rules_for(homes))
    assert sorted(os.listdir(homes)) == [".iam-bridge-1", ".iam-bridge-x.tmp", "alice", "keep.tmp"]


# -- skel


def test_special_files_of_skel_are_left_out_with_a_remark(homes: Path, skel: Path) -> None:
    os.mkfifo(skel / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(skel / "socket"))
        report = make_homes([person(homes)], rules_for(homes, skel=skel))
    assert report.remarks == tuple(f"{skel}/{name} is no regular file and was left out" for name in ("pipe", "socket"))
    assert not (homes / "alice/pipe").exists()
    assert (homes / "alice/.profile").exists()


def test_no_skel_makes_an_empty_home(homes: Path) -> None:
    assert make_homes([person(homes)], rules_for(homes)).made
    assert list((homes / "alice").iterdir()) == []


def test_a_missing_skel_is_told(homes: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*/none: No such file or directory; correct accounts.skel"):
        make_homes([person(homes)], rules_for(homes, skel=homes / "none"))


def test_a_skel_that_is_too_large_is_told(skel: Path) -> None:
    with (skel / "big").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(StoreError, match="more than 1000 entries or 16 MiB"):
        read_skel(skel)


def test_a_skel_with_too_many_entries_is_told(skel: Path) -> None:
    for number in range(1001):
        (skel / str(number)).touch()
    with pytest.raises(StoreError, match="more than 1000 entries or 16 MiB"):
        read_skel(skel)


def test_nobody_to_house_reads_no_skel(homes: Path) -> None:
    assert make_homes([], rules_for(homes, skel=homes / "none")).made == ()
