"""The settings file: YAML text → `Settings`, or all its problems at once with their lines.

An unknown key, a duplicate key, an empty list that grants, or a file that others may write is a problem, never a
warning. No default widens access: audiences, requirements, groups and id ranges have none.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from iam_bridge.errors import InvalidValue, SettingsError
from iam_bridge.model.rules import Settings
from iam_bridge.settings_read import Problems, Section
from iam_bridge.settings_sections import read_settings_sections
from iam_bridge.strict_yaml import load

SIZE_MAX = 1 << 20
DEFAULT_PATH = Path("/etc/iam-bridge/iam-bridge.yaml")


def parse_settings(text: str, path: Path) -> Settings:
    """Read settings from YAML text; raise SettingsError with every problem and its line."""
    problems = Problems()
    try:
        root = load(text)
    except InvalidValue as error:
        raise _refuse(path, (error.message,)) from error
    section = Section.of(root, "", problems)
    settings = read_settings_sections(section, path)
    if problems.found or settings is None:
        raise _refuse(path, problems.in_order())
    return settings


def read_settings(path: Path) -> Settings:
    """Read the settings file once, after looking at its owner and mode on the open descriptor."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us
    except OSError as error:
        sample = ", or start from the sample config/iam-bridge.yaml" if error.errno == errno.ENOENT else ""
        hint = f"name another with --config{sample}"
        raise SettingsError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    try:
        _check_trusted(os.fstat(descriptor), path)
        raw = b""
        while len(raw) <= SIZE_MAX and (chunk := os.read(descriptor, SIZE_MAX)):
            raw += chunk
    finally:
        os.close(descriptor)
    if len(raw) > SIZE_MAX:
        raise _refuse(path, (f"the file is larger than {SIZE_MAX} bytes",))
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _refuse(path, (f"line {line}: not UTF-8 text",)) from error
    return parse_settings(text, path)


def _check_trusted(status: os.stat_result, path: Path) -> None:
    """Refuse a file that somebody other than root or ourselves could have written."""
    if not stat.S_ISREG(status.st_mode):
        raise _refuse(path, ("not a regular file",))
    if status.st_uid not in (0, os.geteuid()):
        raise _refuse(path, (f"owned by uid {status.st_uid}; chown it to root",))
    if status.st_mode & 0o022:
        raise _refuse(path, (f"writable by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w {path}",))


def _refuse(path: Path, problems: tuple[str, ...]) -> SettingsError:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    listing = "".join(f"\n  {problem}" for problem in problems)
    return SettingsError(f"{path}: {count} in the settings{listing}", problems=problems)
