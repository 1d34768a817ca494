"""`iam-bridge ban`: every form of naming somebody, before and after they have an account, and what runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.functional.site import FIRST, IS_ROOT, ISSUER, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")

ADA = FIRST + 2
FORMS = [("by name", "ada"), ("by number", f"uid:{ADA}"), ("by subject", f"s-ada@{ISSUER}")]


def doors(site: Scratch) -> list[dict[str, Any]]:
    """Read the ban list as the services do."""
    found = json.loads((site.folder / "view" / "bans").read_text())["bans"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("who", [w for _, w in FORMS], ids=[i for i, _ in FORMS])
def test_each_form_bans_the_person(filled: Scratch, who: str) -> None:
    ran = filled.bridge("ban", "add", who, "--reason", "key found on a public page")
    assert ran.status == 0, ran.all
    assert f"ada (uid {ADA}) is locked" in ran.out
    (ban,) = doors(filled)
    assert (ban["sub"], ban["reason"]) == ("s-ada", "key found on a public page")
    assert filled.rows("shadow")["ada"][7] == "1"
    why = filled.bridge("map", "why", "ada", nss=True)
    assert "login now: denied (banned)" in why.out
    assert "key found on a public page" in why.out
    assert filled.bridge("provision", "run").out == "nothing to do\n"
    lifted = filled.bridge("ban", "lift", who)
    assert lifted.status == 0
    assert "is open again" in lifted.out
    assert doors(filled) == []
    assert filled.rows("shadow")["ada"][7] == ""
    assert "permitted" in filled.bridge("map", "why", "ada", nss=True).out


@pytest.mark.parametrize("who", ["linus", f"uid:{FIRST + 4}", f"s-linus@{ISSUER}"], ids=["name", "number", "subject"])
def test_a_ban_may_precede_the_account(filled: Scratch, who: str) -> None:
    ran = filled.bridge("ban", "add", who)
    assert ran.status == 0
    assert "no account" in ran.out
    filled.people.put("linus")
    assert filled.bridge("provision", "run").status == 0
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["linus"][7] == "1"
    assert doors(filled)[0]["sub"] == "s-linus"
    assert "denied (banned)" in filled.bridge("map", "why", "linus", nss=True).out


def test_a_name_of_the_iam_without_an_account_shows_whom_to_ban_instead(filled: Scratch) -> None:
    filled.people.put("mallory", active=False)
    assert filled.bridge("provision", "run").status == 0
    assert f"iam-bridge ban add s-mallory@{ISSUER}" in filled.bridge("ban", "add", "mallory").out


def test_a_ban_may_precede_the_first_run(scratch: Scratch) -> None:
    assert scratch.bridge("ban", "add", "ada").status == 0
    assert doors(scratch)[0]["name"] == "ada"


def test_what_runs_is_ended_after_the_doors_are_closed(filled: Scratch) -> None:
    with subprocess.Popen(["sleep", "300"], user=ADA, group=ADA, extra_groups=()) as process:
        rehearsed = filled.bridge("ban", "add", "ada", "--dry-run")
        assert f"{process.pid} sleep" in rehearsed.out
        assert process.poll() is None
        ran = filled.bridge("ban", "add", "ada")
        assert process.wait(5) < 0
    assert ran.status == 0
    assert f"{process.pid} sleep, since" in ran.out
    assert "ended (SIG" in ran.out


def test_the_doors_are_closed_before_anything_is_ended(filled: Scratch) -> None:
    # Whoever is ended says what stood in the ban list at that moment.
    bans, told = filled.folder / "view" / "bans", filled.folder / "told"
    told.touch()
    told.chmod(0o666)
    script = f"trap 'cat {bans} > {told}; exit' HUP TERM; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        ["sh", "-c", script], user=ADA, group=ADA, extra_groups=(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert filled.bridge("ban", "add", "ada").status == 0
    assert '"s-ada"' in told.read_text()


def test_a_dry_run_writes_nothing(filled: Scratch) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*") if path.is_file()}
    ran = filled.bridge("ban", "add", "ada", "--until", "7d", "--dry-run")
    assert ran.status == 0
    assert "would lock ada" in ran.out
    assert {path: path.stat().st_mtime_ns for path in filled.folder.rglob("*") if path.is_file()} == before


def test_somebody_of_the_host_who_is_none_of_ours_is_refused(filled: Scratch) -> None:
    for who in ("root", "uid:65534"):
        ran = filled.bridge("ban", "add", who)
        assert ran.status == 3, ran.all
        assert "none of ours" in ran.err
        assert "usermod" in ran.err
    assert filled.bridge("ban", "add", "uid:0").status == 3
    assert doors(filled) == []


def test_an_end_is_kept_and_the_ban_is_over_then(filled: Scratch) -> None:
    for until in ("7d", "2h", "90m", "2999-05-03", "2999-05-03T12:00Z", "2999-05-03T12:00+02:00"):
        assert filled.bridge("ban", "add", "ada", "--until", until).status == 0, until
    ends = [row["ban"]["until"] for row in filled.bridge("ban", "list", "--json").json()]
    assert ends[3:] == ["2999-05-04T00:00:00Z", "2999-05-03T12:00:00Z", "2999-05-03T10:00:00Z"]


def test_a_ban_that_ran_out_opens_with_the_next_run(filled: Scratch) -> None:
    assert filled.bridge("ban", "add", "ada", "--until", "1s").status == 0
    assert filled.rows("shadow")["ada"][7] == "1"
    subprocess.run(["sleep", "1"], check=True)
    ran = filled.bridge("provision", "run")
    assert "~ unlock ada" in ran.out
    assert filled.rows("shadow")["ada"][7] == ""
    assert filled.bridge("ban", "list").out == "no bans\n"
    assert "over" in filled.bridge("ban", "list", "--all").out


BAD_ENDS = [
    "yesterday",
    "2020-01-01",
    "0s",
    "-1d",
    "7",
    "7w",
    "2026-05-03T12:00",
    "99999999999d",
    "999999999d",
    "\x1b[2J",
    "",
]


@pytest.mark.parametrize("until", BAD_ENDS)
def test_an_end_that_is_none_is_refused(filled: Scratch, until: str) -> None:
    ran = filled.bridge("ban", "add", "ada", f"--until={until}")
    assert ran.status == 2, ran.all
    assert len(ran.err.splitlines()) <= 2
    assert "\x1b" not in ran.err
    assert doors(filled) == []


BAD_TARGETS = [
    "",
    "52002",
    "uid:",
    "uid:1e9",
    "a b",
    "Ada",
    "../x",
    "s-ada@",
    "@https://iam.example.org/",
    "\x1b[2J",
    "x" * 9000,
]


@pytest.mark.parametrize("who", BAD_TARGETS)
def test_a_target_that_is_none_is_refused(filled: Scratch, who: str) -> None:
    ran = filled.bridge("ban", "add", "--", who)
    assert ran.status == 2, ran.all
    assert len(ran.err) < 600
    assert "\x1b" not in ran.err


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31m", "r" * 201], ids=["lines", "controls", "too long"])
def test_a_reason_that_would_garble_a_login_prompt_is_refused(filled: Scratch, reason: str) -> None:
    ran = filled.bridge("ban", "add", "ada", "--reason", reason)
    assert ran.status == 2
    assert doors(filled) == []


def test_list_shows_who_since_when_and_why(filled: Scratch) -> None:
    assert filled.bridge("ban", "list").out == "no bans\n"
    filled.bridge("ban", "add", "ada", "--reason", "[red]stolen[/red] key")
    ran = filled.bridge("ban", "list")
    assert f"s-ada@{ISSUER} = ada" in ran.out
    assert "[red]stolen[/red] key" in ran.out
    row = filled.bridge("ban", "list", "--json").json()[0]
    assert (row["account"], row["holds"], row["ban"]["ban_id"]) == ("ada", True, 1)


def test_lifting_one_of_two_leaves_the_person_banned(filled: Scratch) -> None:
    filled.bridge("ban", "add", "ada", "--until", "7d")
    filled.bridge("ban", "add", f"s-ada@{ISSUER}")
    ran = filled.bridge("ban", "lift", "1")
    assert ran.status == 0
    assert "ada stays banned" in ran.out
    assert filled.rows("shadow")["ada"][7] == "1"
    assert filled.bridge("ban", "lift", "ada").status == 0
    assert filled.rows("shadow")["ada"][7] == ""


def test_lifting_leaves_other_locks(filled: Scratch) -> None:
    filled.bridge("ban", "add", "ada")
    filled.bridge("map", "lock", "ada", "--reason", "x")
    ran = filled.bridge("ban", "lift", "ada")
    assert "stays locked: admin" in ran.out
    assert filled.rows("shadow")["ada"][7] == "1"


@pytest.mark.parametrize("what", ["7", "grace", "uid:59999", "0", "999999999999"])
def test_lifting_what_does_not_hold_is_said(filled: Scratch, what: str) -> None:
    filled.bridge("ban", "add", "ada")
    ran = filled.bridge("ban", "lift", what)
    assert ran.status in (1, 2)
    assert len(ran.err.splitlines()) <= 2
    assert len(doors(filled)) == 1


def test_a_ban_that_cannot_reach_the_doors_says_so_and_still_ends_what_runs(filled: Scratch) -> None:
    view = filled.folder / "view"
    (view / "bans").unlink()
    (view / "bans").mkdir()  # nothing can be put in its place
    with subprocess.Popen(["sleep", "300"], user=ADA, group=ADA, extra_groups=()) as process:
        ran = filled.bridge("ban", "add", "ada")
        assert process.wait(5) < 0
    assert ran.status == 1
    assert "not everywhere yet" in ran.out
    (view / "bans").rmdir()
    assert filled.bridge("provision", "run").status == 0
    assert doors(filled)[0]["sub"] == "s-ada"
    assert filled.rows("shadow")["ada"][7] == "1"
    assert os.path.exists(view / "bans")
