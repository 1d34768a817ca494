"""Both kinds of locks that shadow-utils honour, taken in their order: `.pwd.lock`, then `FILE.lock` with our pid.

lckpwdf(3) is a POSIX record lock on `.pwd.lock`; systemd-sysusers takes that one alone. `passwd.lock` and its like are
made by link(2) from a file that holds the pid (shadow's commonio); a lock of a process that is no more is taken over.
A holder that lives is waited for, and named when the patience ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from iam_bridge.errors import StoreError
from provisioner.stores.disk import Place, read_file, remove, told

PWD_LOCK = ".pwd.lock"
_PAUSE_S = 0.02
_FLOCK = "hhqqi"  # struct flock of fcntl(2): type, whence, start, length, pid

# Record locks belong to the process: threads of one process would not keep each other out.
_ONE_THREAD = threading.Lock()


def lock_name(name: str) -> str:
    """Give the lock file that shadow-utils use for a file."""
    return f"{name}.lock"


def lock_temp(name: str) -> str:
    """Give the file that we link to the lock."""
    return f"{name}.iam-bridge-lock"


def is_abandoned(place: Place, name: str) -> bool:
    """Tell whether the file's lock is there and its holder is no more."""
    content = read_file(place, lock_name(name))
    return content is not None and not _is_alive(_parse_pid(content))


def _parse_pid(content: bytes) -> int:
    """Read the pid in a lock file (shadow-utils end it with a NUL); 0 where there is none."""
    text = content.split(b"\0")[0].strip()
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _is_alive(pid: int) -> bool:
    """Tell whether the holder may still be at work; a lock without a pid counts as held, as with shadow-utils."""
    if pid == 0:
        return True
    if pid == os.getpid():  # under `_ONE_THREAD` we hold none: an earlier process had our number
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _name_process(pid: int) -> str:
    """Write a process for people: its number and its command."""
    if pid == 0:
        return "a process that it does not name"
    try:
        command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({command})" if command.isprintable() else f"process {pid}"


class _Patience:
    """How long we still wait, over all locks together."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until = time.monotonic() + timeout_s

    def wait(self, path: Path, pid: int) -> None:
        """Pause; raise StoreError, naming the holder, when there was enough of it."""
        if time.monotonic() >= self._until:
            raise StoreError(
                f"{path} is held by {_name_process(pid)}, waited {self._timeout_s:g} s; nothing was changed",
                hint="run again when it has ended",
            )
        time.sleep(_PAUSE_S)


def _record_holder(fd: int) -> int:
    """Ask the kernel who holds the record lock (F_GETLK); 0 where it is free again or the holder cannot be seen."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


@contextmanager
def _hold_pwd_lock(place: Place, patience: _Patience) -> Iterator[None]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with told(f"open the lock {place.path / PWD_LOCK}", "nothing was changed"):
        fd = os.open(PWD_LOCK, flags, 0o600, dir_fd=place.fd)
    try:
        while True:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                patience.wait(place.path / PWD_LOCK, _record_holder(fd))
        yield
    finally:
        os.close(fd)


def _link_lock(place: Place, name: str, patience: _Patience) -> None:
    """Link the lock into place, taking over one whose holder is no more."""
    lock = lock_name(name)
    while True:
        try:
            os.link(lock_temp(name), lock, src_dir_fd=place.fd, dst_dir_fd=place.fd)
        except FileExistsError:
            content = read_file(place, lock)
            pid = 0 if content is None else _parse_pid(content)
            if content is None:
                continue
            if not _is_alive(pid):
                remove(place, lock)
            else:
                patience.wait(place.path / lock, pid)
        else:
            return


@contextmanager
def _hold_file_lock(place: Place, name: str, patience: _Patience) -> Iterator[None]:
    temp = lock_temp(name)
    with told(f"take the lock {place.path / lock_name(name)}", "nothing was changed"):
        remove(place, temp)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temp, flags, 0o600, dir_fd=place.fd)
            try:
                os.write(fd, b"%d\0" % os.getpid())
            finally:
                os.close(fd)
            _link_lock(place, name, patience)
        finally:
            remove(place, temp)
    try:
        yield
    finally:
        with told(f"release the lock {place.path / lock_name(name)}"):
            remove(place, lock_name(name))


@contextmanager
def hold_locks(places: Sequence[Place], timeout_s: float) -> Iterator[None]:
    """Hold every lock of these files; raise StoreError that names the holder after `timeout_s` seconds."""
    patience = _Patience(timeout_s)
    with _ONE_THREAD, ExitStack() as held:
        for place in sorted(places, key=lambda place: place.path):
            held.enter_context(_hold_pwd_lock(place, patience))
        for place in places:
            for name in place.files:
                held.enter_context(_hold_file_lock(place, name, patience))
        yield
