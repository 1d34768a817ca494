"""`iam-bridge map adopt`: people whom a site had before, by a table that is believed whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.functional.site import FIRST, IS_ROOT, ISSUER, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes belong to people")

BOB, EVE = 1500, 1501
PASSWD = (
    "bob:x:1500:100:Robert Tables:{home}/bob:/bin/zsh\neve:x:1501:1501::{home}/eve:/bin/bash\n"
    "www:x:900:900::/var/www:/usr/sbin/nologin\npostgres:x:1502:1502::/var/lib/postgresql:/bin/bash\n"
    "twin:x:1503:1503::{home}/twin:/bin/bash\ntwin2:x:1503:1503::{home}/twin2:/bin/bash\n"
    "noshadow:x:1504:1504::{home}/noshadow:/bin/bash\nzero:x:0:0::/root:/bin/sh\nodd:x:1505:0::{home}/odd:/bin/sh\n"
)
SHADOW = "".join(
    f"{name}:$y$hash:19000:0:99999:7:::\n" for name in ("bob", "eve", "www", "postgres", "twin", "twin2", "zero", "odd")
)
HEAD = "name,issuer,sub,proof\n"


@pytest.fixture
def lived_in(scratch: Scratch) -> Scratch:
    """Give a site that had people before us; the IAM lists bob under his own name and eve as `eve.l`."""
    home = scratch.folder / "home"
    scratch.write_etc(passwd=PASSWD.format(home=home), group="users:x:100:\neve:x:1501:\n", shadow=SHADOW)
    for name, uid in (("bob", BOB), ("eve", EVE)):
        (home / name).mkdir()
        os.chown(home / name, uid, uid)
    scratch.people.put("bob")
    scratch.people.put("eve.l")
    scratch.people.put("oscar", "hpc/gpu")
    return scratch


def table(site: Scratch, text: str | bytes) -> str:
    path = site.folder / "people.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return str(path)


GOOD = f"{HEAD}bob,{ISSUER},s-bob,\neve,{ISSUER},s-eve_l,signed form 17\n"


def test_people_of_before_keep_number_home_shell_and_password(lived_in: Scratch) -> None:
    before = {name: lived_in.etc(name).read_bytes() for name in ("passwd", "shadow", "group")}
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD))
    assert ran.status == 0, ran.all
    assert "2 accounts taken over" in ran.out
    assert {name: lived_in.etc(name).read_bytes() for name in before} == before, "adopting writes no row"
    rows = {row["name"]: row for row in lived_in.bridge("map", "list", "--json").json()}
    assert (rows["bob"]["uid"], rows["bob"]["gid"], rows["bob"]["shell"]) == (BOB, 100, "/bin/zsh")
    assert rows["eve"]["subject"] == f"s-eve_l@{ISSUER}"
    assert rows["eve"]["adopted"] is True

    assert lived_in.bridge("provision", "run").status == 0
    assert lived_in.rows("passwd")["bob"] == [
        "bob",
        "x",
        "1500",
        "100",
        "Robert Tables",
        f"{lived_in.folder}/home/bob",
        "/bin/zsh",
    ]
    assert lived_in.rows("shadow")["bob"][1] == "$y$hash"
    assert set(lived_in.rows("group")["hpcusers"][3].split(",")) == {"bob", "eve"}
    assert not any(name.startswith("u5") for name in lived_in.rows("passwd")), "nobody got a second account"
    assert lived_in.bridge("map", "audit", nss=True).status == 0


def test_an_adopted_leaver_is_locked_and_comes_back(lived_in: Scratch) -> None:
    assert lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD)).status == 0
    assert lived_in.bridge("provision", "run").status == 0
    lived_in.people.remove("bob")
    assert lived_in.bridge("provision", "run").status == 0
    assert lived_in.rows("shadow")["bob"][7] == "1"
    lived_in.people.put("bob")
    assert lived_in.bridge("provision", "run").status == 0
    assert lived_in.rows("shadow")["bob"][7] == ""


def test_proof_is_shown_and_kept(lived_in: Scratch) -> None:
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD), "--dry-run")
    assert "the IAM has the same user name; home of uid 1500, changed 20" in ran.out
    assert "signed form 17; the IAM has another user name; home of uid 1501" in ran.out
    assert lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD)).status == 0
    assert "proof=signed form 17" in lived_in.bridge("map", "history", "eve").out


def test_a_dry_run_writes_nothing(lived_in: Scratch) -> None:
    where = table(lived_in, GOOD)
    before = {path: path.stat().st_mtime_ns for path in lived_in.folder.rglob("*")}
    ran = lived_in.bridge("map", "adopt", "--from", where, "--dry-run", "--json")
    assert ran.status == 0
    assert [row["account"]["name"] for row in ran.json()["adopted"]] == ["bob", "eve"]
    assert {path: path.stat().st_mtime_ns for path in lived_in.folder.rglob("*")} == before


def test_what_an_admin_should_know_before_is_said(lived_in: Scratch) -> None:
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, f"{HEAD}eve,{ISSUER},s-oscar,\n"), "--dry-run")
    assert ran.status == 0
    assert "! eve: in no group that grants an account: the next run locks" in ran.out
    assert "! eve: the IAM knows them by another name, and the table gives no proof" in ran.out


REFUSED = [
    ("a system name", f"postgres,{ISSUER},s-bob,", "postgres is a system name"),
    ("a uid below 1000", f"www,{ISSUER},s-bob,", "which is no person's"),
    ("uid 0 under another name", f"zero,{ISSUER},s-bob,", "which is no person's"),
    ("root itself", f"root,{ISSUER},s-bob,", "root is a system name"),
    ("root's group", f"odd,{ISSUER},s-bob,", "root's group"),
    ("a name that the store has not", f"zoe,{ISSUER},s-bob,", "the store has no account zoe"),
    ("a number that two names have", f"twin,{ISSUER},s-bob,", "shares uid 1503 with twin2"),
    ("no row in shadow", f"noshadow,{ISSUER},s-bob,", "a lock would have nowhere to stand"),
    ("an issuer of nobody", "bob,https://other.example.org/,s-bob,", "no source of the settings"),
    ("an issuer without its slash", f"bob,{ISSUER[:-1]},s-bob,", "byte for byte"),
    ("an issuer that is none", "bob,http://iam.example.org/,s-bob,", "no https URL"),
    ("a subject whom the IAM does not list", f"bob,{ISSUER},s-zoe,", "does not list the subject s-zoe"),
    ("a subject with a space", f"bob,{ISSUER},s bob,", "characters that no subject has"),
    ("no subject", f"bob,{ISSUER},,", "the subject is missing"),
    ("a name that is none", f"../bob,{ISSUER},s-bob,", "no account name"),
    ("too few fields", f"bob,{ISSUER}", "2 fields, and the head has 4"),
    ("too many fields", f"bob,{ISSUER},s-bob,x,y", "5 fields"),
    ("an open quote", f'"bob,{ISSUER},s-bob,', "no CSV"),
    ("a control character", f"bob,{ISSUER},s-bob,\x1b[2J", "holds control characters"),
    ("a NUL", f"bob,{ISSUER},s-b\x00ob,", "holds control characters"),
    ("a huge line", f"bob,{ISSUER},{'s' * 300_000},", "longer than 2000 characters"),
    ("a long proof", f"bob,{ISSUER},s-bob,{'p' * 201}", "the proof is longer"),
    ("the same account twice", f"eve,{ISSUER},s-bob,", "the account eve stands in line 2 already"),
    ("the same subject twice", f"bob,{ISSUER},s-eve_l,", "the subject s-eve_l stands in line 2 already"),
]


@pytest.mark.parametrize(("row", "told"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_one_bad_row_stops_the_whole_table(lived_in: Scratch, row: str, told: str) -> None:
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, f"{HEAD}eve,{ISSUER},s-eve_l,\n{row}\n"))
    assert ran.status == 3, ran.all
    assert "line 3: " in ran.err
    assert told in ran.err
    assert "nothing is taken over" in ran.err
    assert not any(c in ran.err for c in "\x1b\x00")
    assert len(ran.err) < 2000
    listed = lived_in.bridge("map", "list", "--json")
    assert listed.status == 1 or listed.json() == [], "nobody was taken over"


def test_all_problems_come_at_once_with_their_lines(lived_in: Scratch) -> None:
    rows = f"{HEAD}bob,{ISSUER},s-bob,\nzoe,{ISSUER},s-zoe,\n\n../x,{ISSUER},s-bob,\nwww,{ISSUER},s-oscar,\n"
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, rows))
    assert ran.status == 3
    assert [line.strip().split(":")[0] for line in ran.err.splitlines()[1:4]] == ["line 3", "line 5", "line 6"]


NO_TABLE = [
    ("an empty file", b"", "not the columns"),
    ("no head", f"bob,{ISSUER},s-bob\n".encode(), "not the columns"),
    ("an unknown column", b"name,issuer,sub,uid\n", "not the columns"),
    ("a column twice", b"name,issuer,sub,sub\n", "not the columns"),
    ("only a head", HEAD.encode(), "no rows"),
    ("Latin-1", HEAD.encode() + b"b\xf6b,x,y,\n", "line 2: this is no UTF-8 text"),
    ("UTF-16", GOOD.encode("utf-16"), "no UTF-8 text"),
    ("binary", bytes(range(256)), "no UTF-8 text"),
    ("a head with a NUL", b"name,issuer,su\x00b\n", "control characters"),
]


@pytest.mark.parametrize(("raw", "told"), [n[1:] for n in NO_TABLE], ids=[n[0] for n in NO_TABLE])
def test_what_is_no_table_is_one_sentence(lived_in: Scratch, raw: bytes, told: str) -> None:
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, raw))
    assert ran.status == 2, ran.all
    assert told in ran.err
    assert len(ran.err.splitlines()) <= 2


def test_a_table_from_a_spreadsheet_with_a_mark_and_crlf_is_read(lived_in: Scratch) -> None:
    raw = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert lived_in.bridge("map", "adopt", "--from", table(lived_in, raw)).status == 0


def test_a_table_that_others_may_write_is_not_believed(lived_in: Scratch) -> None:
    path = Path(table(lived_in, GOOD))
    path.chmod(0o666)
    ran = lived_in.bridge("map", "adopt", "--from", str(path))
    assert (ran.status, "somebody else" in ran.err) == (2, True)
    for other in (lived_in.folder, lived_in.folder / "nowhere", Path("/dev/zero")):
        ran = lived_in.bridge("map", "adopt", "--from", str(other))
        assert ran.status == 2
        assert len(ran.err.splitlines()) <= 2


def test_nobody_is_taken_over_twice(lived_in: Scratch) -> None:
    where = table(lived_in, GOOD)
    assert lived_in.bridge("map", "adopt", "--from", where).status == 0
    again = lived_in.bridge("map", "adopt", "--from", where)
    assert again.status == 3
    assert "is in the ledger already" in again.err
    other = lived_in.bridge("map", "adopt", "--from", table(lived_in, f"{HEAD}twin,{ISSUER},s-bob,\n"))
    assert other.status == 3


def test_somebody_who_has_an_account_gets_no_second_one(lived_in: Scratch) -> None:
    assert lived_in.bridge("provision", "run").status == 0  # gives s-eve_l an account, since eve is busy
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, f"{HEAD}eve,{ISSUER},s-eve_l,x\n"))
    assert ran.status == 3
    assert "s-eve_l has an account already: u" in ran.err


def test_a_home_of_somebody_else_is_refused(lived_in: Scratch) -> None:
    os.chown(lived_in.folder / "home" / "bob", EVE, EVE)
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD))
    assert ran.status == 3
    assert "belongs to uid 1501, and the account has 1500" in ran.err


def test_somebody_who_is_banned_is_locked_in_the_same_breath(lived_in: Scratch) -> None:
    assert lived_in.bridge("ban", "add", f"s-bob@{ISSUER}").status == 0
    assert lived_in.bridge("map", "adopt", "--from", table(lived_in, GOOD)).status == 0
    assert lived_in.rows("shadow")["bob"][7] == "1"
    assert lived_in.rows("shadow")["eve"][7] == ""


def test_an_orphan_of_our_range_can_be_taken_over(lived_in: Scratch) -> None:
    row = f"stray:x:{FIRST + 500}:{FIRST + 500}::{lived_in.folder}/home/stray:/bin/bash\n"
    lived_in.etc("passwd").write_text(lived_in.etc("passwd").read_text() + row)
    lived_in.etc("shadow").write_text(lived_in.etc("shadow").read_text() + "stray:*:19000::::::\n")
    assert "orphan" in lived_in.bridge("provision", "run").all or lived_in.bridge("map", "audit", nss=True).status == 1
    ran = lived_in.bridge("map", "adopt", "--from", table(lived_in, f"{HEAD}stray,{ISSUER},s-bob,found\n"))
    assert ran.status == 0, ran.all
    assert lived_in.rows("passwd")["stray"][2] == str(FIRST + 500)


def test_without_an_answer_of_the_iam_the_last_list_counts(lived_in: Scratch) -> None:
    where = table(lived_in, GOOD)
    lived_in.people.path.rename(lived_in.folder / "away")
    ran = lived_in.bridge("map", "adopt", "--from", where)
    assert ran.status == 3
    assert "does not list" in ran.err
    assert "cannot be read" in ran.err, "why it does not is said, too"
