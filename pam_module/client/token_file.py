"""The token on disk, for as long as one connection needs it: a file of mode 0600 in a folder of mode 0700.

The name tells the process that it is for (number and start time), so that iam-askpass finds it again without asking,
and what a killed process left behind is known and removed by the next one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from iam_bridge.errors import BridgeError
from iam_bridge.model.token import AccessToken

_START_FIELD = 19  # proc(5): field 22 of stat, counted from field 3, the first behind "(name) "


def start_of(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Give a process's start time in ticks; 0 where the system has no /proc, None where there is no such process."""
    try:
        fields = (proc / str(pid) / "stat").read_bytes().rpartition(b") ")[2].split()
        return int(fields[_START_FIELD])
    except (OSError, IndexError, ValueError):
        pass
    if (proc / "self").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def token_folder(environ: Mapping[str, str], uid: int) -> Path:
    """Name the folder; iam-askpass builds the same name."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        return Path(runtime) / "iam-bridge"
    return Path(f"/tmp/iam-bridge-{uid}")  # noqa: S108 checked below: a real folder, ours, for nobody else


def _open_folder(folder: Path, uid: int) -> int:
    """Make the folder where it is missing and open it; raise BridgeError unless it is ours and closed to others."""
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise BridgeError(
            f"the token has no place: {folder}: {error.strerror}", hint="set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    status = os.fstat(descriptor)
    if status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise BridgeError(
            f"the token has no place: {folder} is not yours alone",
            hint="set XDG_RUNTIME_DIR to a folder of your own, of mode 0700",
        )
    return descriptor


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _sweep(folder: int) -> None:
    """Remove what processes that are gone left behind."""
    for name in os.listdir(folder):
        kind, _, process = name.partition("-")
        pid, _, start = process.partition("-")
        if kind == "token" and pid.isdecimal() and start.isdecimal() and start_of(int(pid)) != int(start):
            _remove(folder, name)


def write_token(token: AccessToken, pid: int, environ: Mapping[str, str], uid: int) -> Path:
    """Write the token for a process and give the file's path; raise BridgeError where there is no safe place."""
    start = start_of(pid)
    if start is None:
        raise BridgeError(f"process {pid} has ended")
    path = token_folder(environ, uid) / f"token-{pid}-{start}"
    folder = _open_folder(path.parent, uid)
    try:
        _sweep(folder)
        _remove(folder, path.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path.name, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(token.reveal().encode("ascii"))
    except OSError as error:
        _remove(folder, path.name)
        raise BridgeError(f"the token cannot be written to {path}: {error.strerror}") from error
    finally:
        os.close(folder)
    return path


@contextmanager
def held_token(token: AccessToken, environ: Mapping[str, str], uid: int) -> Iterator[Path]:
    """Keep the token in a file while the block runs."""
    path = write_token(token, os.getpid(), environ, uid)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
