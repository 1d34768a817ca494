"""The demo, as root and as anybody: it tells the whole story, in time for a visitor, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iam_bridge.demo.cluster import what_is_missing

ROOT = Path(__file__).parents[2]
SOMEBODY = 12345
STEPS = 9


def tell(user: int | None) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("iam-bridge"))
    env = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [program, "demo", "--plain"], user=user, group=user, extra_groups=None if user is None else [],
        capture_output=True, text=True, timeout=110, check=False, env=env, cwd="/",
    )  # fmt: skip


def check_story(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"^\d\. ", ran.stdout, re.MULTILINE)) == STEPS
    assert "✗" not in ran.stdout
    assert ran.stdout.count("✓") > 15
    assert "eyJ" not in ran.stdout
    assert not list(Path("/tmp").glob("iam-bridge-demo-*"))
    found = subprocess.run(["pgrep", "-f", "iam-bridge-demo-"], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: the demo with a real sshd for other uids needs root")
def test_root_sees_a_real_sshd_open_and_close_accounts() -> None:
    assert not what_is_missing(rooted=True)
    ran = tell(None)
    check_story(ran)
    assert "her key does not work" in ran.stdout
    assert "the open session has ended" in ran.stdout
    assert re.search(r"uid=\d+\(ada\).*\(hpcgpu\)", ran.stdout)


def test_anybody_logs_one_person_in_and_sees_the_rest_by_login_check() -> None:
    assert not what_is_missing(rooted=False)
    user = SOMEBODY if os.geteuid() == 0 else None
    if user is not None:
        reach = subprocess.run([sys.executable, "-c", ""], user=user, group=user, extra_groups=[], check=False, cwd="/")
        if reach.returncode != 0:
            pytest.skip("NOT RUN: this checkout or its Python cannot be read by another account")
    ran = tell(user)
    check_story(ran)
    assert f"uid={user if user is not None else os.geteuid()}" in ran.stdout
    assert "iam-bridge login check grace" in ran.stdout
