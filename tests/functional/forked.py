"""A command in a forked copy of this process: the real code with its own streams and environment, without a new start.

An interpreter's start and imports are most of what a short command costs, and these tests run a thousand of them. Not
for a process with threads at work (a server, say): a copy has none of them, and could wait for a lock of theirs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from iam_bridge.cli import main

CRASHED = 70


def run_forked(
    arguments: Sequence[str], environment: Mapping[str, str], stdin: str = "", timeout_s: float = 60.0
) -> tuple[int, str, str]:
    """Run `iam-bridge`; give status, output and errors."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        pid = os.fork()
        if pid == 0:
            _be_command(arguments, environment, (given.fileno(), out.fileno(), err.fileno()))
        status = _wait(pid, timeout_s)
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


def _be_command(arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> NoReturn:
    status = CRASHED
    try:
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, "w" if n else "r", encoding="utf-8", closefd=False) for n in range(3)
        )
        os.environ.clear()
        os.environ.update(environment)
        status = main(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
        _save_coverage()
    except BaseException:  # noqa: BLE001 what a command lets out is what its test must see
        status = CRASHED
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _save_coverage() -> None:
    """Keep what was seen here, where the suite measures."""
    with suppress(ImportError):
        from coverage import Coverage

        current = Coverage.current()
        if current is not None:
            current.stop()
            current.save()


def _wait(pid: int, timeout_s: float) -> int:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError(f"the command did not end within {timeout_s} s")
