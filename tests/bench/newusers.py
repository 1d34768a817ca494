"""What shadow-utils' `newusers` takes for each row, in a private mount namespace with copies of /etc and /home."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.bench.measure import timed

ROWS = 500
FIRST_UID = 30_000
# A whole /etc is needed: newusers takes passwords by way of PAM. The host's own stays as it is, below the mounts.
_SCRIPT = (
    'mount --bind "$0/etc" /etc && mount --bind "$0/home" /home && newusers "$0/rows" && '
    f"test $(grep -c ^peer /etc/passwd) = {ROWS}"
)


def what_is_missing() -> str:
    """Say why newusers cannot be run here; empty where it can."""
    if os.geteuid() != 0:
        return "newusers needs root"
    return "" if shutil.which("newusers") and shutil.which("unshare") else "install passwd and util-linux"


def time_newusers(folder: Path) -> float:
    """Give the seconds that newusers takes for each of `ROWS` new accounts with homes; raise RuntimeError."""
    folder.mkdir()
    shutil.copytree("/etc", folder / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (folder / "home").mkdir()
    rows = (f"peer{n}:x{n}-Passwort:{FIRST_UID + n}:{FIRST_UID + n}::/home/peer{n}:/bin/sh\n" for n in range(ROWS))
    (folder / "rows").write_text("".join(rows))
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, str(folder)]
    with timed() as span:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"newusers ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return span.wall_s / ROWS
