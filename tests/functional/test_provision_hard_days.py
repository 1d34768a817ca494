"""Days on which something else went wrong too: a ledger that is gone, settings that changed, admins at work beside us."""

from __future__ import annotations

import json

import pytest

from tests.functional.site import IS_ROOT, ISSUER, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")


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
