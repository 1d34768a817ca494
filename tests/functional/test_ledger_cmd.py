"""`iam-bridge ledger`: verify, reconcile and backup by the real command."""

from __future__ import annotations

import json
import os
import sqlite3
import stat

import pytest

from tests.functional.site import FIRST, IS_ROOT, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")


def write_by_hand(site: Scratch, statement: str) -> None:
    """Do what somebody with sqlite3 and root's rights could do."""
    db = sqlite3.connect(site.ledger)
    with db:
        db.execute(statement)
    db.close()


def test_a_ledger_in_order_holds_and_shows_its_head(filled: Scratch) -> None:
    ran = filled.bridge("ledger", "verify", nss=True)
    assert ran.status == 0, ran.all
    assert "the ledger holds" in ran.out
    told = filled.bridge("ledger", "verify", "--json", nss=True).json()
    anchor = json.loads(filled.etc("iam-bridge.anchor").read_text())
    assert (told["receipts"], told["head"], told["findings"]) == (anchor["count"], anchor["head"], [])


TAMPERED = [
    ("a receipt that was edited", "UPDATE receipts SET detail = 'x' WHERE seq = 3", "receipt"),
    ("a receipt that was removed", "DELETE FROM receipts WHERE seq = 2", "chain"),
    ("an account that was edited", "UPDATE accounts SET locks = 'admin' WHERE name = 'ada'", "unrecorded"),
]


@pytest.mark.parametrize(("statement", "code"), [t[1:] for t in TAMPERED], ids=[t[0] for t in TAMPERED])
def test_a_hand_in_the_ledger_is_found(filled: Scratch, statement: str, code: str) -> None:
    write_by_hand(filled, statement)
    ran = filled.bridge("ledger", "verify", "--json", nss=True)
    assert ran.status == 1
    assert any(code in finding["code"] for finding in ran.json()["findings"]), ran.out
    assert any(code in f["code"] for f in filled.bridge("map", "audit", "--json", nss=True).json())


def test_numbers_that_do_not_fit_the_host_are_found(filled: Scratch) -> None:
    os.chown(filled.folder / "home" / "ada", 0, 0)
    row = f"stray:x:{FIRST + 700}:{FIRST + 700}::/nonexistent:/bin/sh\n"
    filled.etc("passwd").write_text(filled.etc("passwd").read_text() + row)
    codes = [f["code"] for f in filled.bridge("ledger", "verify", "--json", nss=True).json()["findings"]]
    assert sorted(codes) == ["home-owner", "orphan"]


def test_receipts_of_the_daemon_are_verified_too(filled: Scratch) -> None:
    receipts = filled.folder / "receipts.jsonl"
    receipts.write_text('{"seq": 1}\n')
    text = filled.settings.read_text().replace("paths:", f"  receipts: {receipts}\npaths:")
    filled.settings.write_text(text)
    assert filled.bridge("ledger", "verify", nss=True).status == 1


def test_damage_is_one_sentence(filled: Scratch) -> None:
    with filled.ledger.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    for arguments in (["ledger", "verify"], ["map", "list"], ["provision", "run"], ["ban", "add", "ada"]):
        ran = filled.bridge(*arguments)
        assert ran.status == 1, ran.all
        assert "internal error" not in ran.err


WRONG_FILES = [("empty", b""), ("text", b"hello\n"), ("another database", None)]


@pytest.mark.parametrize("content", [c for _, c in WRONG_FILES], ids=[i for i, _ in WRONG_FILES])
def test_what_is_no_ledger_is_refused(filled: Scratch, content: bytes | None) -> None:
    filled.ledger.unlink()
    if content is None:
        sqlite3.connect(filled.ledger).execute("CREATE TABLE t (x)").connection.close()
    else:
        filled.ledger.write_bytes(content)
    filled.ledger.chmod(0o600)
    for arguments in (["map", "list"], ["provision", "run"]):
        ran = filled.bridge(*arguments)
        assert ran.status == 1
        assert len(ran.err.splitlines()) <= 2
    assert "ada" in filled.rows("passwd")


def test_a_backup_is_whole_new_and_private(filled: Scratch) -> None:
    to = filled.folder / "copy.db"
    ran = filled.bridge("ledger", "backup", str(to))
    assert ran.status == 0
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    db = sqlite3.connect(to)
    assert db.execute("SELECT count(*) FROM accounts").fetchone() == (2,)
    db.close()
    before = to.read_bytes()
    again = filled.bridge("ledger", "backup", str(to))
    assert (again.status, "exists already" in again.err) == (1, True)
    assert to.read_bytes() == before


@pytest.mark.parametrize("where", ["/nonexistent/copy.db", "/proc/copy.db", "/dev/full", ""])
def test_a_backup_that_cannot_be_written_is_one_sentence(filled: Scratch, where: str) -> None:
    ran = filled.bridge("ledger", "backup", where)
    assert ran.status in (1, 2)
    assert len(ran.err.splitlines()) <= 2


def test_reconcile_without_need_does_nothing(filled: Scratch) -> None:
    before = filled.bridge("ledger", "verify", "--json", nss=True).json()["receipts"]
    ran = filled.bridge("ledger", "reconcile")
    assert (ran.status, "nothing to reconcile" in ran.out) == (0, True)
    assert filled.bridge("ledger", "verify", "--json", nss=True).json()["receipts"] == before


def test_a_stranger_in_our_range_stops_numbers_until_it_is_reconciled(filled: Scratch) -> None:
    row = f"stray:x:{FIRST + 4}:{FIRST + 4}::/nonexistent:/bin/sh\n"
    filled.etc("passwd").write_text(filled.etc("passwd").read_text() + row)
    filled.people.put("linus")
    ran = filled.bridge("provision", "run")
    assert "linus gets no account" in ran.out
    assert "linus" not in filled.rows("passwd")
    done = filled.bridge("ledger", "reconcile")
    assert done.status == 0, done.all
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("passwd")["linus"][2] == str(FIRST + 5)
    assert "orphan" in filled.bridge("map", "audit", nss=True).out, "the stranger is still one"
    asked = filled.bridge("map", "who", "stray")
    assert "somebody whom the restored ledger does not know" in asked.out


def test_a_ledger_that_is_gone_is_no_first_run(filled: Scratch) -> None:
    filled.ledger.unlink()
    for arguments in (["provision", "plan"], ["provision", "run"], ["ban", "add", "ada"], ["map", "list"]):
        ran = filled.bridge(*arguments)
        assert ran.status == 1
        assert "there is no ledger" in ran.err
    assert filled.rows("passwd").keys() == {"root", "nobody", "ada", "grace"}
    assert not filled.ledger.exists()
