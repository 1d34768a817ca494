"""`iam-bridge provision` from end to end: a file of people, real files of accounts, the real command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.functional.site import FIRST, IS_ROOT, Scratch, sub_of

NOBODY = 65534
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else, or give homes away")


def test_a_plan_before_the_first_run_shows_everything_and_writes_nothing(scratch: Scratch) -> None:
    scratch.people.put("ada", "hpc/users", "hpc/gpu")
    before = {path: path.stat().st_mtime_ns for path in scratch.folder.rglob("*")}
    ran = scratch.bridge("provision", "plan")
    assert ran.status == 4
    assert f"+ create       ada      uid {FIRST + 2}  +hpcgpu +hpcusers" in ran.out
    assert "1 create" in ran.out
    assert {path: path.stat().st_mtime_ns for path in scratch.folder.rglob("*")} == before


def test_a_run_makes_group_account_shadow_and_home(scratch: Scratch) -> None:
    scratch.people.put("ada", "hpc/users", "hpc/gpu")
    ran = scratch.bridge("provision", "run")
    assert ran.status == (0 if IS_ROOT else 1), ran.all
    uid = str(FIRST + 2)
    assert scratch.rows("passwd")["ada"][2:] == [
        uid,
        uid,
        f"iam-bridge-{uid}",
        f"{scratch.folder}/home/ada",
        "/bin/bash",
    ]
    assert scratch.rows("group")["hpcgpu"][3] == "ada"
    assert scratch.rows("shadow")["ada"][1] == "*"
    assert "Lovelace" not in scratch.etc("passwd").read_text()
    if IS_ROOT:
        assert (scratch.folder / "home" / "ada").stat().st_uid == FIRST + 2


@needs_root
def test_a_second_run_writes_nothing_to_the_store_and_one_row(filled: Scratch) -> None:
    before = filled.stamps()
    assert filled.bridge("provision", "plan").status == 0
    ran = filled.bridge("provision", "run")
    assert (ran.status, ran.out) == (0, "nothing to do\n")
    assert filled.stamps() == before
    runs = filled.bridge("provision", "status", "--json").json()["runs"]
    assert [run["outcome"] for run in runs] == ["nothing-to-do", "done"]


@needs_root
def test_a_leaver_is_locked_and_comes_back_as_the_same_account(filled: Scratch) -> None:
    before = filled.rows("passwd")["grace"]
    filled.people.remove("grace")
    ran = filled.bridge("provision", "run")
    assert ran.status == 0
    assert f"~ lock grace uid {before[2]}  left" in ran.out
    assert filled.rows("shadow")["grace"][7] == "1"
    assert filled.rows("passwd")["grace"] == before, "a tombstone stays"
    filled.people.put("grace")
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["grace"][7] == ""
    assert filled.rows("passwd")["grace"] == before


@needs_root
def test_an_expiry_that_somebody_else_wrote_comes_back_with_the_account(filled: Scratch) -> None:
    rows = filled.etc("shadow").read_text().replace("grace:*:", "grace:*:").splitlines()
    rows = [":".join([*row.split(":")[:7], "47482", ""]) if row.startswith("grace:") else row for row in rows]
    filled.etc("shadow").write_text("\n".join(rows) + "\n")
    filled.people.remove("grace")
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["grace"][7] == "1"
    filled.people.put("grace")
    assert filled.bridge("provision", "run").status == 0
    assert filled.rows("shadow")["grace"][7] == "47482"


@needs_root
def test_a_suspended_member_is_locked_and_gets_no_account_at_first(filled: Scratch) -> None:
    filled.people.put("grace", active=False)
    filled.people.put("mallory", active=False)
    ran = filled.bridge("provision", "run")
    assert "suspended" in ran.out
    assert "? mallory gets no account: suspended at the IAM" in ran.out
    assert filled.rows("shadow")["grace"][7] == "1"
    assert "mallory" not in filled.rows("passwd")


@needs_root
def test_leavers_above_the_limit_wait_and_newcomers_do_not(scratch: Scratch) -> None:
    names = [f"p{number}" for number in range(8)]
    scratch.set_up(names)
    scratch.people.remove(*names[:4])
    scratch.people.put("late")
    plan = scratch.bridge("provision", "plan")
    assert plan.status == 4
    ran = scratch.bridge("provision", "run")
    assert ran.status == 3
    assert "4 changes wait" in ran.out
    assert "late" in scratch.rows("passwd"), "additions go on"
    assert all(scratch.rows("shadow")[name][7] == "" for name in names), "nobody lost anything"
    (digest,) = [row["digest"] for row in scratch.bridge("provision", "status", "--json").json()["parked"]]
    assert f"provision approve {digest}" in ran.out
    approved = scratch.bridge("provision", "approve", digest)
    assert (approved.status, "4 changes approved" in approved.out) == (0, True)
    scratch.people.put(names[0])
    assert scratch.bridge("provision", "run").status == 0
    locked = [name for name in names if scratch.rows("shadow")[name][7] == "1"]
    assert locked == names[1:4], "only what is approved and still due"
    assert scratch.bridge("provision", "status", "--json").json()["parked"] == []


@needs_root
def test_a_parked_leaver_keeps_their_record_and_why_says_so(scratch: Scratch) -> None:
    names = [f"p{number}" for number in range(8)]
    scratch.set_up(names)
    scratch.people.remove(*names[:4])
    assert scratch.bridge("provision", "run", "--quiet").status == 3
    ran = scratch.bridge("map", "why", "p0", nss=True)
    assert "login now: permitted" in ran.out
    assert "! lock left waits" in ran.out
    assert [f["code"] for f in scratch.bridge("map", "audit", "--json", nss=True).json()] == ["parked"] * 4


WRONG_DIGESTS = [
    ("one that nobody has", "0123456789ab"),
    ("text", "../../etc"),
    ("control characters", "\x1b[2J"),
    ("a long one", "f" * 5000),
]


@needs_root
@pytest.mark.parametrize("digest", [d for _, d in WRONG_DIGESTS], ids=[i for i, _ in WRONG_DIGESTS])
def test_a_digest_that_does_not_wait_is_refused_by_one_sentence(filled: Scratch, digest: str) -> None:
    ran = filled.bridge("provision", "approve", digest)
    assert ran.status == 3
    assert "nothing is parked" in ran.err
    assert "\x1b" not in ran.all


def test_a_first_run_above_the_limit_waits_for_initial(open_folder: Path) -> None:
    site = Scratch(open_folder, limits="  creates: {most: 2, percent: 0}")
    for number in range(5):
        site.people.put(f"p{number}")
    ran = site.bridge("provision", "run")
    assert ran.status == 3
    assert "--initial" in ran.out
    assert "p0" not in site.rows("passwd")
    assert site.bridge("provision", "plan", "--initial", "5").status == 4
    site.bridge("provision", "run", "--initial", "5")
    assert {f"p{number}" for number in range(5)} <= site.rows("passwd").keys()


def test_initial_takes_no_number_below_zero(scratch: Scratch) -> None:
    ran = scratch.bridge("provision", "run", "--initial", "-1")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 2


@needs_root
def test_an_incomplete_list_adds_and_removes_nothing(filled: Scratch) -> None:
    # A mapped group that the list lacks makes it incomplete; grace is missing from it, and linus is new.
    filled.people.remove("grace")
    filled.people.put("linus")
    text = filled.people.path.read_text().replace("groups: [hpc/users, hpc/gpu]", "groups: [hpc/users]")
    filled.people.path.write_text(text)
    plan = filled.bridge("provision", "plan")
    assert plan.status == 4
    assert "not complete" in plan.err
    assert filled.bridge("provision", "run").status == 75
    assert filled.rows("shadow")["grace"][7] == ""
    assert "linus" in filled.rows("passwd")
    source = filled.bridge("provision", "status", "--json").json()["sources"][0]
    assert "hpc/gpu" in source["reason"]
    assert source["members"] == 2, "the last complete list still counts"


@needs_root
def test_without_an_answer_nothing_changes_and_the_status_is_75(filled: Scratch) -> None:
    before = filled.stamps()
    filled.people.path.unlink()
    plan = filled.bridge("provision", "plan")
    assert plan.status == 75
    assert "cannot be read" in plan.err
    ran = filled.bridge("provision", "run", "--quiet")
    assert ran.status == 75
    assert "cannot be read" in ran.err
    assert filled.stamps() == before


@needs_root
def test_quiet_says_nothing_when_all_is_well_and_speaks_when_not(filled: Scratch) -> None:
    filled.people.put("linus")
    quiet = filled.bridge("provision", "run", "--quiet")
    assert (quiet.status, quiet.all) == (0, "")
    filled.etc("group").write_text(filled.etc("group").read_text() + "zoe:x:47:\n")
    (filled.folder / "home").chmod(0o777)
    filled.people.put("late")
    loud = filled.bridge("provision", "run", "--quiet")
    assert loud.status == 1
    assert "writable by others" in loud.out


@needs_root
def test_hostile_user_names_reach_neither_files_nor_terminal(scratch: Scratch) -> None:
    hostile = [
        "root",
        "daemon",
        "postgres",
        "../../etc",
        "-x",
        "a:b",
        "new\nline",
        "\x1b[2J",
        "\u202eevil",
        "\u0440\u0430ypal",
        "x" * 300,
        "123",
        "sp ace",
        "systemd-x",
        "hpcusers",
    ]
    for name in hostile:
        scratch.people.put(name)
    plan, ran = scratch.bridge("provision", "plan"), scratch.bridge("provision", "run")
    assert (plan.status, ran.status) == (4, 0)
    for text in (plan.all, ran.all):
        assert not any(c in text for c in "\x1b\u202e\x07")
    made = set(scratch.rows("passwd")) - {"root", "nobody"}
    assert len(made) == len(hostile)
    assert all(name == f"u{scratch.rows('passwd')[name][2]}" for name in made)
    listed = scratch.bridge("map", "list", "--json").json()
    assert {row["subject"] for row in listed} == {f"{sub_of(name)}@{scratch.issuer}" for name in hostile}


@needs_root
def test_names_that_nss_knows_and_the_ledger_does_not_are_given_to_nobody(scratch: Scratch) -> None:
    scratch.write_etc(passwd="locala:x:1500:1500::/:/bin/sh\n", group="localg:x:1500:\n")
    elsewhere = scratch.folder / "directory"
    elsewhere.mkdir()
    (elsewhere / "passwd").write_text(scratch.etc("passwd").read_text() + "remotea:x:7001:7001::/:/bin/sh\n")
    (elsewhere / "group").write_text(scratch.etc("group").read_text() + "remoteg:x:7002:\n")
    nss = scratch.name_service()
    nss |= {"NSS_WRAPPER_PASSWD": f"{elsewhere}/passwd", "NSS_WRAPPER_GROUP": f"{elsewhere}/group"}
    scratch.spawns = True
    names = {"locala", "localg", "remotea", "remoteg"}
    for name in (*names, "ada"):
        scratch.people.put(name)
    ran = scratch.bridge("provision", "run", **nss)
    assert ran.status == 0, ran.all
    ours = {row["name"] for row in scratch.bridge("map", "list", "--json").json()}
    assert "ada" in ours
    assert len(ours) == len(names) + 1
    assert not ours & names
    assert scratch.rows("passwd")["locala"][2] == "1500"


@needs_root
def test_markup_of_a_terminal_library_is_text(scratch: Scratch) -> None:
    scratch.people.put("[bold]x[/bold] :smile:")
    assert "[bold]x[/bold] :smile:" in scratch.bridge("provision", "plan").out


def test_a_plan_as_json_is_whole(scratch: Scratch) -> None:
    scratch.people.put("ada", "hpc/users", "hpc/gpu")
    scratch.people.put("mallory", active=False)
    told = scratch.bridge("provision", "plan", "--json").json()
    assert [change["kind"] for change in told["changes"]] == ["create-group", "create-group", "create"]
    assert told["changes"][2]["name"] == "ada"
    assert told["refused"][0]["why"] == "suspended at the IAM"
    assert (told["parked"], told["unavailable"]) == ([], [])


def _hold(site: Scratch, lock: Path) -> subprocess.Popen[str]:
    """Start a process that holds a lock of the site as a command would."""
    code = (
        "import sys, datetime, pathlib; from iam_bridge.ledger.lock import RunLock;"
        "now = datetime.datetime.now(datetime.UTC);"
        "held = RunLock(pathlib.Path(sys.argv[1]), now=now, command='provision run by cron');"
        "held.__enter__(); print('held', flush=True); sys.stdin.read()"
    )
    python = str(Path(site.argv()[0]).with_name("python"))
    process = subprocess.Popen(
        [python, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_of_two_runs_says_who_is_at_work_and_exits_75(filled: Scratch) -> None:
    with _hold(filled, filled.folder / "state" / "provision-run") as other:
        start = time.monotonic()
        ran = filled.bridge("provision", "run")
        took = time.monotonic() - start
        other.communicate("")
    assert ran.status == 75
    assert f"pid {other.pid}" in ran.err
    assert "provision run by cron" in ran.err
    assert took < 5
    assert filled.bridge("provision", "run").status == 0


def test_a_writing_command_waits_a_little_for_a_run_that_ends(filled: Scratch) -> None:
    with _hold(filled, filled.ledger) as other:
        waiting = subprocess.Popen(filled.argv("ban", "add", "ada"), env=filled.environment(), stdout=subprocess.PIPE)
        time.sleep(0.7)
        assert waiting.poll() is None
        other.communicate("")
        waiting.communicate(timeout=20)
    assert waiting.returncode == 0


@needs_root
@pytest.mark.skipif(not shutil.which("useradd"), reason="shadow-utils are not installed")
def test_a_run_waits_for_a_useradd_at_work_and_keeps_its_row(filled: Scratch) -> None:
    filled.people.put("linus")
    with filled.etc("group").open("a") as group:  # to be read under the lock: time enough to stop it there
        group.writelines(f"project{n}:x:{100_000 + n}:\n" for n in range(20_000))
    argv = ["useradd", "-R", str(filled.folder), "-M", "-N", "-g", "0", "-u", "1500", "local"]
    with subprocess.Popen(argv) as useradd:
        while not filled.etc("passwd.lock").exists():
            assert useradd.poll() is None
        useradd.send_signal(signal.SIGSTOP)
        try:
            assert filled.etc("passwd.lock").read_text().rstrip("\0\n") == str(useradd.pid)
            run = subprocess.Popen(filled.argv("provision", "run"), env=filled.environment(), stdout=subprocess.PIPE)
            time.sleep(1)
            assert run.poll() is None
            assert not {"local", "linus"} & filled.rows("passwd").keys()
        finally:
            useradd.send_signal(signal.SIGCONT)
        run.communicate(timeout=20)
    assert (useradd.returncode, run.returncode) == (0, 0)
    passwd = filled.rows("passwd")
    assert (passwd["local"][2], passwd["linus"][2]) == ("1500", str(FIRST + 4))


@needs_root
def test_without_root_a_site_of_ones_own_works(open_folder: Path) -> None:
    site = Scratch(open_folder, user=NOBODY)
    site.people.put("ada")
    assert site.bridge("provision", "plan").status == 4
    assert site.bridge("provision", "run").status == 0
    assert site.bridge("provision", "run").out == "nothing to do\n"
    assert site.bridge("map", "audit", nss=True).status == 0
    assert site.bridge("ban", "add", "ada").status == 0
    assert site.rows("shadow")["ada"][7] == "1"


@needs_root
def test_somebody_without_rights_is_told_so(filled: Scratch) -> None:
    stranger = Scratch.__new__(Scratch)
    stranger.__dict__.update(filled.__dict__ | {"user": NOBODY})
    for arguments in (["provision", "plan"], ["provision", "run"], ["map", "list"], ["ban", "add", "ada"]):
        ran = stranger.bridge(*arguments)
        assert ran.status == 1, ran.all
        assert len(ran.err.splitlines()) <= 2, ran.err
        assert "Permission denied" in ran.err or "belongs to uid 0" in ran.err, ran.err


def test_json_of_status_is_ascii_and_parses(filled: Scratch) -> None:
    ran = filled.bridge("provision", "status", "--json")
    assert ran.out.isascii()
    assert json.loads(ran.out)["site"] == "hpc.example.org"


def test_status_before_the_first_run_names_it(scratch: Scratch) -> None:
    ran = scratch.bridge("provision", "status")
    assert ran.status == 1
    assert "provision run" in ran.err


@needs_root
def test_what_runs_for_a_locked_account_is_ended_by_the_run(filled: Scratch) -> None:
    uid = int(filled.rows("passwd")["grace"][2])
    with subprocess.Popen(["sleep", "300"], user=uid, group=uid, extra_groups=()) as process:
        filled.people.remove("grace")
        ran = filled.bridge("provision", "run")
        assert process.wait(5) < 0
    assert ran.status == 0
    assert f"{process.pid} sleep" in ran.out


def test_settings_that_cannot_be_believed_are_told_with_lines(scratch: Scratch) -> None:
    scratch.settings.write_text(scratch.settings.read_text().replace("audience: [", "audiense: ["))
    ran = scratch.bridge("provision", "plan")
    assert ran.status == 2
    assert "login.audiense" in ran.err
    assert "line " in ran.err
    missing = scratch.bridge("provision", "plan", IAM_BRIDGE_CONFIG=str(scratch.folder / "nowhere.yaml"))
    assert (missing.status, "nowhere.yaml" in missing.err) == (2, True)


def test_the_option_config_wins_over_the_variable_at_both_places(scratch: Scratch) -> None:
    scratch.people.put("ada")
    wrong = {"IAM_BRIDGE_CONFIG": "/nonexistent/settings.yaml"}
    before = scratch.bridge("--config", str(scratch.settings), "provision", "plan", **wrong)
    after = scratch.bridge("provision", "plan", "--config", str(scratch.settings), **wrong)
    assert (before.status, after.status) == (4, 4)


def test_the_pull_happens_as_the_user_of_the_settings(scratch: Scratch) -> None:
    scratch.people.put("ada")
    scratch.settings.write_text(scratch.settings.read_text().replace("user: nobody", "user: nosuchuser"))
    ran = scratch.bridge("provision", "plan")
    if IS_ROOT:
        assert ran.status == 2
        assert "nosuchuser" in ran.err
    else:
        assert ran.status == 4
    assert os.environ.get("IAM_BRIDGE_CONFIG") is None
