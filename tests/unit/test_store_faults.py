"""Everything that can go wrong on the disk: one clear sentence, and nothing lost or half done."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from iam_bridge.errors import StoreError
from provisioner.stores import commit as commits
from provisioner.stores.files import FilesStore
from tests.contract.harness import FOREIGN, FilesHarness
from tests.contract.interrupt import counted, failing_at, kill_at
from tests.contract.people import GROUP, account, rules_for, wanted

WANT = wanted(account(groups=[GROUP]))
ROOT = os.geteuid() == 0
MAY_FAIL = ("open", "fsync", "rename", "unlink", "link", "fchown", "fchmod")
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None


def make(folder: Path) -> FilesHarness:
    (folder / "etc").mkdir()
    made = FilesHarness(folder / "etc", "etc")
    made.seed()
    return made


@pytest.fixture
def harness() -> Iterator[FilesHarness]:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        yield make(Path(folder))


def converge_fails(harness: FilesHarness, *says: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        harness.store().converge(WANT)
    assert all(text in str(caught.value) for text in says), str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def steps_of(folder: Path, only: tuple[str, ...]) -> int:
    seen = []
    with counted(lambda _, step, __: seen.append(step)):
        make(folder).store().converge(WANT)
    return sum(step in only for step in seen)


def test_a_full_disk_at_any_write_leaves_every_file_as_it_was() -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        writes = steps_of(Path(folder), ("write",))
    assert writes >= 6 + 6 + 6 + 1  # locks, files, backups, journal
    for number in range(1, writes + 1):
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            harness = make(Path(folder))
            before = harness.contents()
            with failing_at(number, errno.ENOSPC, only=("write",)):
                error = converge_fails(harness, "No space left on device", "make room")
            assert "nothing was changed" in str(error)
            assert harness.contents() == before, f"write {number}"


def test_an_error_at_any_step_is_told_and_the_next_run_ends_in_the_same_bytes() -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        steps = steps_of(Path(folder), MAY_FAIL)
        done = FilesHarness(Path(folder) / "etc", "etc").contents()
    for number in range(1, steps + 1):
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            harness = make(Path(folder))
            with failing_at(number, errno.EIO, only=MAY_FAIL):
                converge_fails(harness, "Input/output error")
            harness.store().converge(WANT)
            assert harness.contents() == done, f"step {number}"


def test_what_is_written_is_read_back(harness: FilesHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    before = harness.contents()
    real = os.pread

    def lying(fd: int, size: int, offset: int) -> bytes:
        content = real(fd, size, offset)
        return (
            content.replace(b"alice", b"alicf")
            if b"iam-bridge" in os.readlink(f"/proc/self/fd/{fd}").encode()
            else content
        )

    monkeypatch.setattr(os, "pread", lying)
    converge_fails(harness, "Input/output error", "nothing was changed")
    monkeypatch.undo()
    assert harness.contents() == before


@pytest.mark.parametrize("kind", ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"])
def test_a_link_in_place_of_a_file_is_refused(harness: FilesHarness, kind: str, tmp_path: Path) -> None:
    shutil.move(harness.path(kind), tmp_path / kind)
    harness.path(kind).symlink_to(tmp_path / kind)
    converge_fails(harness, f"{kind}:", "symbolic link")
    assert (tmp_path / kind).read_bytes() == FOREIGN[kind]
    with pytest.raises(StoreError, match="symbolic link"):
        harness.store().read()


@pytest.mark.parametrize("make_it", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_file_is_refused(harness: FilesHarness, make_it: type) -> None:
    harness.path("passwd").unlink()
    make_it(harness.path("passwd"))
    converge_fails(harness, "passwd is no regular file")


@pytest.mark.parametrize(
    ("name", "content"), [(".iam-bridge", "victim"), ("-.iam-bridge", "victim"), (".iam-bridge-lock", "victim")]
)
def test_a_planted_link_at_a_temporary_name_is_not_followed(
    harness: FilesHarness, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / "victim").write_text(content)
    harness.path(f"passwd{name}").symlink_to(tmp_path / "victim")
    harness.store().converge(WANT)
    assert (tmp_path / "victim").read_text() == content
    assert not harness.path(f"passwd{name}").is_symlink()


def test_a_folder_that_everybody_may_write_is_refused(harness: FilesHarness) -> None:
    harness.folder.chmod(0o777)
    converge_fails(harness, "writable by everybody", "chmod o-w")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    store = FilesStore(rules_for(tmp_path / "none"), journal=tmp_path / "journal", today=lambda: 1)
    with pytest.raises(StoreError, match=r"cannot open the folder .*/none: No such file or directory; create it"):
        store.read()


def test_a_missing_folder_for_the_journal_is_told(harness: FilesHarness) -> None:
    rules = rules_for(harness.folder)
    store = FilesStore(rules, journal=harness.folder / "none" / "journal", today=lambda: 1)
    before = harness.contents()
    with pytest.raises(StoreError, match="cannot write the journal"):
        store.converge(WANT)
    assert harness.contents() == before


# -- others at work


def test_a_file_changed_before_our_lock_is_read_again(harness: FilesHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    added = b"late:x:1002:1002::/:/bin/sh\n"

    def recover(*args: object) -> tuple[str, ...]:
        harness.path("passwd").write_bytes(FOREIGN["passwd"] + added)  # as by useradd, just before we had the locks
        return ()

    monkeypatch.setattr("provisioner.stores.files.recover", recover)
    harness.store().converge(WANT)
    assert harness.path("passwd").read_bytes().startswith(FOREIGN["passwd"] + added + b"alice:")


def test_a_file_changed_under_our_lock_is_not_overwritten(
    harness: FilesHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = b"late:x:1002:1002::/:/bin/sh\n"
    real = commits.write_journal

    def write_journal(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        harness.path("passwd").write_bytes(FOREIGN["passwd"] + added)  # as by an editor that takes no lock

    monkeypatch.setattr(commits, "write_journal", write_journal)
    converge_fails(harness, "passwd was changed by a program that takes no lock", "run again")
    assert harness.path("passwd").read_bytes() == FOREIGN["passwd"] + added
    monkeypatch.undo()
    assert harness.store().converge(WANT).written
    assert added in harness.path("passwd").read_bytes()


# -- recovery


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"\xff", b'{"version": 1}', b'{"version": 9, "entries": [], "written": []}', b"[" * 100000,
     b'{"version": 1, "entries": [{"folder": 1, "name": 2, "before": 3, "after": 4}], "written": []}',
     b'{"version": 1, "entries": [{"folder": "/etc", "name": "../x", "before": "", "after": ""}], "written": []}'],
    ids=["empty", "no fields", "a list", "no text", "half", "later version", "deep", "numbers", "another's file"],
)  # fmt: skip
def test_a_journal_that_cannot_be_read_costs_only_the_note(harness: FilesHarness, text: bytes) -> None:
    harness.journal.write_bytes(text)
    assert "alice" in harness.store().converge(WANT).written
    assert not harness.journal.exists()
    harness.journal.write_bytes(text)
    assert harness.store().converge(WANT).written == ()
    assert not harness.journal.exists()


def test_a_prepared_file_is_dropped_where_its_file_changed_since(harness: FilesHarness) -> None:
    seen: list[tuple[int, str]] = []
    with tempfile.TemporaryDirectory(dir=FAST) as folder, counted(lambda number, step, _: seen.append((number, step))):
        make(Path(folder)).store().converge(WANT)
    renames = [number for number, step in seen if step == "rename"]
    kill_at(renames[1], lambda: harness.store().converge(WANT))  # the journal stands, no file is in place
    assert harness.journal.exists()
    harness.path("group").write_bytes(FOREIGN["group"] + b"late:x:1002:\n")
    assert "alice" in harness.store().converge(WANT).written
    assert b"late:x:1002:\nalice:x:20000:" in harness.path("group").read_bytes()
    assert not harness.journal.exists()


def test_what_is_renamed_is_on_the_disk_first_and_the_rename_after(harness: FilesHarness) -> None:
    seen: list[tuple[str, str]] = []

    def note(_: int, step: str, args: tuple[object, ...]) -> None:
        if step == "fsync":
            seen.append((step, Path(os.readlink(f"/proc/self/fd/{args[0]}")).name))
        elif step == "rename":
            seen.append((step, Path(str(args[0])).name))

    with counted(note):
        harness.store().converge(WANT)
    renames = [name for step, name in seen if step == "rename"]
    order = ["group", "gshadow", "shadow", "passwd", "subuid", "subgid"]
    assert renames == ["journal.tmp", *(f"{n}{dash}.iam-bridge" for n in order for dash in ("-", ""))]
    journal = seen.index(("rename", "journal.tmp"))
    assert {name for step, name in seen[:journal] if step == "fsync"} == set(renames)
    assert seen[journal + 1] == ("fsync", harness.journal.parent.name)
    for name in order:
        at = seen.index(("rename", f"{name}.iam-bridge"))
        assert seen[at + 1] == ("fsync", "etc")


# -- owners, modes, backups


def test_owner_mode_and_attributes_of_a_file_are_kept(tmp_path: Path) -> None:
    harness = make(tmp_path)
    harness.path("passwd").chmod(0o604)
    if ROOT:
        os.chown(harness.path("passwd"), 7, 8)
        with suppress(OSError):  # a file system without any
            os.setxattr(harness.path("passwd"), "user.label", b"kept")
    attributes = os.listxattr(harness.path("passwd"))
    harness.store().converge(WANT)
    for name in ("passwd", "passwd-"):
        status = harness.path(name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o604
        if ROOT:
            assert (status.st_uid, status.st_gid) == (7, 8)
        assert os.listxattr(harness.path(name)) == attributes


def test_the_backup_holds_what_was_there(harness: FilesHarness) -> None:
    harness.store().converge(WANT)
    for kind in harness.kinds:
        assert harness.path(f"{kind}-").read_bytes() == FOREIGN[kind]
        assert harness.path(f"{kind}-").stat().st_ino != harness.path(kind).stat().st_ino


def test_missing_files_are_made_as_debian_makes_them(tmp_path: Path) -> None:
    import grp

    store = FilesStore(rules_for(tmp_path, subids=tmp_path), journal=tmp_path / "journal", today=lambda: 1)
    old = os.umask(0o077)
    try:
        store.converge(WANT)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.name != ".pwd.lock"}
    assert modes == {
        "passwd": 0o644, "group": 0o644, "shadow": 0o640, "gshadow": 0o640, "subuid": 0o644, "subgid": 0o644,
    }  # fmt: skip
    shadow = [entry.gr_gid for entry in grp.getgrall() if entry.gr_name == "shadow"]
    if ROOT and shadow:
        assert (tmp_path / "shadow").stat().st_gid == shadow[0]


def test_a_site_without_gshadow_keeps_none(harness: FilesHarness) -> None:
    harness.path("gshadow").unlink()
    assert harness.store().converge(WANT).problems == ()
    assert not harness.path("gshadow").exists()
    assert b"alice:*:20000:" in harness.path("group").read_bytes()


def test_only_files_with_differences_are_replaced(harness: FilesHarness) -> None:
    harness.store().converge(WANT)
    before = {kind: harness.path(kind).stat().st_ino for kind in harness.kinds}
    harness.set_expiry("alice", "1")
    before["shadow"] = harness.path("shadow").stat().st_ino
    from iam_bridge.model.state import WantedAccount

    harness.store().converge(wanted(WantedAccount(account(groups=[GROUP]), "")))
    assert {kind for kind in harness.kinds if harness.path(kind).stat().st_ino != before[kind]} == {"shadow"}


def test_a_password_that_somebody_left_in_shadow_opens_nothing(harness: FilesHarness) -> None:
    with harness.path("shadow").open("ab") as file:
        file.write(b"alice:$6$old:19000::::::\n")
    report = harness.store().converge(WANT)
    assert report.problems == ("alice: shadow has a row with a password that somebody left; remove that row first",)
    assert b"alice:" not in harness.path("passwd").read_bytes()


def test_a_missing_shadow_row_is_completed(harness: FilesHarness) -> None:
    harness.store().converge(WANT)
    lines = harness.path("shadow").read_bytes().splitlines(keepends=True)
    harness.path("shadow").write_bytes(b"".join(line for line in lines if not line.startswith(b"alice:")))
    assert harness.store().read().users["alice"].expiry is None
    assert harness.store().converge(WANT).written == ("alice",)
    assert harness.lines("shadow")[-1] == b"alice:*:20000:0:99999:7:::"


def test_hostile_text_from_the_ledger_stops_before_the_disk(harness: FilesHarness) -> None:
    before = harness.contents()
    with pytest.raises(StoreError, match="cannot stand in an account file"):
        harness.store().converge(wanted(account(gecos="x\nroot2::0:0::/:/bin/sh")))
    assert harness.contents() == before


# -- the real thing

SCRIPT = """
import os, sys
from pathlib import Path
from iam_bridge.errors import StoreError
from tests.contract.harness import FilesHarness
from tests.contract.people import account, wanted
harness = FilesHarness(Path(sys.argv[1]) / "etc", "etc")
try:
    harness.store().converge(wanted(*(account(f"user{n}", 20000 + n) for n in range(300))))
