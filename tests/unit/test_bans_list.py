"""The ban list as services read it: all of it or nothing, and nothing means that everybody is denied."""

from __future__ import annotations

import errno
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import LedgerError, ViewError
from iam_bridge.ledger.banlist import LIST_MAX, BanList
from iam_bridge.ledger.view_write import write_bans
from iam_bridge.model.identity import Subject
from iam_bridge.model.verdict import Ban
from tests.unit.build import NOW, OTHER, subject
from tests.unit.ledgers import open_ledger

ADA = subject()
LEDGER = "0123456789abcdef"


def _ban(number: int, who: Subject | None = None, name: str | None = None, uid: int | None = None) -> Ban:
    return Ban(number, who, name, uid, f"reason {number}", NOW, NOW + timedelta(hours=number))


BANS = (_ban(1, ADA), _ban(2, name="eve"), _ban(3, uid=20007), _ban(4, ADA, "ada", 20000))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "view" / "bans"
    write_bans(path, BANS, ledger_id=LEDGER, generation=5)
    return path


def _read(path: Path) -> BanList:
    bans = BanList(path)
    bans.reload_if_changed()
    return bans


def test_bans_are_found_by_any_of_their_keys(path: Path) -> None:
    bans = _read(path)
    assert bans.generation == 5
    assert bans.find(subject=ADA) == (BANS[0], BANS[3])
    assert bans.find(name="eve") == (BANS[1],)
    assert bans.find(uid=20007) == (BANS[2],)
    assert bans.find(uid=20000) == (BANS[3],)
    assert bans.find(subject=ADA, name="eve", uid=20000) == (BANS[0], BANS[3], BANS[1]), "each once"
    assert bans.find(name="bob") == bans.find(uid=1) == bans.find(subject=subject("s-ada", OTHER)) == bans.find() == ()


def test_what_the_ledger_holds_arrives_whole(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.add_ban(NOW, "root", subject=ADA, reason="zoë said so", until=NOW + timedelta(hours=1))
        ledger.add_ban(NOW, "root", name="eve", uid=20001)
        standing = ledger.bans(NOW)
        path = tmp_path / "bans"
        write_bans(path, standing, ledger_id=ledger.ledger_id, generation=ledger.bans_generation())
    assert _read(path).find(subject=ADA, name="eve") == standing


def test_no_bans_is_a_list_too(tmp_path: Path) -> None:
    write_bans(tmp_path / "bans", (), ledger_id=LEDGER, generation=1)
    assert _read(tmp_path / "bans").find(subject=ADA, name="ada", uid=20000) == ()


def test_before_it_was_read_nothing_can_be_said(path: Path) -> None:
    with pytest.raises(ViewError):
        BanList(path).find(name="ada")


def test_a_missing_list_denies_and_its_return_is_noticed(path: Path) -> None:
    bans = _read(path)
    path.rename(path.with_name("aside"))
    for _ in range(2):
        with pytest.raises(ViewError, match="No such file"):
            bans.reload_if_changed()
        with pytest.raises(ViewError):
            bans.find(name="eve")
    path.with_name("aside").rename(path)
    bans.reload_if_changed()
    assert bans.find(name="eve") == (BANS[1],)


def test_a_new_list_is_read_at_once_and_the_same_one_is_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bans = _read(path)
    assert write_bans(path, BANS[:1], ledger_id=LEDGER, generation=6)
    bans.reload_if_changed()
    assert bans.find(name="eve") == ()
    assert not write_bans(path, BANS[:1], ledger_id=LEDGER, generation=6), "the same list is not written again"
    monkeypatch.setattr("iam_bridge.ledger.banlist.read_bounded", None)
    bans.reload_if_changed()


def test_a_ledger_from_a_copy_does_not_lift_bans(path: Path) -> None:
    standing = path.read_bytes()
    with pytest.raises(LedgerError, match="older than the ban list") as refused:
        write_bans(path, (), ledger_id=LEDGER, generation=4)
    assert "reconcile" in refused.value.hint
    assert path.read_bytes() == standing
    path.write_text("{")
    assert write_bans(path, (), ledger_id=LEDGER, generation=4), "a damaged list is no witness"


def test_an_older_list_denies(path: Path) -> None:
    bans = _read(path)
    path.unlink()
    write_bans(path, (), ledger_id=LEDGER, generation=4)
    with pytest.raises(ViewError, match="is older than the one before"):
        bans.reload_if_changed()
    with pytest.raises(ViewError):
        bans.find(name="bob")
    write_bans(path, (), ledger_id=LEDGER, generation=5)
    bans.reload_if_changed()
    assert bans.find(name="bob") == ()


def test_a_list_of_another_ledger_denies(path: Path) -> None:
    bans = _read(path)
    write_bans(path, (), ledger_id="another", generation=9)
    with pytest.raises(ViewError, match="of another ledger"):
        bans.reload_if_changed()


def test_a_list_cut_anywhere_denies(path: Path) -> None:
    whole = path.read_bytes().rstrip()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ViewError, match="is damaged") as caught:
            BanList(path).reload_if_changed()
        assert "\n" not in str(caught.value)


