"""An embedded IAM in a forked process: it serves with the keys that this process mints with.

Forked, so that tens of thousands of tokens can be signed here without asking it, and so that what it costs is not ours.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from iam_bridge.demo.iam import EmbeddedIam, running_iam
from iam_bridge.demo.iam.records import DataSet

FORK = multiprocessing.get_context("fork")
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class IamProcess:
    """`iam` is this process's copy: it knows issuer, people and keys, and mints; what it is told reaches no server."""

    data: DataSet
    iam: EmbeddedIam
    ca_file: Path
    _pipe: Connection

    def call(self, command: str, **arguments: Any) -> None:
        """Run a method of the served IAM, such as `fault`."""
        self._ask(command, arguments)

    def connections(self) -> int:
        """Count the TCP connections that the served IAM has ever accepted."""
        count = self._ask("connections", {})
        assert isinstance(count, int)
        return count

    def _ask(self, command: str, arguments: dict[str, Any]) -> object:
        self._pipe.send((command, arguments))
        if not self._pipe.poll(STOP_S):
            raise RuntimeError("the embedded IAM does not answer")
        answer: object = self._pipe.recv()
        return answer


def _serve(iam: EmbeddedIam, folder: Path, pipe: Connection) -> None:
    with running_iam(iam, folder) as served:
        pipe.send((served.issuer, served.ca_file))
        while True:
            try:
                command, arguments = pipe.recv()
            except EOFError:  # whoever started us is done, or gone
                return
            if command == "connections":
                pipe.send(served.connections)
            else:
                getattr(iam, command)(**arguments)
                pipe.send(None)


@contextmanager
def forked_iam(data: DataSet, folder: Path) -> Iterator[IamProcess]:
    """Serve these people from a fork of this process until the block ends."""
    iam = EmbeddedIam(data)
    ours, theirs = FORK.Pipe()

    def work() -> None:
        ours.close()
        _serve(iam, folder, theirs)

    process = FORK.Process(target=work, daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(STOP_S):
            raise RuntimeError("the embedded IAM did not start")
        iam.issuer, ca_file = ours.recv()
        yield IamProcess(data, iam, ca_file, ours)
    finally:
        ours.close()
        process.join(STOP_S)
        if process.is_alive():
            process.kill()
            process.join()