except StoreError as error:
    print(error)
print(sorted(harness.contents()))
"""


def in_a_namespace(folder: Path, before: str, after: str = "true") -> str:
    command = f'{before} && cd "$2" && "$3" -c "$4" "$1" && {after}'
    argv = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", command, "sh"]
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [*argv, str(folder), str(root), sys.executable, SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    if ran.returncode != 0 and "unshare" in ran.stderr:
        pytest.skip(f"no private mount namespace here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.skipif(not ROOT, reason="mounts a file system of its own")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir()
    make(tmp_path / "seed")
    mount = 'mount -t tmpfs -o size=60k none "$1" && cp -a "$1/../seed/etc" "$1/etc"'
    (tmp_path / "disk").mkdir()
    same = 'for kind in passwd group shadow gshadow subuid subgid; do cmp "$1/etc/$kind" "$1/../seed/etc/$kind"; done'
    out = in_a_namespace(tmp_path / "disk", mount, same)
    assert "No space left on device" in out
    assert "['group', 'gshadow', 'passwd', 'shadow', 'subgid', 'subuid']" in out


@pytest.mark.skipif(not ROOT, reason="mounts a file system of its own")
def test_a_folder_that_is_really_read_only(tmp_path: Path) -> None:
    harness = make(tmp_path)
    before = harness.fingerprint()
    out = in_a_namespace(tmp_path, 'mount --bind "$1/etc" "$1/etc" && mount -o remount,ro,bind "$1/etc"')
    assert "Read-only file system; mount it writable" in out
    assert harness.fingerprint() == before
