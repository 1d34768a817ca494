"""`iam-bridge map`: questions about who is who, and an admin's own word."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from tests.functional.site import FIRST, IS_ROOT, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")


ADA, GRACE = FIRST + 2, FIRST + 3  # after the two unix groups, which share the number space
ADA_SUBJECT = "s-ada@https://iam.example.org/"
FORMS = [("by name", "ada"), ("by number", f"uid:{ADA}"), ("by subject", ADA_SUBJECT)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """Give one site for all questions: ada and grace, of whom grace has left."""
    folder = tmp_path_factory.mktemp("map")
    made = Scratch(folder).set_up()
    made.people.remove("grace")
    assert made.bridge("provision", "run").status == 0
    return made


def test_list_shows_everybody_by_uid(site: Scratch) -> None:
    ran = site.bridge("map", "list")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["NAME", "UID", "STATE", "GROUPS", "SUBJECT"]
    assert lines[1].split() == ["ada", str(ADA), "open", "hpcusers", ADA_SUBJECT]
    assert "locked: left" in lines[2]
    rows = site.bridge("map", "list", "--json").json()
    assert [row["name"] for row in rows] == ["ada", "grace"]
    assert rows[1]["locks"] == ["left"]


def test_list_of_a_site_without_accounts_says_so(scratch: Scratch) -> None:
    scratch.people.put("mallory", active=False)
    assert scratch.bridge("provision", "run").status == 0
    assert scratch.bridge("map", "list").out == "no accounts yet\n"
    assert scratch.bridge("map", "list", "--json").json() == []


@pytest.mark.parametrize("who", [w for _, w in FORMS], ids=[i for i, _ in FORMS])
@pytest.mark.parametrize("command", ["show", "who", "why", "history"])
def test_every_question_takes_the_three_forms(site: Scratch, command: str, who: str) -> None:
    ran = site.bridge("map", command, who)
    assert ran.status == 0, ran.all
    assert ADA_SUBJECT in ran.out or command == "history"
    assert site.bridge("map", command, who, "--json").json()


BAD_WHO = [
    ("nobody of that name", "zoe", 1),
    ("a number that nobody has", "uid:59999", 1),
    ("a subject that nobody is", "s-zoe@https://iam.example.org/", 1),
    ("root", "root", 1),
    ("a bare number", "52001", 2),
    ("a number that is none", "uid:12x", 2),
    ("a number past all", "uid:4294967295", 2),
    ("a number below all", "uid:-1", 2),
    ("digits of another script", "uid:\u0661\u0662", 2),
    ("an empty text", "", 2),
    ("a control character", "a\x1b[2Jb", 2),
    ("a newline", "ada\ngrace", 2),
    ("a path", "../../etc/passwd", 2),
    ("an option by mistake", "--nmae", 2),
    ("a very long one", "a" * 5000, 2),
    ("a subject of a plain http issuer", "s-ada@http://iam.example.org/", 2),
    ("a subject with a space", "s ada@https://iam.example.org/", 2),
    ("look-alikes", "\u0430d\u0430", 2),
]


@pytest.mark.parametrize(("who", "status"), [b[1:] for b in BAD_WHO], ids=[b[0] for b in BAD_WHO])
def test_a_name_that_names_nobody_is_one_sentence(site: Scratch, who: str, status: int) -> None:
    ran = site.bridge("map", "why", who)
    assert ran.status == status, ran.all
    assert ran.out == ""
    assert 1 <= len(ran.err.splitlines()) <= 2
    assert len(ran.err) < 700
    assert not any(c in ran.err for c in "\x1b\x07\x00")


def test_who_answers_for_a_date(site: Scratch) -> None:
    today = datetime.now(UTC)
    assert "s-grace" in site.bridge("map", "who", f"uid:{GRACE}", "--at", f"{today:%Y-%m-%d}").out
    before = site.bridge("map", "who", "grace", "--at", "2020-05-03")
    assert before.status == 1
    assert "nobody" in before.out
    moment = (today - timedelta(days=1)).strftime("%Y-%m-%dT%H:%MZ")
    assert site.bridge("map", "who", "grace", "--at", moment).status == 1


def test_who_tells_the_host_s_own_apart(site: Scratch) -> None:
    ran = site.bridge("map", "who", "uid:0")
    assert ran.status == 1
    assert "root (uid 0), which is none of ours" in ran.out
    assert "knows none" in site.bridge("map", "who", "uid:59998").out


BAD_DATES = [
    "yesterday",
    "2026-13-01",
    "2026-02-30",
    "03/05/2026",
    "20260503",
    "2026-05-03T12:00",
    "2999-01-01",
    "",
    "2026-05-03\x1b[2J",
    "9" * 400,
]


@pytest.mark.parametrize("date", BAD_DATES)
def test_a_date_that_could_be_misread_is_refused(site: Scratch, date: str) -> None:
    ran = site.bridge("map", "who", "ada", "--at", date)
    assert ran.status == 2
    assert len(ran.err) < 400
    assert "\x1b" not in ran.err


def test_why_names_record_rule_run_and_receipts(site: Scratch) -> None:
    ran = site.bridge("map", "why", "ada", nss=True)
    for text in (
        "login now: permitted by login.requires hpc/users",
        "members.groups hpc/users; name from preferred_username",
        "userName=ada active=true created=2024-01-01 groups=hpc/users",
        "provision run by root, done",
        "ada, active, groups hpc/users",
    ):
        assert text in ran.out


def test_why_of_a_leaver_names_lock_and_its_receipt(site: Scratch) -> None:
    ran = site.bridge("map", "why", "grace", nss=True)
    assert "login now: denied (left)" in ran.out
    assert "locked: left since" in ran.out
    assert "not among the members of the last complete snapshot" in ran.out
    told = site.bridge("map", "why", "grace", "--json", nss=True).json()
    assert told["permitted"] is False
    assert told["locked_by"][0]["detail"] == "left"


def test_why_says_when_the_host_does_not_know_the_name(site: Scratch) -> None:
    assert "the host knows no account of that name" in site.bridge("map", "why", "ada").out


def test_why_denies_when_the_view_is_gone(filled: Scratch) -> None:
    (filled.folder / "view" / "view.db").unlink()
    assert "denied, since it cannot be decided" in filled.bridge("map", "why", "ada", nss=True).out


def test_an_admin_locks_and_only_an_admin_unlocks(filled: Scratch) -> None:
    locked = filled.bridge("map", "lock", "ada", "--reason", "asked for by her group")
    assert locked.status == 0
    assert "is locked; locked by: admin" in locked.out
    assert filled.rows("shadow")["ada"][7] == "1"
    assert filled.bridge("provision", "run").out == "nothing to do\n", "coming and going at the IAM opens no such lock"
    assert filled.rows("shadow")["ada"][7] == "1"
    why = filled.bridge("map", "why", "ada", nss=True).out
    assert "denied (locked)" in why
    assert "map lock: asked for by her group" in why
    again = filled.bridge("map", "lock", "ada", "--reason", "again")
    assert (again.status, "already" in again.out) == (0, True)
    assert filled.bridge("map", "unlock", "ada").status == 0
    assert filled.rows("shadow")["ada"][7] == ""
    kinds = [r["kind"] for r in filled.bridge("map", "history", "ada", "--json").json()]
    assert kinds == ["create", "lock", "unlock"]


def test_unlock_leaves_other_locks_and_says_how_they_end(filled: Scratch) -> None:
    filled.people.remove("ada")
    assert filled.bridge("provision", "run").status == 0
    assert filled.bridge("map", "lock", "ada", "--reason", "x").status == 0
    ran = filled.bridge("map", "unlock", "ada")
    assert ran.status == 0
    assert "still locked: left; it ends when the IAM lists them" in ran.out
    assert filled.rows("shadow")["ada"][7] == "1"
    assert "has no lock of an admin" in filled.bridge("map", "unlock", "ada").out


def test_a_lock_ends_what_runs(filled: Scratch) -> None:
    uid = int(filled.rows("passwd")["ada"][2])
    with subprocess.Popen(["sleep", "300"], user=uid, group=uid, extra_groups=()) as process:
        ran = filled.bridge("map", "lock", "ada", "--reason", "x")
        assert process.wait(5) < 0
    assert ran.status == 0
    assert "1 processes ended, 0 left" in ran.out


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[31m", "r" * 201], ids=["lines", "controls", "too long"])
def test_a_reason_that_no_receipt_should_hold_is_refused(filled: Scratch, reason: str) -> None:
    ran = filled.bridge("map", "lock", "ada", "--reason", reason)
    assert ran.status == 2
    assert "\x1b" not in ran.err
    assert filled.rows("shadow")["ada"][7] == ""


def test_lock_needs_a_reason(filled: Scratch) -> None:
    ran = filled.bridge("map", "lock", "ada")
    assert ran.status == 2
    assert "--reason" in ran.err


def test_history_is_oldest_first_and_says_who(filled: Scratch) -> None:
    filled.people.remove("ada")
    assert filled.bridge("provision", "run").status == 0
    rows = filled.bridge("map", "history", "ada", "--json").json()
    assert [row["kind"] for row in rows] == ["create", "lock"]
    assert all(row["by"] == "provision run by root" for row in rows)
    assert filled.bridge("map", "history", "zoe").status == 1
