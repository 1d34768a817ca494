"""Days on which something else went wrong too: a ledger that is gone, settings that changed, admins at work beside us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.cli import main
from iam_bridge.ledger.ledger import Ledger
from tests.functional.site import FIRST, IS_ROOT, ISSUER, STORE_FILES, Scratch, sub_of

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")


def set_shadow(site: Scratch, name: str, field: int, text: str) -> None:
    """Change one field of a shadow row, as chage(1) and usermod(8) do."""
    rows = [line.split(":") for line in site.etc("shadow").read_text().splitlines()]
    for row in rows:
        if row[0] == name:
            row[field] = text
    site.etc("shadow").write_text("".join(":".join(row) + "\n" for row in rows))


def edit(site: Scratch, before: str, after: str) -> None:
    """Change the settings."""
    text = site.settings.read_text()
    assert before in text
    site.settings.write_text(text.replace(before, after))


def bans_of(site: Scratch) -> list[str]:
    return [ban["reason"] for ban in json.loads((site.folder / "view" / "bans").read_text())["bans"]]


def test_a_ledger_that_is_gone_is_no_first_run(filled: Scratch) -> None:
    assert filled.bridge("ban", "add", "ada", "--reason", "stolen key").status == 0
    for path in filled.folder.joinpath("state").glob("ledger.db*"):
        path.unlink()
    view = (filled.folder / "view" / "view.db").read_bytes()
    for arguments in (["provision", "run"], ["ban", "add", "grace"]):
        ran = filled.bridge(*arguments)
        assert ran.status == 1, ran.all
        assert "restore" in ran.all
    assert (filled.folder / "view" / "view.db").read_bytes() == view, "the services know everybody still"
    assert bans_of(filled) == ["stolen key"]


def test_a_ban_after_the_ledger_was_put_back_lifts_no_lost_ban(filled: Scratch) -> None:
    copy = filled.folder / "copy.db"
    assert filled.bridge("ledger", "backup", str(copy)).status == 0
    assert filled.bridge("ban", "add", "ada", "--reason", "lost").status == 0
    filled.ledger.unlink()
    copy.rename(filled.ledger)
    filled.bridge("ban", "add", "grace", "--reason", "new")
    filled.bridge("provision", "run")
    assert filled.bridge("ledger", "reconcile").status == 0
    assert filled.bridge("provision", "run").status == 0
    assert sorted(bans_of(filled)) == ["lost", "new"]
    assert [filled.rows("shadow")[name][7] for name in ("ada", "grace")] == ["1", "1"]


def test_an_issuer_written_with_another_final_slash_gives_nobody_a_second_account(filled: Scratch) -> None:
    before = filled.stamps()
    edit(filled, ISSUER, ISSUER.removesuffix("/"))
    for arguments in (["provision", "plan"], ["provision", "run"]):
        ran = filled.bridge(*arguments)
        assert ran.status == 2, ran.all
        assert f"the ledger has the people of {ISSUER.removesuffix('/')} under {ISSUER}" in ran.err
    assert filled.stamps() == before
    assert len(filled.bridge("map", "list", "--json").json()) == 2


def test_an_admins_expiry_holds_although_another_account_has_a_lasting_problem(filled: Scratch) -> None:
    passwd = filled.etc("passwd")
    passwd.write_text(passwd.read_text().replace(f"ada:x:{FIRST + 2}:", "ada:x:1234:"))
    filled.people.remove("grace")
    assert filled.bridge("provision", "run").status == 1
    filled.people.put("grace")
    assert filled.bridge("provision", "run").status == 1
    assert filled.rows("shadow")["grace"][7] == ""
    set_shadow(filled, "grace", 7, "1")  # usermod --expiredate 1 grace
    filled.bridge("provision", "run")
    assert filled.rows("shadow")["grace"][7] == "1", "what we did not write is never cleared"


def test_an_expiry_that_an_admin_wrote_while_we_held_a_lock_comes_back(filled: Scratch) -> None:
    filled.people.remove("grace")
    assert filled.bridge("provision", "run").status == 0
    set_shadow(filled, "grace", 7, "19000")  # chage --expiredate 2022-01-08 grace
    assert filled.bridge("provision", "run").status == 0
    filled.people.put("grace")
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["grace"][7] == "19000"


def test_who_was_banned_before_they_had_an_account_is_open_after_the_ban(filled: Scratch) -> None:
    assert filled.bridge("ban", "add", f"{sub_of('linus')}@{ISSUER}").status == 0
    filled.people.put("linus")
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["linus"][7] == "1"
    assert filled.bridge("ban", "lift", "linus").status == 0
    assert filled.rows("shadow")["linus"][7] == ""
    assert filled.bridge("map", "audit", nss=True).status == 0


def test_a_range_that_shrank_below_what_was_given_gives_nothing_and_takes_nothing(filled: Scratch) -> None:
    filled.people.put("linus")
    assert filled.bridge("provision", "run").status == 0
    before = filled.stamps()
    edit(filled, f"[{FIRST}, {FIRST + 999}]", f"[{FIRST}, {FIRST + 3}]")
    filled.people.put("late")
    ran = filled.bridge("provision", "run")
    assert "used up" in ran.all
    assert filled.stamps() == before


def test_a_row_that_an_admin_removed_comes_back_with_its_numbers(filled: Scratch) -> None:
    before = [filled.rows(name)["grace"] for name in ("passwd", "subuid", "subgid")]
    for path in filter(Path.exists, map(filled.etc, STORE_FILES)):  # userdel grace
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith("grace:")))
    filled.people.put("linus")
    assert filled.bridge("provision", "run").status == 0
    assert [filled.rows(name)["grace"] for name in ("passwd", "subuid", "subgid")] == before


def test_a_granting_group_that_is_suddenly_empty_locks_nobody(filled: Scratch) -> None:
    filled.people.put("ada", "hpc/gpu")
    filled.people.put("grace", "hpc/gpu")
    ran = filled.bridge("provision", "run")
    assert ran.status == 3, ran.all
    assert "nobody of https://iam.example.org/ would have an open account any more" in ran.out
    assert [filled.rows("shadow")[name][7] for name in ("ada", "grace")] == ["", ""]
    (parked,) = filled.bridge("provision", "status", "--json").json()["parked"]
    assert filled.bridge("provision", "approve", parked["digest"]).status == 0
    assert filled.bridge("provision", "run").status == 0
    assert [filled.rows("shadow")[name][7] for name in ("ada", "grace")] == ["1", "1"]


def test_all_members_inactive_at_once_locks_nobody(filled: Scratch) -> None:
    filled.people.put("ada", active=False)
    filled.people.put("grace", active=False)
    ran = filled.bridge("provision", "run")
    assert ran.status == 3, ran.all
    assert [filled.rows("shadow")[name][7] for name in ("ada", "grace")] == ["", ""]


def test_no_home_is_made_for_a_number_that_somebody_took_in_the_meantime(
    filled: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IAM_BRIDGE_CONFIG", str(filled.settings))
    filled.people.put("linus")
    real = Ledger.commit

    def commit(ledger: Ledger, *arguments: Any, **options: Any) -> None:
        real(ledger, *arguments, **options)
        with filled.etc("passwd").open("a") as passwd:  # useradd --uid N bob, between our plan and our lock
            passwd.write(f"bob:x:{FIRST + 4}:{FIRST + 4}:local:/home/bob:/bin/sh\n")

    monkeypatch.setattr(Ledger, "commit", commit)
    assert main(["provision", "run"]) == 1
    assert "linus" not in filled.rows("passwd")
    assert not (filled.folder / "home" / "linus").exists(), "it would be bob's"


def test_accounts_are_not_written_into_a_second_store_that_no_lock_would_reach(filled: Scratch) -> None:
    (filled.folder / "extra").mkdir()
    edit(filled, f"folder: {filled.folder}/etc\n", f"layout: extrausers\n  folder: {filled.folder}/extra\n")
    filled.people.remove("grace")
    ran = filled.bridge("provision", "run", nss=True)
    assert ran.status == 1, ran.all
    assert f"{filled.folder}/extra holds none of our accounts, and this host has ada from elsewhere" in ran.all
    assert not (filled.folder / "extra" / "passwd").exists()
    edit(filled, f"layout: extrausers\n  folder: {filled.folder}/extra\n", f"folder: {filled.folder}/etc\n")
    assert filled.bridge("provision", "run", nss=True).status == 0
    assert filled.rows("shadow")["grace"][7] == "1", "what was recorded reaches the store that counts"


@pytest.mark.parametrize("name", ["passwd", "group", "shadow"])
@pytest.mark.parametrize("cut", ["", None, "root"], ids=["empty", "gone", "in its first row"])
def test_a_file_that_is_cut_is_not_replaced(filled: Scratch, name: str, cut: str | None) -> None:
    path = filled.etc(name)
    if cut is None:
        path.unlink()
    else:
        path.write_text(cut)
    before = filled.stamps()
    filled.people.put("linus")
    ran = filled.bridge("provision", "run")
    assert ran.status == 1, ran.all
    assert f"{path} has no root" in ran.all
    assert filled.stamps() == before
