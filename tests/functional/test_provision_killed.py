"""Runs that die: at every step on the disk, with a disk that is full, and with a ledger from last week."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from iam_bridge.cli import main
from tests.contract.interrupt import WRITES, count_steps, kill_at
from tests.functional.site import FIRST, IS_ROOT, STORE_FILES, Scratch

pytestmark = [
    pytest.mark.skipif(not IS_ROOT, reason="homes are given away"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


@pytest.fixture
def changing(filled: Scratch, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    """Give a site where the next run has all kinds of things to do."""
    monkeypatch.setenv("IAM_BRIDGE_CONFIG", str(filled.settings))
    filled.people.put("linus", "hpc/users", "hpc/gpu")
    filled.people.put("ada", "hpc/users", "hpc/gpu")
    filled.people.remove("grace")
    return filled


def once(*arguments: str) -> Callable[[], None]:
    """Give a command as a piece of work for a child of this process."""

    def work() -> None:
        with open(os.devnull, "w", encoding="utf-8") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        assert main(arguments) == 0

    return work


def check_done(site: Scratch) -> None:
    """Check that the state is that of one whole run, whatever happened before it."""
    passwd, shadow, group = site.rows("passwd"), site.rows("shadow"), site.rows("group")
    assert [passwd[name][2] for name in ("ada", "grace", "linus")] == [str(FIRST + n) for n in (2, 3, 4)]
    assert [shadow[name][7] for name in ("ada", "grace", "linus")] == ["", "1", ""]
    assert set(group["hpcgpu"][3].split(",")) == {"ada", "linus"}
    assert sorted(p.name for p in (site.folder / "home").iterdir()) == ["ada", "grace", "linus"]
    audit = site.bridge("map", "audit", nss=True)
    assert audit.status == 0, audit.all
    files = {p.name for p in (site.folder / "etc").iterdir()}
    known = {*STORE_FILES, *(f"{name}-" for name in STORE_FILES), "iam-bridge.anchor", ".pwd.lock"}
    assert files <= known, "no leftovers"


@pytest.fixture
def again(changing: Scratch) -> Iterator[Callable[[], None]]:
    """Give what puts the site back to where it was."""
    saved = changing.folder.with_name(changing.folder.name + "-saved")
    subprocess.run(["cp", "-a", str(changing.folder), str(saved)], check=True)

    def put_back() -> None:
        shutil.rmtree(changing.folder)
        subprocess.run(["cp", "-a", str(saved), str(changing.folder)], check=True)

    yield put_back
    shutil.rmtree(saved)


def test_a_run_that_is_killed_at_any_write_is_completed_by_the_next(
    changing: Scratch, again: Callable[[], None]
) -> None:
    run = once("provision", "run")
    writes = count_steps(run, WRITES)
    assert writes > 40
    for number in range(1, writes + 1):
        again()
        kill_at(number, run, WRITES)
        ran = changing.bridge("provision", "run")
        assert ran.status == 0, f"after write {number}: {ran.all}"
        check_done(changing)


def test_a_ban_that_is_killed_at_any_write_is_completed_by_saying_it_again(
    changing: Scratch, again: Callable[[], None]
) -> None:
    ban = once("ban", "add", "ada", "--reason", "first")
    for number in range(1, count_steps(ban, WRITES) + 1):
        again()
        kill_at(number, ban, WRITES)
        ran = changing.bridge("ban", "add", "ada", "--reason", "second")
        assert ran.status == 0, f"after write {number}: {ran.all}"
        assert changing.rows("shadow")["ada"][7] == "1"
        assert '"reason": "second"' in (changing.folder / "view" / "bans").read_text()
        assert changing.bridge("ledger", "verify", nss=True).status == 0


def test_a_run_that_is_killed_by_its_admin_is_completed_by_the_next(changing: Scratch) -> None:
    for after_s in (0.05, 0.2, 0.25, 0.3, 0.35):
        process = subprocess.Popen(
            changing.argv("provision", "run"),
            env=changing.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert changing.bridge("provision", "run").status == 0
    check_done(changing)


@dataclass
class Disk:
    """A file system of a few megabytes in a mount namespace of its own: `folder` from outside, `inside` from within."""

    folder: Path
    inside: Path
    prefix: tuple[str, ...]

    def fill(self) -> None:
        """Leave no room."""
        with (self.folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(open_folder: Path) -> Iterator[Disk]:
    place = open_folder / "disk"
    place.mkdir()
    script = f"mount -t tmpfs -o size=2m,mode=755 none {place} && echo ready && read line"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            pytest.skip("no file system can be mounted here")
        prefix = ("nsenter", "--mount", "--target", str(holder.pid), "--")
        yield Disk(Path(f"/proc/{holder.pid}/root{place}"), place, prefix)
        holder.communicate("\n")


def test_a_full_disk_fails_in_one_sentence_and_room_completes_it(disk: Disk) -> None:
    site = Scratch(disk.folder, inside=disk.inside, prefix=disk.prefix).set_up()
    site.people.put("linus")
    site.people.remove("grace")
    before = site.stamps()
    disk.fill()
    for arguments in (
        ["provision", "run"],
        ["ban", "add", "ada"],
        ["map", "lock", "ada", "--reason", "x"],
        ["ledger", "backup", f"{disk.inside}/copy"],
        ["map", "list"],
    ):
        ran = site.bridge(*arguments)
        assert ran.status == 1, ran.all
        assert "df" in ran.err or "No space left" in ran.err, ran.err
    assert site.stamps() == before, "the store is as it was"
    disk.make_room()
    assert site.bridge("provision", "run").status == 0
    assert site.rows("passwd")["linus"][2] == str(FIRST + 4)
    assert site.rows("shadow")["grace"][7] == "1"
    assert site.bridge("map", "audit", nss=True).status == 0


def test_a_full_disk_of_the_store_alone_keeps_what_the_ledger_recorded(disk: Disk, open_folder: Path) -> None:
    site = Scratch(open_folder, prefix=disk.prefix)
    for name in ("passwd", "group", "shadow"):
        (disk.folder / name).write_bytes(site.etc(name).read_bytes())
    site.settings.write_text(site.settings.read_text().replace(f"{open_folder}/etc", str(disk.inside)))
    site.etc = lambda name: disk.folder / name  # type: ignore[method-assign]
    site.set_up()
    site.people.remove("grace")
    disk.fill()
    ran = site.bridge("provision", "run")
    assert ran.status == 1
    assert "No space left" in ran.out
    assert site.rows("shadow")["grace"][7] == ""
    why = site.bridge("map", "why", "grace")
    assert "locked: left" in why.out, "the doors know already"
    disk.make_room()
    assert site.bridge("provision", "run").status == 0
    assert site.rows("shadow")["grace"][7] == "1"


def test_a_ledger_of_last_week_gives_no_number_until_it_is_reconciled(filled: Scratch) -> None:
    copy = filled.folder / "copy.db"
    assert filled.bridge("ledger", "backup", str(copy)).status == 0
    filled.people.put("linus")
    assert filled.bridge("provision", "run").status == 0
    assert filled.bridge("ban", "add", "ada", "--reason", "stolen key").status == 0
    filled.ledger.unlink()
    copy.rename(filled.ledger)
    filled.people.put("zoe")
    assert filled.bridge("provision", "status", "--json").json()["stopped"]
    plan = filled.bridge("provision", "plan")
    assert "no number is given" in plan.err
    assert "zoe gets no account" in plan.out
    ran = filled.bridge("provision", "run")
    assert ran.status == 1, ran.all
    assert "reconcile" in ran.all
    assert "zoe" not in filled.rows("passwd")
    assert '"stolen key"' in (filled.folder / "view" / "bans").read_text(), "the ban holds at the doors"
    codes = [finding["code"] for finding in filled.bridge("map", "audit", "--json", nss=True).json()]
    assert "stopped" in codes
    assert "orphan" in codes

    done = filled.bridge("ledger", "reconcile")
    assert done.status == 0, done.all
    assert "1 bans that the ledger had lost" in done.out
    rows = done.out[done.out.index("name,issuer") :].splitlines()[:2]
    assert rows[1].startswith("linus,")
    table = filled.folder / "people.csv"
    table.write_text("\n".join(rows) + "\n")
    assert filled.bridge("map", "adopt", "--from", str(table)).status == 0
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("passwd")["linus"][2] == str(FIRST + 4), "linus keeps number and home"
    assert int(filled.rows("passwd")["zoe"][2]) > FIRST + 4, "and nobody else gets it"
    assert filled.rows("shadow")["ada"][7] == "1"
