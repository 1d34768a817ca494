"""Start an embedded IAM as a process of its own, and speak to its administrative door.

Benchmarks need this: a server in the same process shares the interpreter with what is measured.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

START_TIMEOUT_S = 60.0
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class RemoteIam:
    """A served IAM in another process: what its ready line said."""

    issuer: str
    ca_file: Path
    admin_url: str
    admin_token: str
    people: int
    pid: int

    @property
    def base_url(self) -> str:
        """Give the issuer without its final slash."""
        return self.issuer.rstrip("/")

    def call(self, command: str, **arguments: Any) -> Any:
        """Run an administrative command (`mint`, `suspend`, `fault`...) with a method's arguments by name.

        Raises:
            ValueError: the IAM refused it, with its sentence.
        """
        answer = requests.post(
            f"{self.admin_url}{command}",
            json=arguments,
            headers={"Authorization": f"Bearer {self.admin_token}"},
            verify=str(self.ca_file),
            timeout=CALL_TIMEOUT_S,
        )
        body = answer.json()
        if answer.status_code != 200:
            raise ValueError(body["error"])
        return body["result"]


@contextlib.contextmanager
def spawned_iam(folder: Path, *options: str) -> Iterator[RemoteIam]:
    """Run `python -m iam_bridge.demo.iam` with `options` until the block ends.

    Raises:
        RuntimeError: the process ended before it was ready; its own words are on standard error.
    """
    argv = [sys.executable, "-m", "iam_bridge.demo.iam", "--folder", str(folder), *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the embedded IAM ended with status {process.wait(START_TIMEOUT_S)} at its start")
            ready = json.loads(line)
            yield RemoteIam(**{**ready, "ca_file": Path(ready["ca_file"])})
        finally:
            # The pipe on its standard input is its life line.
            process.stdin.close()
            try:
                process.wait(CALL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
