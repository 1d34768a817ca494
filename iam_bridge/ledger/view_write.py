"""What root writes for the services: the view of the accounts, how fresh it is, and the bans.

No service opens the ledger. A view is built aside, synced and renamed into place whole, and only when something in it
changed; a run that found nothing new writes `view.fresh` alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from iam_bridge.errors import BridgeError, LedgerError, ViewError
from iam_bridge.ledger.banlist import LIST_MAX, ban_to_json, parse_bans
from iam_bridge.ledger.files import read_bounded, replace_file, write_text
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.rows import read_meta, read_meta_int
from iam_bridge.ledger.view import View
from iam_bridge.ledger.view_format import APPLICATION_ID, FORMAT, INDEX, SCHEMA, USER_VERSION, crc_of, fresh_path
from iam_bridge.model.verdict import Ban

_ACCOUNTS = (
    "SELECT a.name, s.issuer_id, s.sub, a.uid, a.gid, a.home, a.shell, a.unix_groups, a.locks, a.gecos, a.adopted,"
    " coalesce(m.iam_groups, '[]'), coalesce(m.active, 0)"
    " FROM mappings p JOIN accounts a USING (uid) JOIN subjects s USING (subject_id)"
    " LEFT JOIN members m ON m.issuer_id = s.issuer_id AND m.sub = s.sub"
    " WHERE p.until IS NULL ORDER BY a.name"
)
_ISSUERS = "SELECT i.issuer_id, i.url, s.taken_at FROM issuers i LEFT JOIN sources s USING (issuer_id)"


def write_view(ledger: Ledger, path: Path, *, gid: int | None = None) -> bool:
    """Make the view say what the ledger says; tell whether `view.db` itself had to be written.

    Mode 0640 with the group `gid`, or 0644 without one. Raises LedgerError, also for a ledger that is older than the
    view on disk: it was put back from a copy, and no service would believe it.
    """
    mode = 0o640 if gid is not None else 0o644
    with ledger.reading() as db, _named(f"the view {path}"):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        generation = read_meta_int(db, "generation")
        current = _is_current(path, ledger.ledger_id, generation, mode, gid)
        if not current:
            replace_file(path, lambda aside: _build(db, aside), mode=mode, gid=gid)
        taken = {url: taken_at for _, url, taken_at in db.execute(_ISSUERS) if taken_at is not None}
        fresh = {"ledger": ledger.ledger_id, "generation": generation, "taken_at": taken}
        write_text(fresh_path(path), json.dumps(fresh, sort_keys=True) + "\n", mode=mode, gid=gid)
    return not current


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Say which file it is that cannot be written: inside a read of the ledger the error would speak of the ledger."""
    try:
        yield
    except OSError as error:
        raise LedgerError(
            f"{what} cannot be written: {error.strerror or error}", hint="see df and its folder"
        ) from error
    except sqlite3.Error as error:
        raise LedgerError(f"{what} cannot be written: {error}", hint="see df and its folder") from error


def _is_current(path: Path, ledger_id: str, generation: int, mode: int, gid: int | None) -> bool:
    """Tell whether the view on disk is whole and of this generation; raise LedgerError when it is of a later one."""
    try:
        standing = View(path)
        standing.reload_if_changed()
        standing.close()
        found = os.stat(path)
    except (ViewError, FileNotFoundError):
        return False
    if standing.ledger_id != ledger_id:
        return False
    if standing.generation > generation:
        raise LedgerError(
            f"the ledger (generation {generation}) is older than the view made from it ({standing.generation})",
            hint="it was put back from a copy; run: iam-bridge ledger reconcile",
        )
    right = stat.S_IMODE(found.st_mode) == mode and (gid is None or found.st_gid == gid)
    return right and standing.generation == generation


def _build(db: sqlite3.Connection, aside: Path) -> None:
    """Fill an empty file; its last four bytes to be written make it whole."""
    with contextlib.closing(sqlite3.connect(aside, isolation_level=None)) as view:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"application_id = {APPLICATION_ID}"):
            view.execute(f"PRAGMA {pragma}")
        view.execute("BEGIN")
        for statement in SCHEMA:
            view.execute(statement)
        meta = {key: read_meta(db, key) for key in ("ledger", "generation")} | {"format": FORMAT}
        view.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        view.executemany("INSERT INTO issuers VALUES (?, ?, ?)", db.execute(_ISSUERS))
        view.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", db.execute(_ACCOUNTS))
        view.execute(INDEX)
        view.execute("COMMIT")
    with aside.open("r+b", buffering=0) as file:
        crc, _, _ = crc_of(file.read)
        os.pwrite(file.fileno(), crc.to_bytes(4, "big"), USER_VERSION.start)


def write_bans(path: Path, bans: Iterable[Ban], *, ledger_id: str, generation: int, gid: int | None = None) -> bool:
    """Make the ban list say exactly this; tell whether it had to be written.

    Raises LedgerError, also for a ledger that is older than the list on disk: put back from a copy, it would lift bans.
    """
    _check_not_newer(path, ledger_id, generation)
    document = {"version": 1, "ledger": ledger_id, "generation": generation, "bans": [ban_to_json(ban) for ban in bans]}
    text = json.dumps(document, indent=1) + "\n"
    with _named(f"the ban list {path}"):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return write_text(path, text, mode=0o640 if gid is not None else 0o644, gid=gid)


def _check_not_newer(path: Path, ledger_id: str, generation: int) -> None:
    try:
        standing_id, standing, _ = parse_bans(read_bounded(path, LIST_MAX)[0])
    except (OSError, ValueError, RecursionError, BridgeError):
        return  # absent or damaged: it is written anew
    if standing_id == ledger_id and standing > generation:
        raise LedgerError(
            f"the ledger (bans of generation {generation}) is older than the ban list made from it ({standing})",
            hint="it was put back from a copy; run: iam-bridge ledger reconcile",
        )
