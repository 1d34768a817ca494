"""The view: what the ledger knows, in a file that services can check, found by name and by subject."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import LedgerError, ViewError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.times import stamp
from iam_bridge.ledger.view import View, ViewRow
from iam_bridge.ledger.view_format import fresh_path
from iam_bridge.ledger.view_write import write_view
from iam_bridge.model.account import LockReason
from tests.unit.build import GPU, NOW, OTHER, USERS, account, member, snapshot, subject
from tests.unit.ledgers import adopt, commit, create, lock, with_accounts

HOUR = timedelta(hours=1)
ADA = account(groups=(USERS, GPU))
BOB = account("s-bob", "bob", 20001, (), (LockReason.LEFT, LockReason.ADMIN))
KIM = replace(account("s-kim", "kim", 1001, (), adopted=True, issuer=OTHER), home="/data/kim smith", gid=100)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with with_accounts(tmp_path, [ADA, BOB]) as ledger:
        commit(ledger, adopt(KIM))
        ledger.write_members(snapshot(member(groups=("hpc/users", "hpc/gpu")), member("s-no", "no")), NOW)
        yield ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view" / "view.db"


def _read(path: Path) -> View:
    view = View(path)
    view.reload_if_changed()
    return view


def test_accounts_are_found_by_name_and_by_subject(ledger: Ledger, path: Path) -> None:
    assert write_view(ledger, path)
    view = _read(path)
    assert view.problem == ""
    assert (view.generation, view.ledger_id) == (ledger.generation(), ledger.ledger_id)
    ada = ViewRow(ADA, frozenset({"hpc/users", "hpc/gpu"}), True, NOW)
    assert view.by_name("ada") == view.by_subject(ADA.subject) == ada
    assert view.by_name("bob") == ViewRow(BOB, frozenset(), False, NOW), "who is not a member is not active"
    assert view.by_name("kim") == ViewRow(KIM, frozenset(), False, None), "no snapshot of that issuer was ever whole"


@pytest.mark.parametrize(
    "name", ["", "no", "ADA", "ada ", "ada\0", "a" * 10_000, "\udce4", "' OR 1=1 --", "%"], ids=ascii
)
def test_a_name_that_is_not_ours_is_nobody(ledger: Ledger, path: Path, name: str) -> None:
    write_view(ledger, path)
    assert _read(path).by_name(name) is None


def test_a_subject_is_compared_byte_for_byte(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    view = _read(path)
    assert view.by_subject(subject("s-ada", OTHER)) is None
    assert view.by_subject(subject("S-ADA")) is None
    assert (
        view.by_subject(replace(ADA.subject, issuer=replace(ADA.subject.issuer, url="https://iam.example.org"))) is None
    )


def test_a_mapping_that_ended_is_not_in_the_view(ledger: Ledger, path: Path) -> None:
    with ledger.reading() as db:
        pass
    db.execute("UPDATE mappings SET until = since WHERE uid = 20000")
    write_view(ledger, path)
    assert _read(path).by_name("ada") is None


def test_a_view_without_anybody_is_a_view(tmp_path: Path, path: Path) -> None:
    with Ledger.open(tmp_path / "empty" / "ledger.db") as empty:
        write_view(empty, path)
    view = _read(path)
    assert view.by_name("ada") is None
    assert view.by_subject(ADA.subject) is None


def test_a_change_is_seen_at_the_next_request(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    view = _read(path)
    commit(ledger, lock(ADA))
    assert write_view(ledger, path)
    view.reload_if_changed()
    row = view.by_name("ada")
    assert row is not None
    assert row.account.locks == {LockReason.LEFT}


def test_nothing_changed_writes_nothing(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    before = [(file.name, file.stat().st_ino) for file in sorted(path.parent.iterdir())]
    ledger.record_check(NOW + HOUR, "x")
    assert not write_view(ledger, path)
    assert [(file.name, file.stat().st_ino) for file in sorted(path.parent.iterdir())] == before


def test_a_pull_that_found_nothing_new_freshens_without_a_new_view(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    view = _read(path)
    inode = path.stat().st_ino
    same = snapshot(member(groups=("hpc/users", "hpc/gpu")), member("s-no", "no"))
    ledger.write_members(replace(same, taken_at=NOW + HOUR), NOW + HOUR)
    assert not write_view(ledger, path)
    assert path.stat().st_ino == inode
    view.reload_if_changed()
    row = view.by_name("ada")
    assert row is not None
    assert row.members_taken_at == NOW + HOUR
    again = _read(path).by_name("ada")
    assert again == row


def _fresh(ledger: Ledger, changes: dict[str, object] | None = None) -> str:
    good = {
        "ledger": ledger.ledger_id,
        "generation": ledger.generation(),
        "taken_at": {ADA.subject.issuer.url: stamp(NOW + HOUR)},
    }
    return json.dumps(good | (changes or {}))


def test_what_cannot_be_believed_of_freshness_leaves_the_older_time(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    url = ADA.subject.issuer.url
    bad = [
        "", "{", "[]", "7", "null", "[" * 100_000, "\0" * 9000,
        _fresh(ledger, {"generation": ledger.generation() - 1}),
        _fresh(ledger, {"generation": ledger.generation() + 1}),
        _fresh(ledger, {"generation": str(ledger.generation())}),
        _fresh(ledger, {"ledger": "another"}),
        _fresh(ledger, {"taken_at": []}),
        _fresh(ledger, {"taken_at": {url: "tomorrow"}}),
        _fresh(ledger, {"taken_at": {url: 7}}),
        _fresh(ledger, {"taken_at": {url: stamp(NOW - HOUR)}}),
        _fresh(ledger, {"taken_at": {"https://evil.example/": stamp(NOW + HOUR)}}),
    ]  # fmt: skip
    view = _read(path)
    for text in bad:
        fresh_path(path).write_text(text)
        view.reload_if_changed()
        row = view.by_name("ada")
        assert row is not None
        assert row.members_taken_at == NOW, text[:60]
    fresh_path(path).write_text(_fresh(ledger))
    view.reload_if_changed()
    row = view.by_name("ada")
    assert row is not None
    assert row.members_taken_at == NOW + HOUR, "the good one of the same shape counts"
    fresh_path(path).chmod(0o666)
    view.reload_if_changed()
    row = view.by_name("ada")
    assert row is not None
    assert row.members_taken_at == NOW, "others could have written it"
    fresh_path(path).unlink()
    view.reload_if_changed()
    assert view.by_name("ada") == row


def test_modes_are_as_asked(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o644}
    assert write_view(ledger, path, gid=os.getegid())
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o640}
    assert not write_view(ledger, path, gid=os.getegid())


def test_a_damaged_view_on_disk_is_written_anew(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    assert write_view(ledger, path)
    assert _read(path).by_name("ada") is not None


def test_an_old_ledger_does_not_replace_a_newer_view(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o700)
    ledger.backup(tmp_path / "old" / "ledger.db")
    commit(ledger, create(account("s-eve", "eve", 20005)))
    write_view(ledger, path)
    with Ledger.open(tmp_path / "old" / "ledger.db") as old:
        with pytest.raises(LedgerError, match=r"is older than the view.*reconcile"):
            write_view(old, path)
        assert _read(path).by_name("eve") is not None
        old.reconcile(NOW, "root", numbers_seen=[20005], names_seen=["eve"], generation_seen=_read(path).generation)
        assert write_view(old, path)


def test_the_view_of_another_ledger_is_replaced(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    with with_accounts(tmp_path / "other", []) as other:
        for _ in range(20):
            other.add_ban(NOW, "root", name="x")
        write_view(other, path)
    assert write_view(ledger, path)
    assert _read(path).ledger_id == ledger.ledger_id


@pytest.mark.parametrize("step", ["mkdir", "aside", "full"])
def test_a_view_that_cannot_be_written_is_our_error_and_names_the_view(
    ledger: Ledger, path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_view(ledger, path)
    before = path.read_bytes()
    commit(ledger, lock(ADA))
    if step == "mkdir":
        path = path.parent / "view.db" / "view.db"
    elif step == "aside":
        (path.parent / f".view.db.{os.getpid()}.new").mkdir()
    else:
        monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(LedgerError, match=r"the view .*view\.db cannot be written"):
        write_view(ledger, path)
    if step == "full":
        assert path.read_bytes() == before
        assert sorted(file.name for file in path.parent.iterdir()) == ["view.db", "view.fresh"]


def _full(fd: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_before_anything_was_read_nothing_can_be_said(ledger: Ledger, path: Path) -> None:
    write_view(ledger, path)
    view = View(path)
    with pytest.raises(ViewError):
        view.by_name("ada")
    with pytest.raises(ViewError):
        view.by_subject(ADA.subject)


@pytest.mark.parametrize("odd", ["a b", "100%", "what?", "#1", "ümlaut", "'quoted'"])
def test_any_path_will_do(ledger: Ledger, tmp_path: Path, odd: str) -> None:
    path = tmp_path / odd / "view.db"
    write_view(ledger, path)
    assert _read(path).by_name("ada") is not None
