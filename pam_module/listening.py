"""The login daemon's socket in the file system, and the account that the daemon becomes.

A dead daemon's socket is replaced, a living one's never: a lock file beside the socket tells them apart and dies with
its holder. SO_PEERCRED shows the module who called listen(2) (unix(7)), so the caller listens only once it is the
account that it stays; and only then does the socket take its name, so that whoever sees it is answered.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import BridgeError, Exit, RunLocked, SettingsError

BACKLOG = 4096
_PATH_MAX = 107  # unix(7): sun_path has 108 bytes with the final NUL
_PR_SET_NO_NEW_PRIVS = 38


class SocketError(BridgeError):
    """The socket cannot be made where the settings want it."""

    code = "socket"
    exit_status = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Who:
    """The account that the daemon runs as."""

    name: str
    uid: int
    gid: int


def find_user(name: str) -> Who:
    """Look up the account that a daemon started as root becomes; raise SettingsError for none, and for root."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise SettingsError(
            f"login.user: there is no account {name!r}", hint="make it (packaging/sysusers.d/iam-bridge.conf)"
        ) from None
    if entry.pw_uid == 0:
        raise SettingsError("login.user: the login daemon does not run as root", hint="name an account of its own")
    return Who(name, entry.pw_uid, entry.pw_gid)


def make_folder(folder: Path, owner: Who | None, mode: int) -> None:
    """Make a missing folder for `owner`; refuse one in which anybody could put a socket of their own."""
    try:
        folder.mkdir(mode=mode)
        if owner is not None:
            os.chown(folder, owner.uid, owner.gid, follow_symlinks=False)
    except FileExistsError:
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise SocketError(f"{folder} is not a folder") from None
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            raise SocketError(f"others may write to {folder}", hint=f"chmod go-w {folder}") from None
    except OSError as error:
        raise SocketError(f"cannot make the folder {folder}: {error.strerror}", hint="name another") from error


class BoundSocket:
    """The socket for `path`, mode 0600, held against other daemons by a lock until `close`; there from `listen` on."""

    def __init__(self, path: Path, owner: Who | None) -> None:
        self.path = path
        self._aside = path.with_name(path.name + ".new")
        if len(os.fsencode(self._aside)) > _PATH_MAX:
            raise SocketError(f"the path {path} is longer than {_PATH_MAX - 4} bytes", hint="shorten login.socket")
        self._lock = _take_lock(path, owner)
        try:
            _check_place(path)
            self.sock = _bind(self._aside, owner)
        except BaseException:
            os.close(self._lock)
            raise
        self._inode = os.lstat(self._aside).st_ino

    def listen(self) -> None:
        """Take connections from now on, under the name that the settings give; replaces what a dead daemon left."""
        self.sock.listen(BACKLOG)
        try:
            os.rename(self._aside, self.path)
        except OSError as error:
            hint = f"its folder must belong to the daemon's account (uid {os.geteuid()})"
            raise SocketError(f"cannot put the socket at {self.path}: {error.strerror}", hint=hint) from error

    def close(self) -> None:
        """Remove the socket's name, if it is still ours, and let another daemon take over."""
        self.sock.close()
        for name in (self.path, self._aside):
            with contextlib.suppress(OSError):
                if os.lstat(name).st_ino == self._inode:
                    os.unlink(name)
        os.close(self._lock)


def _take_lock(path: Path, owner: Who | None) -> int:
    name = f"{path}.lock"
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        found = os.fstat(lock)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:  # what root gives away below may be another's
            os.close(lock)
            raise SocketError(f"{name} is no file of its own", hint="remove it, and see who made it")
        if owner is not None:
            os.fchown(lock, owner.uid, owner.gid)
    except OSError as error:
        raise SocketError(f"cannot open {name}: {error.strerror}", hint="look at the owner of its folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RunLocked(f"another login daemon listens at {path}", hint="stop it first (systemctl status)") from None
    return lock


def _check_place(path: Path) -> None:
    """Refuse to replace what is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SocketError(f"{path} is there and is no socket", hint="move it away, or set login.socket")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SocketError(f"cannot look at {path}: {error.strerror}") from error


def _bind(path: Path, owner: Who | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # the mode from the first moment on: 0600
    try:
        with contextlib.suppress(FileNotFoundError):  # of a daemon that died in between; the lock says that it is dead
            os.unlink(path)
        sock.bind(os.fspath(path))
        if owner is not None:
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    except OSError as error:
        sock.close()
        raise SocketError(f"cannot make the socket {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    return sock


def become(who: Who) -> None:
    """Give up root for good: groups, gid, uid, and never again a privilege by exec (prctl(2), no_new_privs)."""
    import ctypes  # not at the top: a daemon that systemd starts as its own account needs none of this

    os.initgroups(who.name, who.gid)
    os.setresgid(who.gid, who.gid, who.gid)
    os.setresuid(who.uid, who.uid, who.uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SocketError(f"prctl(PR_SET_NO_NEW_PRIVS): {os.strerror(ctypes.get_errno())}")
