"""A load of logins on the daemon's socket, made by a small C program, so that the processor is left to the daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pam_module.wire import Phase, Request, encode_request

SOURCE = Path(__file__).with_name("load.c")
CLIENTS = 50
SLICES = 10
SLICE_VERDICTS = 1000


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load came to; latencies in microseconds, from connect to the end of the reply."""

    seconds: float
    permits: int
    others: int
    median_us: float
    p99_us: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Give the verdicts per second."""
        return (self.permits + self.others) / self.seconds


def compile_c(source: Path, folder: Path, *flags: str) -> Path:
    """Compile a program of this folder; raise CalledProcessError with what the compiler said."""
    program = folder / source.stem
    argv: list[str | Path] = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", program, *flags]
    subprocess.run(argv, check=True)
    return program


def auth_request(user: str, uid: int, token: str) -> Request:
    """Give the request of the module's auth phase."""
    return Request(Phase.AUTH, os.getpid(), user, "sshd", "ssh", "198.51.100.7", nss_uid=uid, secret=token.encode())


def write_frames(path: Path, requests: Iterable[Request]) -> None:
    """Write requests as frames, one behind the other."""
    with path.open("wb") as file:
        file.writelines(map(encode_request, requests))


def put_load(
    program: Path, socket: Path, frames: Path, *, first: int, count: int, clients: int = CLIENTS
) -> LoadResult:
    """Send `count` frames from the `first` on, each once, by so many clients at a time."""
    argv: list[str | Path] = [program, socket, frames, str(first), str(count), str(clients)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load ended with status {done.returncode}: {done.stderr.strip()}")
    seconds, permits, others, median_us, p99_us, cpu_s = done.stdout.split()
    result = LoadResult(float(seconds), int(permits), int(others), float(median_us), float(p99_us), float(cpu_s))
    if result.permits != count:
        raise RuntimeError(f"{result.others} of {count} good tokens were not let in: see the daemon's log")
    return result


def put_by_turns(
    program: Path, sockets: tuple[Path, Path], frames: tuple[Path, Path]
) -> tuple[list[LoadResult], list[LoadResult]]:
    """Load two daemons, a slice each by turns, so that what else the machine does meanwhile strikes both.

    Takes `SLICES * SLICE_VERDICTS` frames of each file.
    """
    results: tuple[list[LoadResult], list[LoadResult]] = ([], [])
    for turn in range(2 * SLICES):
        which = (0, 1, 1, 0)[turn % 4]
        done = results[which]
        first = len(done) * SLICE_VERDICTS
        done.append(put_load(program, sockets[which], frames[which], first=first, count=SLICE_VERDICTS))
    return results
