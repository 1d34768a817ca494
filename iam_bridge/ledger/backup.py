"""A copy of the ledger, made while it is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.files import sync_folder


def write_backup(db: sqlite3.Connection, to: Path) -> None:
    """Copy by SQLite's backup into a file aside, then give it its name unless that is taken by now."""
    aside = to.with_name(f".{to.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(aside)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, not three
        fd = os.open(aside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.link(aside, to)
    except FileExistsError as error:
        raise LedgerError(f"{to} exists already", hint="name a new file for the backup") from error
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(to.parent)
