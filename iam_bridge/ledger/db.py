"""The ledger's file: who may hold it, how it is opened, made and brought up to date.

A new ledger is built aside and linked into place whole, so that a file of size zero never passes for an empty ledger:
it is one that was lost, and numbers would be given twice.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from iam_bridge.errors import BridgeError, LedgerError
from iam_bridge.ledger.files import sync_folder, why_untrusted
from iam_bridge.ledger.schema import APPLICATION_ID, MIGRATIONS

BUSY_MS = 2000
RESTORE = "restore a backup, then run: iam-bridge ledger reconcile"
_MODES = "chown it to the account that runs the provisioner; folder 0700, file 0600"


@contextlib.contextmanager
def no_foreign_exception(path: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system raise into LedgerError with one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:
        busy = "locked" in str(error)
        hint = "another command is writing; try again" if busy else "see df, mode and owner of its folder"
        raise LedgerError(f"the ledger {path} cannot be used: {error}", hint=hint) from error
    except sqlite3.IntegrityError as error:
        raise LedgerError(f"that would contradict the ledger: {error}", hint="nothing was written") from error
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {path} is damaged: {error}", hint=RESTORE) from error
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be used: {error.strerror or error}") from error
    except BridgeError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        # A value that no column of ours holds: a lone surrogate, a number past 64 bits, a row of another type.
        raise LedgerError(f"the ledger {path} cannot hold or give that: {type(error).__name__}") from error


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A failed COMMIT (disk full) may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)
    # 64 MiB at most: with the 2 MiB of SQLite a first run of 100 000 accounts writes its pages again and again.
    for pragma in ("foreign_keys = ON", "trusted_schema = OFF", "cell_size_check = ON", "cache_size = -65536"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _migrate(db: sqlite3.Connection, version: int, migrations: Sequence[Sequence[str]]) -> None:
    for number, statements in enumerate(migrations[version:], version + 1):
        with transaction(db):
            if db.execute("PRAGMA user_version").fetchone()[0] >= number:
                continue  # another process was faster
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


def _create(path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    aside.unlink(missing_ok=True)
    os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(_connect(aside)) as db:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _migrate(db, 0, MIGRATIONS)
            counters = {"generation": "1", "bans_generation": "1", "highest_uid": "0", "highest_gid": "0"}
            db.executemany("INSERT INTO meta VALUES (?, ?)", [("ledger", uuid4().hex), *counters.items()])
        os.link(aside, path)
    except FileExistsError:
        pass  # another process made it in the meantime: as good as ours
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _check_place(path: Path, *, create: bool) -> None:
    """Refuse a folder or a file that another account could write."""
    if create:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owners = frozenset({os.geteuid()})
    if not path.parent.exists():
        raise LedgerError(f"there is no folder {path.parent} for the ledger", hint="see paths.ledger in the settings")
    why = why_untrusted(os.stat(path.parent), f"the folder {path.parent}", owners=owners, folder=True)
    if not why and os.path.lexists(path):
        found = os.lstat(path)
        why = why_untrusted(found, str(path), owners=owners, folder=False)
        if not why and found.st_size == 0:
            raise LedgerError(f"the ledger {path} is empty", hint=RESTORE)
    elif not why and not create:
        raise LedgerError(f"there is no ledger {path}", hint="the first `iam-bridge provision run` makes it")
    if why:
        raise LedgerError(f"the ledger cannot be trusted: {why}", hint=_MODES)


def open_db(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the ledger's file, made or migrated where need be; raise LedgerError for one that is not to be believed."""
    with no_foreign_exception(path):
        _check_place(path, create=create)
        if not path.exists():
            _create(path)
        db = _connect(path)
        try:
            _check_schema(db, path)
            # WAL lets `map` commands read while a run writes; FULL makes each commit survive a power cut.
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise LedgerError(f"the ledger {path} cannot use WAL", hint="it must lie on a local disk, not on NFS")
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        return db


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerError(f"{path} is no ledger of IAM bridge", hint="see paths.ledger in the settings")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} has schema {version} and this program knows {len(MIGRATIONS)}",
            hint="install the newer IAM bridge again",
        )
    if version < 1:
        raise LedgerError(f"the ledger {path} has no schema", hint=RESTORE)
    _migrate(db, version, MIGRATIONS)
