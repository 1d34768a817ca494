"""The command in this process, for tables of many cases, and as a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from iam_bridge.cli import main
from tests.functional.site import PROGRAM, Ran

ROOT = Path(__file__).parents[2]


def _checked(ran: Ran) -> Ran:
    assert "Traceback" not in ran.all, ran.all
    assert "internal error" not in ran.all, ran.all
    assert "\x1b" not in ran.all, "something could steer a terminal"
    return ran


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Run a command here; what it says is taken out of `capsys`."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return _checked(Ran(status, *capsys.readouterr()))


def spawn(
    *arguments: object, stdin: str | bytes = "", within: tuple[str, ...] = (), cwd: Path = ROOT, **environment: str
) -> Ran:
    """Run a command as people do."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*within, PROGRAM, *map(str, arguments)], input=data, capture_output=True, timeout=60, check=False, cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return _checked(Ran(done.returncode, out, err))


def as_nobody() -> tuple[str, ...]:
    """Give the words that run a program as nobody where we are root, and none where we are nobody special already."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
