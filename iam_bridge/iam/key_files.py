"""Key sets kept on disk, so that a service starts warm and an outage of the IAM outlives a restart.

Who can write such a file can sign tokens; hence nobody may but the owner of the folder and root. The keys are public,
so others may read: what root's `keys refresh` wrote, the service uses. What looks wrong is ignored with a log line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from iam_bridge.errors import InvalidValue
from iam_bridge.iam.jwks import KeySet, parse_key_set
from iam_bridge.iam.strict_json import parse_json_object
from iam_bridge.model.rules import IssuerRules

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 512 * 1024
AHEAD_MOST = timedelta(minutes=5)
"""How far ahead of the clock a fetch may lie: an age that is negative would keep old keys fresh for ever."""


class KeyFiles:
    """One file for each issuer, in a folder that is made with mode 0755 where it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, rules: IssuerRules) -> Path:
        """Give the file of an issuer; the name is a digest, because a URL is no file name."""
        return self._folder / (hashlib.sha256(rules.issuer.url.encode()).hexdigest()[:32] + ".json")

    def read(self, rules: IssuerRules, now: datetime) -> KeySet | None:
        """Read the kept key set, None where there is none that can be believed."""
        path = self.path_of(rules)
        try:
            with _opened(self._folder) as folder:
                return _parse(_read_bytes(folder, path.name), rules, now)
        except FileNotFoundError:
            return None
        except (OSError, InvalidValue) as error:
            log.warning("event=key-cache file=%s ignored: %s", path, _why(error))
            return None

    def write(self, rules: IssuerRules, key_set: KeySet) -> None:
        """Keep a key set, whole or not at all; a failure is logged, since the keys in memory are good."""
        record = {"version": 1, "issuer": rules.issuer.url, "fetched_at": key_set.fetched_at.timestamp()}
        raw = json.dumps(record | key_set.to_jwks()).encode()
        path = self.path_of(rules)
        try:
            os.makedirs(self._folder, mode=0o755, exist_ok=True)
            with _opened(self._folder) as folder:
                _replace(folder, path.name, raw)
        except (OSError, InvalidValue) as error:
            log.warning("event=key-cache file=%s not written: %s", path, _why(error))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Hold the folder open, so that what was checked is what is used; a link in its place is refused."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if os.geteuid() not in (0, status.st_uid) and status.st_uid != 0:
            raise InvalidValue("its folder belongs to another user")
        _check_mode(status, "its folder")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_bytes(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidValue("it is no plain file")
        if status.st_uid not in (0, os.fstat(folder).st_uid):
            raise InvalidValue("it belongs to neither root nor the owner of its folder")
        _check_mode(status, "it")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidValue("it is too large")
    return raw


def _replace(folder: int, name: str, raw: bytes) -> None:
    aside = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)  # whatever the umask of the admin who refreshes is
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        os.replace(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=folder)
        raise
    os.fsync(folder)


def _check_mode(status: os.stat_result, what: str) -> None:
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidValue(f"{what} is writable for others than its owner")


def _why(error: OSError | InvalidValue) -> str:
    return error.message if isinstance(error, InvalidValue) else str(error.strerror)


def _parse(raw: bytes, rules: IssuerRules, now: datetime) -> KeySet:
    record = parse_json_object(raw)
    taken = record.get("fetched_at")
    if record.get("version") != 1 or record.get("issuer") != rules.issuer.url:
        raise InvalidValue("it is of another issuer or another version")
    if isinstance(taken, bool) or not isinstance(taken, int | float):
        raise InvalidValue("it does not say when it was fetched")
    try:
        fetched_at = datetime.fromtimestamp(taken, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidValue("it does not say when it was fetched") from None
    if fetched_at > now + AHEAD_MOST:
        raise InvalidValue("it was fetched in the future; is this host's clock right?")
    return parse_key_set(record, algorithms=rules.algorithms, fetched_at=fetched_at)
