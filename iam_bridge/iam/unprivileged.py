"""How a forked child gives its rights away for good, before it talks to the network.

Forked and not executed: the interpreter may live where the unprivileged user cannot read. Hence everything that is
imported late by somebody (the codec of host names, say) has to be loaded before; `members.source_of` sees to it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
from dataclasses import dataclass

from iam_bridge.errors import SettingsError

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class User:
    """An account of the host that is not root."""

    name: str
    uid: int
    gid: int


def find_user(name: str) -> User:
    """Look up who does the pull; raise SettingsError where the host has no such account, or where it is root."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        line = f'u {name} - "IAM bridge"'
        hint = f"create it: put the line {line!r} into /etc/sysusers.d/iam-bridge.conf and run systemd-sysusers"
        raise SettingsError(f"the user {name!r} of the pull does not exist on this host", hint=hint) from error
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        hint = "name an account of its own, such as iam-bridge-sync"
        raise SettingsError(f"the user {name!r} of the pull is root, or in root's group", hint=hint)
    return User(name, entry.pw_uid, entry.pw_gid)


def isolate(keep_fd: int) -> None:
    """Leave nothing open but `keep_fd`: standard streams go to /dev/null, signals to their defaults."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, keep_fd)
    os.closerange(keep_fd + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def limit(*, memory_bytes: int, cpu_s: int) -> None:
    """Bound what this process may use; no file grows (a pipe may) and no core holds what it knows."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, 64)
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_AS, memory_bytes)


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))


def become(user: User | None, parent: int) -> None:
    """Be `user` for good, where one is given, and die with the process `parent`.

    Raises OSError when the kernel refuses a step; then nothing of the work may be done.
    """
    if user is not None:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3 or os.getgroups():
            raise PermissionError("the rights of root are still there")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # After the change of uid, which clears it; a parent that died before this line shows as another one.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError("the run that wanted this is gone")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl was refused")
