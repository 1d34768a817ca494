"""The note that says which files are about to be replaced, and by what, so that the next run can finish the work.

The journal stands from the moment when every new file lies complete beside its old one, until all are in place. It
holds names and digests, no content. A journal that cannot be read costs nothing but the note: what it spoke of is
computed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from iam_bridge.errors import StoreError
from provisioner.stores.disk import told, write_all

_VERSION = 1
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to be replaced: digests of what it held and of what it shall hold; `before` is empty for a new file."""

    folder: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Journal:
    """Files in the order in which they are replaced, and the accounts and groups that gain by it."""

    entries: tuple[Entry, ...]
    written: tuple[str, ...]


def digest_of(content: bytes | None) -> str:
    """Give the SHA-256 of a file's content, an empty text for a file that is not there."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _temp_of(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def is_there(path: Path) -> bool:
    """Tell whether a journal, or the beginning of one, was left behind."""
    return os.path.lexists(path) or os.path.lexists(_temp_of(path))


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_journal(path: Path, journal: Journal) -> None:
    """Write the note, whole or not at all; raise StoreError."""
    temp = _temp_of(path)
    text = json.dumps({"version": _VERSION, **asdict(journal)}, indent=1)
    with told(f"write the journal {path}", "nothing was changed"):
        with suppress(FileNotFoundError):
            os.unlink(temp)
        fd = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, text.encode())
        finally:
            os.close(fd)
        os.rename(temp, path)
        _sync_folder(path.parent)


def _parse_journal(text: bytes) -> Journal | None:
    """Read the note; None for anything that we did not write."""
    try:
        value = json.loads(text)
        if value["version"] != _VERSION:
            return None
        entries = tuple(Entry(**entry) for entry in value["entries"])
        written = tuple(value["written"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = [*written, *(text for entry in entries for text in asdict(entry).values())]
    return Journal(entries, written) if all(isinstance(text, str) for text in texts) else None


def read_journal(path: Path) -> Journal | None:
    """Read what an interrupted run left; None where there is nothing, or nothing that can be read."""
    try:
        with told(f"read the journal {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return _parse_journal(os.read(fd, _MOST_BYTES))
            finally:
                os.close(fd)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def remove_journal(path: Path) -> None:
    """Take the note away, first its beginnings."""
    with told(f"remove the journal {path}"):
        for name in (_temp_of(path), path):
            with suppress(FileNotFoundError):
                os.unlink(name)
