"""Which files are believed to be a ledger, and what becomes of one that is made, old, new, foreign or broken."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from iam_bridge.errors import LedgerError
from iam_bridge.ledger import db as db_module
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.schema import MIGRATIONS
from tests.unit.build import NOW, account
from tests.unit.ledgers import create, open_ledger, with_accounts


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_ledger_is_ours_alone(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.start_run(NOW, "x")  # so that the WAL and its index exist
        files = sorted(ledger.path.parent.iterdir())
        assert _mode(ledger.path.parent) == 0o700
        assert {path.name: _mode(path) for path in files} == {
            "ledger.db": 0o600,
            "ledger.db-shm": 0o600,
            "ledger.db-wal": 0o600,
        }


def test_each_ledger_has_its_own_id(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "a") as one, open_ledger(tmp_path / "b") as two:
        assert one.ledger_id != two.ledger_id


def test_commits_survive_a_power_cut_as_far_as_sqlite_can_say(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger, ledger.reading() as db:
        found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        assert found == {"journal_mode": "wal", "synchronous": 2}
        assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_a_missing_ledger_is_made_only_where_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with pytest.raises(LedgerError, match="there is no ledger"):
        Ledger.open(tmp_path / "state" / "ledger.db", create=False)
    with pytest.raises(LedgerError, match="there is no folder"):
        Ledger.open(tmp_path / "none" / "ledger.db", create=False)
    assert not list((tmp_path / "state").iterdir())


def _folder_of_all(path: Path) -> None:
    path.parent.chmod(0o777)


def _folder_of_a_group(path: Path) -> None:
    path.parent.chmod(0o770)


def _file_of_all(path: Path) -> None:
    path.chmod(0o606)


def _file_of_a_group(path: Path) -> None:
    path.chmod(0o660)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def _text(path: Path) -> None:
    path.write_text("uid,name\n1000,ada\n" * 100)


def _another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    path.chmod(0o600)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link_instead(path: Path) -> None:
    target = path.with_name("elsewhere.db")
    path.rename(target)
    path.symlink_to(target)


def _pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _header_only(path: Path) -> None:
    os.truncate(path, 100)


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()


def _no_schema(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 0")
    db.close()


UNBELIEVABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder that all may write": (_folder_of_all, "can be written by others"),
    "a folder that a group may write": (_folder_of_a_group, "can be written by others"),
    "a file that all may write": (_file_of_all, "can be written by others"),
    "a file that a group may write": (_file_of_a_group, "can be written by others"),
    "an empty file": (_empty, "is empty; restore a backup"),
    "random bytes": (_garbage, "is damaged"),
    "a text": (_text, "is damaged"),
    "another program's database": (_another_database, "is no ledger of IAM bridge"),
    "a folder": (_folder_instead, "is no regular file"),
    "a symbolic link": (_link_instead, "is no regular file"),
    "a pipe": (_pipe_instead, "is no regular file"),
    "a file cut after its header": (_header_only, "is damaged|cannot be used|is no ledger"),
    "a newer schema": (_newer, "install the newer"),
    "a ledger without a schema": (_no_schema, "has no schema"),
}


@pytest.mark.parametrize("case", UNBELIEVABLE, ids=str)
def test_what_cannot_be_believed_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    spoil, words = UNBELIEVABLE[case]
    path = with_accounts(tmp_path, []).path
    open_ledger(tmp_path).close()
    spoil(path)
    with pytest.raises(LedgerError, match=words) as caught:
        Ledger.open(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("spoilt", ["ledger.db", "."])
def test_what_belongs_to_another_is_refused(tmp_path: Path, spoilt: str) -> None:
    path = with_accounts(tmp_path, []).path
    os.chown(path.parent / spoilt, 65534, 65534)
    with pytest.raises(LedgerError, match="belongs to uid 65534"):
        Ledger.open(path)


def _what_is_wrong(path: Path) -> str:
    """Say what opening, or else verifying, finds; no other exception may come out of either."""
    try:
        with Ledger.open(path) as ledger:
            return "\n".join(finding.what for finding in ledger.verify())
    except LedgerError as error:
        return str(error)


@pytest.mark.parametrize("cut", [512, 4096, 8192, 20480, 40960])
def test_a_ledger_that_was_cut_is_noticed(tmp_path: Path, cut: int) -> None:
    accounts = [account(f"s-{n}", f"u{n}", 20000 + n, ()) for n in range(300)]
    with with_accounts(tmp_path, accounts) as ledger:
        path = ledger.path
    assert path.stat().st_size > cut
    os.truncate(path, cut)
    assert _what_is_wrong(path)


def test_an_older_schema_is_brought_up_to_date_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with with_accounts(tmp_path, [account()]) as ledger:
        path = ledger.path
    newer = (*MIGRATIONS, ("CREATE TABLE later (x)", "INSERT INTO later VALUES (7)"))
    monkeypatch.setattr(db_module, "MIGRATIONS", newer)
    for _ in range(2):
        with Ledger.open(path) as ledger, ledger.reading() as db:
            assert db.execute("PRAGMA user_version").fetchone()[0] == len(newer)
            assert db.execute("SELECT x FROM later").fetchall() == [(7,)]
    with Ledger.open(path) as ledger:
        assert ledger.read_state(NOW).accounts == {account().subject: account()}
    monkeypatch.undo()
    with pytest.raises(LedgerError, match="install the newer"):
        Ledger.open(path)


def test_a_migration_that_fails_leaves_the_older_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with with_accounts(tmp_path, [account()]) as ledger:
        path = ledger.path
    monkeypatch.setattr(db_module, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE later (x)", "CREATE TABLE meta (x)")))
    with pytest.raises(LedgerError):
        Ledger.open(path)
    monkeypatch.undo()
    with Ledger.open(path) as ledger, ledger.reading() as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'later'").fetchone()


def test_a_second_writer_is_told_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db_module, "BUSY_MS", 50)
    with open_ledger(tmp_path) as ledger, open_ledger(tmp_path) as other, other.reading() as db:
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another command is writing"):
            ledger.start_run(NOW, "x")
        assert ledger.read_state(NOW).accounts == {}, "reading goes on meanwhile"


def test_no_module_of_the_login_path_brings_in_more_than_it_needs() -> None:
    probe = (
        "import sys, iam_bridge.ledger.view, iam_bridge.ledger.banlist, iam_bridge.ledger.chain;"
        "heavy = {'typer','rich','yaml','pydantic','requests','authlib','iam_bridge.ledger.ledger','iam_bridge.policy'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    with with_accounts(tmp_path, [account()]) as ledger:
        run_id = ledger.start_run(NOW, "x")
        before = ledger.read_state(NOW)
        with ledger.reading() as db:
            db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 2}")
        many = [create(account(f"s-{n}", f"u{n}", 21000 + n, ())) for n in range(2000)]
        with pytest.raises(LedgerError, match="full"):
            ledger.commit(run_id, many, now=NOW, saved_expiry={}, by="run")
        assert ledger.read_state(NOW) == before
        assert ledger.verify() == ()
