"""Our files under the real tools of shadow-utils, and their work beside ours, in a scratch root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iam_bridge.model.account import Account, LockReason
from provisioner.homes import make_homes
from provisioner.stores.disk import open_places
from provisioner.stores.locks import hold_locks
from tests.contract.harness import FilesHarness
from tests.contract.interrupt import count_steps, kill_at
from tests.contract.people import GROUP, account, rules_for, wanted

NEEDED = ("pwck", "grpck", "useradd", "usermod", "gpasswd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the tools of shadow-utils want root"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="shadow-utils are not installed"),
]
LOGIN_DEFS = "UID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\nGID_MAX 60000\nSUB_UID_COUNT 65536\nSUB_GID_COUNT 65536\n"


@pytest.fixture
def harness(tmp_path: Path) -> FilesHarness:
    (tmp_path / "etc").mkdir()
    (tmp_path / "homes").mkdir()
    (tmp_path / "etc/login.defs").write_text(LOGIN_DEFS)
    made = FilesHarness(tmp_path / "etc", "etc")
    made.path("passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    made.path("group").write_text("root:x:0:\n")
    made.path("shadow").write_text("root:*:19000::::::\n")
    made.path("gshadow").write_text("root:*::\n")
    for kind in ("subuid", "subgid"):
        made.path(kind).touch()
    return made


def run(*argv: object) -> str:
    ran = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"{argv[0]}: {ran.returncode}: {ran.stdout}{ran.stderr}"
    return ran.stdout + ran.stderr


def people(count: int = 20) -> list[Account]:
    locks = [LockReason.LEFT]
    return [
        account(f"user{n}", 20000 + n, home=f"/homes/user{n}", groups=[GROUP], locks=locks if n % 3 == 0 else [])
        for n in range(count)
    ]


def test_pwck_and_grpck_have_nothing_to_say(harness: FilesHarness) -> None:
    root = harness.folder.parent
    ours = people()
    harness.store().converge(wanted(*ours))
    real = [replace(person, home=f"{root}{person.home}") for person in ours]
    assert make_homes(real, rules_for(harness.folder)).problems == ()
    for path in ("root", "bin"):
        (root / path).mkdir()
    for shell in ("sh", "bash"):
        (root / "bin" / shell).touch(mode=0o755)
    assert run("pwck", "-r", "-R", root) == ""
    assert run("grpck", "-r", "-R", root) == ""


def test_useradd_and_we_keep_each_others_rows(harness: FilesHarness) -> None:
    root = harness.folder.parent
    ours = people()
    harness.store().converge(wanted(*ours))
    run("useradd", "-R", root, "-u", "1500", "-U", "local")
    run("gpasswd", "-Q", root, "-a", "local", "hpcusers")
    before = harness.fingerprint()
    assert harness.store().converge(wanted(*ours)).written == ()
    assert harness.fingerprint() == before
    harness.store().converge(wanted(*ours, account("late", 20900, groups=[GROUP])))
    snapshot = harness.store().read()
    assert {"local", "late", "user0"} <= snapshot.groups["hpcusers"].members
    assert snapshot.users["local"].uid == 1500
    ranges = sorted(tuple(map(int, line.split(b":")[1:])) for line in harness.lines("subuid"))
    assert all(first + count <= ranges[at + 1][0] for at, (first, count) in enumerate(ranges[:-1]))


def test_usermod_reads_our_lock_and_we_read_its_expiry(harness: FilesHarness) -> None:
    root = harness.folder.parent
    harness.store().converge(wanted(account(locks=[LockReason.LEFT])))
    assert "1970-01-02" in run("chage", "-R", root, "-i", "-l", "alice")
    run("usermod", "-R", root, "-e", "2030-01-01", "alice")
    assert harness.store().read().users["alice"].expiry == "21915"


def test_useradd_waits_while_we_hold_the_locks(harness: FilesHarness) -> None:
    root = harness.folder.parent
    with open_places(rules_for(harness.folder, subids=harness.folder)) as places, hold_locks(places, 1.0):
        adding = subprocess.Popen(["useradd", "-R", str(root), "-u", "1500", "-N", "-g", "0", "local"])
        time.sleep(0.7)
        assert adding.poll() is None
        assert "local" not in harness.store().read().users
    assert adding.wait(timeout=30) == 0
    assert "local" in harness.store().read().users


def test_useradd_takes_over_the_locks_of_a_killed_run(harness: FilesHarness, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(harness.folder, twin / "etc")
    steps = count_steps(lambda: FilesHarness(twin / "etc", "etc").store().converge(wanted(account())))
    kill_at(steps // 2, lambda: harness.store().converge(wanted(account())))
    assert harness.path("passwd.lock").exists()
    run("useradd", "-R", tmp_path, "-u", "1500", "-N", "-g", "0", "local")
    harness.store().converge(wanted(account()))
    assert {"local", "alice"} <= set(harness.store().read().users)
    assert not any(name.endswith(".lock") or "iam-bridge" in name for name in harness.contents())
