"""A ledger put back from a copy is noticed and stopped; what was tampered with is found; copies are whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.records import Reconciled
from iam_bridge.model.account import LockReason
from iam_bridge.model.change import CreateGroup
from tests.unit.build import GPU, NOW, account, member, snapshot
from tests.unit.ledgers import GROUPS, adopt, commit, create, join, lock, open_ledger, unlock, with_accounts

ADA, BOB, EVE = account(), account("s-bob", "bob", 20001), account("s-eve", "eve", 20002)


@pytest.fixture
def anchors(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "elsewhere" / "anchor", tmp_path / "store.anchor"


def _restored(tmp_path: Path, anchors: tuple[Path, ...]) -> Ledger:
    """Make a ledger that gave 20000, take a copy, give 20001 as well, and put the copy back."""
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        ledger.write_anchors()
        ledger.backup(tmp_path / "copy.db")
        commit(ledger, create(BOB))
        ledger.write_anchors()
        path = ledger.path
    shutil.copy(tmp_path / "copy.db", path)
    return Ledger.open(path, anchors=anchors)


def test_an_anchor_says_where_the_ledger_stands(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        text = ledger.write_anchors()
        assert [path.read_text() for path in anchors] == [text, text]
        said = json.loads(text)
        assert said == {
            "ledger": ledger.ledger_id, "generation": ledger.generation(), "highest_uid": 20000, "highest_gid": 30001,
            "head": ledger.history(name="ada")[-1].hash, "count": 3,
        }  # fmt: skip
        assert ledger.check_anchors() == ""
        assert anchors[0].stat().st_mode & 0o777 == 0o600


def test_an_anchor_that_is_right_is_not_written_again(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        ledger.write_anchors()
        inode = anchors[0].stat().st_ino
        ledger.record_check(NOW, "x")
        ledger.write_anchors()
        assert anchors[0].stat().st_ino == inode
        commit(ledger, lock(ADA))
        assert ledger.check_anchors() == "", "an anchor that lags is no reason to stop"
        ledger.write_anchors()
        assert anchors[0].stat().st_ino != inode


def test_a_ledger_put_back_from_a_copy_gives_no_number(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with _restored(tmp_path, anchors) as ledger:
        state = ledger.read_state(NOW)
        assert "is ahead of the ledger" in state.stopped
        assert "iam-bridge ledger reconcile" in state.stopped
        for change in (
            create(EVE),
            adopt(account("s-kim", "kim", 1001, (), adopted=True)),
            CreateGroup(GPU, 30009, GROUPS[0].cause),
        ):
            with pytest.raises(LedgerError, match="no number may be given"):
                commit(ledger, change)
        assert [finding.code for finding in ledger.verify()] == ["anchor"]
        commit(ledger, lock(ADA))
        assert ledger.read_state(NOW).accounts[ADA.subject].locks == {LockReason.LEFT}, "locking goes on"


def test_a_copy_from_before_a_pull_is_noticed_by_its_generation_alone(
    tmp_path: Path, anchors: tuple[Path, Path]
) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        ledger.backup(tmp_path / "copy.db")
        ledger.write_members(snapshot(member()), NOW)
        ledger.write_anchors()
    shutil.copy(tmp_path / "copy.db", ledger.path)
    with Ledger.open(ledger.path, anchors=anchors) as ledger:
        assert "is ahead of the ledger" in ledger.check_anchors()


@pytest.mark.parametrize("field", ["generation", "highest_uid", "highest_gid", "count"])
def test_one_number_ahead_is_enough(tmp_path: Path, anchors: tuple[Path, Path], field: str) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        said = json.loads(ledger.write_anchors())
        anchors[1].write_text(json.dumps(said | {field: said[field] + 1}))
        assert str(anchors[1]) in ledger.check_anchors()


def test_an_old_ledger_cannot_overwrite_the_witness(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with _restored(tmp_path, anchors) as ledger:
        before = anchors[0].read_text()
        ledger.write_anchors()
        assert anchors[0].read_text() == before


def test_a_ledger_that_went_on_from_a_copy_does_not_lie_on_the_anchors_chain(
    tmp_path: Path, anchors: tuple[Path, Path]
) -> None:
    with _restored(tmp_path, ()) as ledger:
        for _ in range(3):
            commit(ledger, lock(ADA))
            commit(ledger, unlock(ADA))
        commit(ledger, create(EVE))
        path = ledger.path
    anchors[1].write_text(json.dumps({"ledger": ledger.ledger_id, "generation": 2, "highest_uid": 20001,
                                      "highest_gid": 30001, "head": "0" * 64, "count": 4}))  # fmt: skip
    with Ledger.open(path, anchors=anchors) as ledger:
        assert "does not lie on the chain" in ledger.check_anchors()


def test_an_anchor_of_another_ledger_stops(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with with_accounts(tmp_path / "other", [ADA], *anchors) as other:
        other.write_anchors()
    with open_ledger(tmp_path, *anchors) as ledger:
        assert "is of another ledger" in ledger.read_state(NOW).stopped


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 3000, b"x" * 5000, b'{"ledger": 1}', None],
    ids=["empty", "no keys", "a list", "null", "binary", "deep", "long", "wrong keys", "a number as text"],
)
def test_an_anchor_that_is_damaged_stops(tmp_path: Path, anchors: tuple[Path, Path], content: bytes | None) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        said = json.loads(ledger.write_anchors())
        anchors[1].write_bytes(json.dumps(said | {"count": "3"}).encode() if content is None else content)
        assert str(anchors[1]) in ledger.read_state(NOW).stopped
        ledger.reconcile(NOW, "admin root", numbers_seen=[], names_seen=[])
        assert ledger.read_state(NOW).stopped == ""


def test_reconcile_marks_what_may_have_been_given_and_goes_on(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with _restored(tmp_path, anchors) as ledger:
        lost = json.loads(anchors[0].read_text())["generation"]
        done = ledger.reconcile(NOW, "admin root", numbers_seen=[20000, 25000, 0, 2**40], names_seen=["ada", "bob"])
        assert done == Reconciled(numbers=2, names=1), "20001 by the anchor, 25000 and bob by what was seen"
        state = ledger.read_state(NOW)
        assert state.stopped == ""
        assert {20001, 25000} <= state.numbers_given
        assert "bob" in state.names_given
        assert state.generation > lost
        assert ledger.who(NOW, uid=20002) is None
        assert ledger.who(NOW, uid=25000) is not None, "given, to somebody unknown"
        with pytest.raises(LedgerError, match="number 20001"):
            commit(ledger, create(account("s-x", "x", 20001)))
        with pytest.raises(LedgerError, match="name bob"):
            commit(ledger, create(account("s-x", "bob", 20005)))
        commit(ledger, create(EVE))
        assert ledger.verify() == ()
        with ledger.reading() as db:
            row = db.execute("SELECT by, detail FROM receipts WHERE kind = 'reconcile'").fetchone()
        assert row == ("admin root", "2 numbers (20001 to 25000) and 1 names are given to somebody unknown")


def test_somebody_whom_the_ledger_lost_can_be_adopted(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with _restored(tmp_path, anchors) as ledger:
        ledger.reconcile(NOW, "admin root", numbers_seen=[20001], names_seen=["bob"])
        unknown = ledger.who(NOW, uid=20001)
        assert unknown is not None
        assert unknown.subject is None
        commit(ledger, adopt(replace(BOB, adopted=True)))
        assert ledger.read_state(NOW).accounts[BOB.subject].uid == 20001
        assert ledger.verify() == ()


def test_the_first_account_ever_is_not_given_again(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with open_ledger(tmp_path, *anchors) as ledger:
        ledger.backup(tmp_path / "copy.db")
        commit(ledger, *GROUPS, create(ADA), create(BOB))
        ledger.write_anchors()
    shutil.copy(tmp_path / "copy.db", ledger.path)
    with Ledger.open(ledger.path, anchors=anchors) as ledger:
        ledger.reconcile(NOW, "admin root", numbers_seen=[], names_seen=[])
        assert max(ledger.read_state(NOW).numbers_given) == 30001
        assert 20001 in ledger.read_state(NOW).numbers_given


def test_an_edited_anchor_cannot_fill_the_ledger(tmp_path: Path, anchors: tuple[Path, Path]) -> None:
    with with_accounts(tmp_path, [ADA], *anchors) as ledger:
        said = json.loads(ledger.write_anchors())
        for highest in (4_000_000_000, 2**60):
            anchors[0].write_text(json.dumps(said | {"highest_uid": highest, "generation": 2**40}))
            ledger.reconcile(NOW, "admin root", numbers_seen=[], names_seen=[])
        assert len(ledger.read_state(NOW).numbers_given) <= 4


def test_a_view_that_was_seen_is_older_than_the_next(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [ADA]) as ledger:
        ledger.reconcile(NOW, "admin root", numbers_seen=[], names_seen=[], generation_seen=1000)
        assert ledger.generation() > 1000
        assert ledger.bans_generation() >= 1000


def _sql(statement: str) -> Callable[[Ledger], None]:
    def run(ledger: Ledger) -> None:
        with ledger.reading() as db:
            pass
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(statement)

    return run


TAMPERING = {
    "a receipt was changed": (_sql("UPDATE receipts SET by = 'nobody' WHERE seq = 3"), "receipt-damaged"),
    "a receipt was taken out": (_sql("DELETE FROM receipts WHERE seq = 2"), "chain-broken"),
    "a creation was taken out at the end": (_sql("DELETE FROM receipts WHERE seq >= 4"), "unrecorded"),
    "a lock was taken away by hand": (_sql("UPDATE accounts SET locks = ''"), "unrecorded"),
    "a group was given by hand": (_sql("UPDATE accounts SET unix_groups = 'gpu,hpcusers'"), "unrecorded"),
    "a uid was changed by hand": (_sql("UPDATE accounts SET uid = 20009 WHERE uid = 20001"), "unrecorded"),
    "an account was taken out": (_sql("DELETE FROM mappings WHERE uid = 20001"), "not-unique"),
    "a person was exchanged": (_sql("UPDATE subjects SET sub = 's-eve' WHERE sub = 's-bob'"), "unrecorded"),
    "a number was freed": (_sql("DELETE FROM numbers WHERE number = 20001"), "not-unique"),
    "a name was freed": (_sql("DELETE FROM names WHERE name = 'bob'"), "not-unique"),
    "a group's gid was freed": (_sql("DELETE FROM numbers WHERE number = 30000"), "not-unique"),
    "a group was given an account's gid": (_sql("UPDATE unix_groups SET gid = 20000 WHERE name = 'gpu'"), "not-unique"),
    "two accounts share a private gid": (_sql("UPDATE accounts SET gid = 20000"), "not-unique"),
    "the counter was set back": (_sql("UPDATE meta SET value = '7' WHERE key = 'highest_uid'"), "counter"),
    "the gid counter was set back": (_sql("UPDATE meta SET value = '7' WHERE key = 'highest_gid'"), "counter"),
    "a row points to nothing": (_sql("DELETE FROM subjects WHERE sub = 's-bob'"), "ledger-damaged"),
}


@pytest.mark.parametrize("case", TAMPERING, ids=str)
def test_what_was_changed_by_hand_is_found(tmp_path: Path, case: str) -> None:
    tamper, code = TAMPERING[case]
    with with_accounts(tmp_path, [ADA]) as ledger:
        commit(ledger, create(replace(BOB, locks=frozenset({LockReason.ADMIN}))))
        commit(ledger, lock(ADA), join(ADA, GPU))
        commit(ledger, unlock(ADA))
        assert ledger.verify() == ()
        tamper(ledger)
        findings = ledger.verify()
        assert code in {finding.code for finding in findings}
        assert all(finding.what and finding.hint for finding in findings)


def test_a_wholly_broken_ledger_does_not_drown_its_reader(tmp_path: Path) -> None:
    accounts = [account(f"s-{n}", f"u{n}", 20000 + n, ()) for n in range(500)]
    with with_accounts(tmp_path, accounts) as ledger:
        _sql("UPDATE receipts SET hash = 'x'")(ledger)
        assert 1 < len([f for f in ledger.verify() if "receipt" in f.what and f.code != "unrecorded"]) <= 50


def test_damage_that_stops_the_look_is_a_finding_too(tmp_path: Path) -> None:
    accounts = [account(f"s-{n}", f"u{n}", 20000 + n, ()) for n in range(500)]
    with with_accounts(tmp_path, accounts) as ledger:
        path = ledger.path
        with ledger.reading() as db:
            (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'receipts'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    with Ledger.open(path) as ledger:
        assert {finding.code for finding in ledger.verify()} == {"ledger-damaged"}
        with pytest.raises(LedgerError, match="is damaged"):
            commit(ledger, lock(accounts[0]))


def test_an_anchor_that_is_no_file_stops_and_is_no_foreign_exception(
    tmp_path: Path, anchors: tuple[Path, Path]
) -> None:
    anchors[1].mkdir()
    with with_accounts(tmp_path, [], tmp_path / "fine") as ledger:
        path = ledger.path
    with Ledger.open(path, anchors=anchors) as ledger:
        assert "cannot be read" in ledger.check_anchors()
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.reconcile(NOW, "root", numbers_seen=[], names_seen=[])


def test_a_backup_is_the_whole_ledger_in_one_file(tmp_path: Path) -> None:
    to = tmp_path / "backup" / "ledger.db"
    to.parent.mkdir(mode=0o700)
    with with_accounts(tmp_path, [ADA, BOB]) as ledger:
        ledger.backup(to)
        expected = ledger.read_state(NOW)
    assert [path.name for path in to.parent.iterdir()] == ["ledger.db"]
    assert to.stat().st_mode & 0o777 == 0o600
    with Ledger.open(to, create=False) as copy:
        assert copy.read_state(NOW) == expected
        assert copy.verify() == ()


def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    taken, dangling = tmp_path / "taken", tmp_path / "dangling"
    taken.write_text("precious")
    dangling.symlink_to(tmp_path / "nowhere")
    with with_accounts(tmp_path, [ADA]) as ledger:
        for to in (taken, dangling, ledger.path):
            with pytest.raises(LedgerError, match="exists already"):
                ledger.backup(to)
        with pytest.raises(LedgerError, match="cannot be used"):
            ledger.backup(tmp_path / "no folder" / "x")
    assert taken.read_text() == "precious"
    assert not os.path.lexists(tmp_path / "nowhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "state", "taken"]
