"""The host as doctor sees it: its own files, or those below another root, where nothing of the running host counts."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from iam_bridge.errors import BridgeError
from iam_bridge.policy.doctor import Found

SIZE_MAX = 1 << 20
ROWS_MAX = 64 << 20


class Unreadable(BridgeError):
    """A file that is there and cannot be read."""

    code = "unreadable"


@dataclass(frozen=True, slots=True)
class Host:
    """Files and names; `root` is None for the running host, `accounts` the folder where our account files are."""

    root: Path | None
    accounts: Path

    def path(self, text: str) -> Path:
        """Give where a path of the host really is."""
        return Path(text) if self.root is None else self.root / text.lstrip("/")

    def read(self, text: str) -> str | None:
        """Read a configuration file, None where there is none; raise Unreadable."""
        return read_text(self.path(text), SIZE_MAX)

    def uid_of(self, name: str) -> int | None:
        """Give the uid that a name has, None where it is unknown."""
        if self.root is None:
            try:
                return pwd.getpwnam(name).pw_uid
            except KeyError:
                return None
        for folder in (self.path("/etc"), self.accounts):
            for fields in _rows(folder / "passwd", 7):
                if fields[0] == name and fields[2].isdecimal():
                    return int(fields[2])
        return None

    def listed_members(self, group: str) -> tuple[str, ...] | None:
        """Give the members that /etc/group itself lists, as break-glass reads it; None where there is no such group."""
        for fields in _rows(self.path("/etc/group"), 4):
            if fields[0] == group:
                return tuple(name for name in fields[3].split(",") if name)
        return None


def read_text(path: Path, most: int) -> str | None:
    """Read text whatever its encoding is; None where there is no file; raise Unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}", hint="run doctor as root") from error
    try:
        with os.fdopen(descriptor, "rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > most:
        raise Unreadable(f"{path} is larger than {most} bytes")
    return raw.decode("utf-8", "replace")


def _rows(path: Path, fields: int) -> list[list[str]]:
    rows = (line.split(":") for line in (read_text(path, ROWS_MAX) or "").splitlines())
    return [row for row in rows if len(row) >= fields]


def look_at(path: Path) -> Found:
    """Give what stat(2) says of a path."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found(is_missing=True)
    except OSError as error:
        return Found(error=str(error.strerror))
    return Found(status.st_mode, status.st_uid)
