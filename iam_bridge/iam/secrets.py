"""Client secrets: read from their files, and only from files that not everybody can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from iam_bridge.errors import SettingsError

MAX_SECRET_BYTES = 4096


def read_secret(path: Path) -> str:
    """Read a client secret; one final line break is not part of it.

    Raises SettingsError when the file is missing, no plain file, readable or writable for others, writable for its
    group, empty, too long, or not one line of printable ASCII.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise SettingsError(f"the secret file {path} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"the secret file {path} is no plain file")
        if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            mode = stat.S_IMODE(status.st_mode)
            raise SettingsError(f"the secret file {path} has mode {mode:04o}", hint=f"chmod 0640 {path}, or less")
        raw = os.read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    secret = raw.removesuffix(b"\n").removesuffix(b"\r").decode("ascii", "replace")
    if not secret or len(secret) > MAX_SECRET_BYTES or not secret.isascii() or not secret.isprintable():
        raise SettingsError(f"the secret file {path} does not hold one line of printable ASCII")
    return secret
