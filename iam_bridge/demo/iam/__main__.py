"""Run an embedded IAM as a process of its own: `python -m iam_bridge.demo.iam --people 10000`.

When it listens it prints one line of JSON (issuer, ca_file, admin_url, admin_token, people, pid) on standard
output.  It ends at SIGTERM or SIGINT, after `--seconds`, or when its standard input was a pipe that closed, so
that it cannot outlive who started it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from iam_bridge.demo.iam.datasets import demo_people, indigo_fixture, synthetic_people
from iam_bridge.demo.iam.records import DataSet
from iam_bridge.demo.iam.server import ServedIam, running_iam
from iam_bridge.demo.iam.state import EmbeddedIam


class _Stop(BaseException):
    """A signal asked the process to end."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; a wrong one ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="python -m iam_bridge.demo.iam", description=__doc__)
    parser.add_argument("--data", choices=("synthetic", "demo", "fixture"), default="synthetic")
    parser.add_argument("--people", type=int, default=1000, help="how many synthetic people (default 1000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the synthetic people")
    parser.add_argument("--host", choices=("127.0.0.1", "localhost"), default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, help="where certificates go (default: a temporary folder)")
    parser.add_argument("--ca-file", type=Path, help="write the CA certificate here, too")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    arguments = parser.parse_args(argv)
    if arguments.people < 0 or not 0 <= arguments.port <= 65535:
        parser.error("--people must be 0 or more and --port 0 to 65535")
    return arguments


def make_data(arguments: argparse.Namespace) -> DataSet:
    """Make the data set that the command line names."""
    if arguments.data == "demo":
        return demo_people()
    if arguments.data == "fixture":
        return indigo_fixture()
    return synthetic_people(arguments.people, arguments.seed)


def announce(served: ServedIam) -> str:
    """Write the ready line."""
    people, _ = served.iam.stats()
    return json.dumps(
        {
            "issuer": served.issuer,
            "ca_file": str(served.ca_file),
            "admin_url": f"{served.base_url}/-/",
            "admin_token": served.admin_token,
            "people": people,
            "pid": os.getpid(),
        }
    )


def wait_for_end(seconds: float | None) -> None:
    """Wait until the time is over or the pipe on standard input closes; signals raise through it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    watched = [sys.stdin] if _is_pipe(0) else []
    while deadline is None or time.monotonic() < deadline:
        left = 3600.0 if deadline is None else max(deadline - time.monotonic(), 0)
        readable, _, _ = select.select(watched, [], [], left)
        if readable and not os.read(0, 4096):
            return


def _is_pipe(descriptor: int) -> bool:
    # /dev/null is at its end from the start: a service manager's stdin must not stop the process.
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _raise_stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stop


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until told to end."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _raise_stop)
    signal.signal(signal.SIGINT, _raise_stop)
    try:
        with tempfile.TemporaryDirectory(prefix="embedded-iam-") as scratch:
            iam = EmbeddedIam(make_data(arguments))
            folder = arguments.folder or Path(scratch)
            with running_iam(
                iam, folder, host=arguments.host, port=arguments.port, ca_file=arguments.ca_file
            ) as served:
                print(announce(served), flush=True)  # noqa: T201 the ready line is the interface
                wait_for_end(arguments.seconds)
    except _Stop:
        return 0
    except OSError as problem:
        where = problem.filename or f"port {arguments.port}"
        reason = problem.strerror or problem
        print(f"embedded IAM: {where}: {reason}: name another --folder or --port", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
