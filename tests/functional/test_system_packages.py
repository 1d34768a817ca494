"""The script that installs system packages puts back what an installation changed on the host behind our back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/system-packages"
APT = """#!/bin/sh
echo "apt-get $*" >> "$CALLS"
case $1 in install) echo '# edited by a package' >> /etc/nsswitch.conf; exit "${FAILS:-0}" ;; esac
"""
DPKG = "#!/bin/sh\nexit 1\n"


def programs(folder: Path, **texts: str) -> str:
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, text in texts.items():
        path = bin_folder / name.replace("_", "-")
        path.write_text(text)
        path.chmod(0o755)
    return f"{bin_folder}:/usr/bin:/bin"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: a private mount namespace needs root")
@pytest.mark.parametrize("fails", [0, 100])
def test_nsswitch_is_put_back_and_no_policy_is_left(tmp_path: Path, fails: int) -> None:
    before = Path("/etc/nsswitch.conf").read_text()
    own = tmp_path / "nsswitch.conf"
    own.write_text(before)
    env = {
        "PATH": programs(tmp_path, apt_get=APT, dpkg_query=DPKG),
        "CALLS": str(tmp_path / "calls"),
        "FAILS": str(fails),
    }
    inside = 'mount --bind "$0" /etc/nsswitch.conf && exec "$1"'
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside, str(own), str(SCRIPT)]
    had_policy = Path("/usr/sbin/policy-rc.d").exists()
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) is (fails == 0), ran.stderr
    assert "apt-get install" in (tmp_path / "calls").read_text()
    assert own.read_text() == Path("/etc/nsswitch.conf").read_text() == before
    assert Path("/usr/sbin/policy-rc.d").exists() is had_policy


def test_without_root_it_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    path = programs(tmp_path, id="#!/bin/sh\necho 1000\n", dpkg_query=DPKG, apt_get="#!/bin/sh\nexit 99\n")
    ran = subprocess.run([SCRIPT], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert len(ran.stderr.splitlines()) == 1
    assert "sudo apt-get install" in ran.stderr
    assert "openssh-server" in ran.stderr


def test_nothing_is_done_where_all_is_there(tmp_path: Path) -> None:
    installed = "#!/bin/sh\nprintf 'install ok installed'\n"
    path = programs(tmp_path, dpkg_query=installed, apt_get="#!/bin/sh\nexit 99\n")
    ran = subprocess.run([SCRIPT], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