GOOD = json.loads('{"version": 1, "ledger": "x", "generation": 1, "bans": []}')
ROW = {"id": 1, "issuer": None, "sub": None, "name": "eve", "uid": None, "reason": "r",
       "since": "2026-05-03T12:00:00.000000Z", "until": None}  # fmt: skip
BAD_LISTS: dict[str, object] = {
    "a number": 7,
    "null": None,
    "a list": [],
    "another version": GOOD | {"version": 2},
    "an unknown key": GOOD | {"extra": 1},
    "no generation": {key: GOOD[key] for key in ("version", "ledger", "bans")},
    "generation as text": GOOD | {"generation": "1"},
    "generation as a truth": GOOD | {"generation": True},
    "generation 0": GOOD | {"generation": 0},
    "ledger as a number": GOOD | {"ledger": 1},
    "bans as an object": GOOD | {"bans": {}},
    "a ban that is a text": GOOD | {"bans": ["eve"]},
    "a ban with an unknown key": GOOD | {"bans": [ROW | {"extra": 1}]},
    "a ban without a key": GOOD | {"bans": [{key: ROW[key] for key in ROW if key != "until"}]},
    "a ban on nobody": GOOD | {"bans": [ROW | {"name": None}]},
    "half a subject": GOOD | {"bans": [ROW | {"sub": "s-eve"}]},
    "the other half": GOOD | {"bans": [ROW | {"issuer": "https://iam.example.org/"}]},
    "an issuer that is none": GOOD | {"bans": [ROW | {"issuer": "http://iam.example.org/", "sub": "s"}]},
    "a subject that is none": GOOD | {"bans": [ROW | {"issuer": "https://iam.example.org/", "sub": "a b"}]},
    "a name as a number": GOOD | {"bans": [ROW | {"name": 7}]},
    "a uid as text": GOOD | {"bans": [ROW | {"uid": "20000"}]},
    "a uid as a fraction": GOOD | {"bans": [ROW | {"uid": 2.5}]},
    "a reason as a list": GOOD | {"bans": [ROW | {"reason": []}]},
    "a time that is none": GOOD | {"bans": [ROW | {"since": "yesterday"}]},
    "no beginning": GOOD | {"bans": [ROW | {"since": None}]},
    "an end that is none": GOOD | {"bans": [ROW | {"until": 7}]},
}
BAD_BYTES: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "a key twice": b'{"version": 1, "ledger": "x", "generation": 1, "bans": [], "bans": []}',
    "two documents": b'{"version": 1, "ledger": "x", "generation": 1, "bans": []} {}',
    "a huge number": b'{"version": 1, "ledger": "x", "generation": ' + b"9" * 5000 + b', "bans": []}',
    **{name: json.dumps(value).encode() for name, value in BAD_LISTS.items()},
}


def test_the_table_of_bad_lists_starts_from_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "bans"
    path.write_text(json.dumps(GOOD | {"bans": [ROW]}))
    assert _read(path).find(name="eve")


@pytest.mark.parametrize("case", BAD_BYTES, ids=str)
def test_a_list_that_is_none_denies_in_one_sentence(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bans"
    path.write_bytes(BAD_BYTES[case])
    bans = BanList(path)
    for _ in range(2):
        with pytest.raises(ViewError, match="is damaged") as caught:
            bans.reload_if_changed()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


def test_a_list_too_long_to_read_denies(tmp_path: Path) -> None:
    path = tmp_path / "bans"
    path.touch()
    os.truncate(path, LIST_MAX + 1)
    with pytest.raises(ViewError, match="larger than"):
        BanList(path).reload_if_changed()


@pytest.mark.parametrize("spoil", ["file", "folder", "link", "pipe", "directory"])
def test_a_list_that_others_could_have_written_denies(path: Path, spoil: str) -> None:
    if spoil == "file":
        path.chmod(0o646)
    elif spoil == "folder":
        path.parent.chmod(0o777)
    elif spoil == "link":
        path.rename(path.with_name("real"))
        path.symlink_to("real")
    else:
        path.unlink()
        os.mkfifo(path) if spoil == "pipe" else path.mkdir()
    with pytest.raises(ViewError):
        BanList(path).reload_if_changed()


@pytest.mark.parametrize("trouble", ["no descriptors", "a folder of all"])
def test_what_was_wrong_around_the_list_and_is_mended_needs_no_new_list(
    path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bans = BanList(path)
    with monkeypatch.context() as bad:
        if trouble == "no descriptors":
            bad.setattr(os, "open", _no_descriptor)
        else:
            path.parent.chmod(0o777)
        with pytest.raises(ViewError):
            bans.reload_if_changed()
    path.parent.chmod(0o755)
    bans.reload_if_changed()
    assert bans.find(name="eve") == (BANS[1],)


def _no_descriptor(*_arguments: object, **_options: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def test_the_mode_is_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "bans"
    write_bans(path, (), ledger_id=LEDGER, generation=1)
    assert path.stat().st_mode & 0o777 == 0o644
    assert write_bans(path, (), ledger_id=LEDGER, generation=1, gid=os.getegid()), "the mode alone is a difference"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be written"):
        write_bans(tmp_path / "file" / "bans", (), ledger_id=LEDGER, generation=1)
