"""Ending a session that came by a real sshd."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.processes import read_processes
from provisioner.sessions import Host, end_sessions
from tests.e2e.test_client_ssh import HOST, ROOT, UIDS, Site, running_node, write_node, write_researcher

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.getuid() != 0, reason="a real sshd for other uids needs root")]
UID = UIDS["tess"]


@pytest.fixture(scope="module")
def node() -> Iterator[Site]:
    subprocess.run(["make", "-s", "-C", ROOT / "pam_module"], check=True)
    with tempfile.TemporaryDirectory(prefix="iam-bridge-sessions-") as name:
        Path(name).chmod(0o755)
        site = Site(Path(name))
        write_node(site, ROOT / "pam_module/build/pam_iam.so")
        write_researcher(site)
        with running_node(site):
            yield site


def monitors() -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith("sshd") and "tess" in line]


def test_a_session_its_background_processes_and_sshds_monitor_end_within_a_second(node: Site) -> None:
    command = (
        "iam-ssh",
        "--token-file",
        str(node.token_file),
        "-F",
        str(node.config),
        HOST,
        "trap '' TERM; nohup sleep 1000 </dev/null >/dev/null 2>&1 & setsid sleep 1001 & echo in; cat",
    )
    with subprocess.Popen(command, env=node.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"in\n"
        assert monitors()
        before = time.monotonic()
        report = end_sessions(UID, "tess", host=Host())
        took_s = time.monotonic() - before
        assert session.wait(5) == 255
    assert report.left == ()
    assert {"sleep", "cat"} <= {process.command for process in report.ended}
    assert read_processes(UID) == ()
    assert took_s < 1.5
    deadline = time.monotonic() + 2
    while monitors() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert monitors() == []
