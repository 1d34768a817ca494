"""The tutorial, as it stands: every command of it is typed, in its order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/tutorial/first-steps.md"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tutorial-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_newcomer_can_type_the_tutorial(folder: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    typed = "set -eu\n" + "\n".join(blocks[1:])
    programs = str(Path(sys.executable).parent)
    ran = subprocess.run(
        ["sh", "-c", typed], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    accounts = (folder / "cluster/etc/passwd").read_text()
    assert re.search(r"^ada:x:20\d\d\d:", accounts, re.MULTILINE)
    assert re.search(r"^u20\d\d\d:x:", accounts, re.MULTILINE)
    assert not re.search(r"^root:", accounts, re.MULTILINE)
    assert re.search(r"^grace:\*:\d+:[^\n]*:1:\n?", ran.stdout, re.MULTILINE), "the lock is to be seen"
    assert "stolen laptop" in ran.stdout
