"""The view as the services read it: one account by name or by subject, in microseconds.

Whole or not at all: owner, mode, length, checksum and format are looked at when a file is opened, and one that fails
is not used. While a service runs, a new file takes the place of the one in use only if it is of the same ledger and
of no older generation. Else the one in use stays, which still is true of its generation: its `taken_at` grows no
further, so it denies by itself once it is too old; `problem` says why meanwhile. Where none is in use, nothing can be
decided: ViewError. Never fork with a view open; use it from one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from iam_bridge.errors import BridgeError, ViewError
from iam_bridge.ledger.files import read_bounded, why_unsafe_to_read
from iam_bridge.ledger.times import moment, moment_or_none
from iam_bridge.ledger.view_format import (
    APPLICATION_ID,
    FORMAT,
    FRESH_MAX,
    PAGE_COUNT,
    PAGE_SIZE,
    USER_VERSION,
    crc_of,
    fresh_path,
)
from iam_bridge.model.account import Account, GroupName, LockReason, UserName
from iam_bridge.model.identity import Issuer, Subject

HINT = "it is written again by: iam-bridge provision run"
SETS_MAX = 4096  # distinct group sets remembered; a site has dozens

_BY_NAME = (
    "SELECT issuer_id, sub, name, uid, gid, home, shell, unix_groups, locks, gecos, adopted, iam_groups, iam_active"
    " FROM accounts WHERE name = ?"
)
_BY_SUBJECT = (
    "SELECT issuer_id, sub, name, uid, gid, home, shell, unix_groups, locks, gecos, adopted, iam_groups, iam_active"
    " FROM accounts WHERE issuer_id = ? AND sub = ?"
)
_Row = tuple[int, str, str, int, int, str, str, str, str, str, int, str, int]


_AROUND_US = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})


class _Passing(ViewError):
    """What may pass while the file stays as it is: no descriptor left, a folder of the wrong mode."""


@dataclass(frozen=True, slots=True)
class ViewRow:
    """An account of ours and what the last complete snapshot says of its person; `members_taken_at` is its time."""

    account: Account
    iam_groups: frozenset[str]
    iam_active: bool
    members_taken_at: datetime | None


class _Opened:
    """One view file, checked and open. It stays readable when another file takes its name."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.db = db
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        if meta.get("format") != FORMAT or not str(meta.get("generation")).isdecimal() or not meta.get("ledger"):
            raise ViewError(f"the view {path} has a format that this program does not know", hint=HINT)
        self.ledger_id, self.generation = str(meta["ledger"]), int(meta["generation"])
        rows = db.execute("SELECT issuer_id, url, taken_at FROM issuers").fetchall()
        self.issuers = {issuer_id: Issuer.parse(url) for issuer_id, url, _ in rows}
        self.ids = {issuer: issuer_id for issuer_id, issuer in self.issuers.items()}
        self.taken_at = {issuer_id: moment_or_none(taken_at) for issuer_id, _, taken_at in rows}
        self.written_taken_at = dict(self.taken_at)
        self.adopted_uids = frozenset(uid for (uid,) in db.execute("SELECT uid FROM accounts WHERE adopted"))


def _check_whole(path: Path) -> os.stat_result:
    """Raise ViewError unless owner, mode, length and checksum say that the file is one that we wrote, whole."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        unsafe = why_unsafe_to_read(path, found)
        if unsafe:
            raise _Passing(f"the view cannot be believed: {unsafe}", hint=HINT)
        crc, length, header = crc_of(file.read)
        if not _is_whole(crc, length, header):
            raise ViewError(f"the view {path} is damaged: length or checksum do not fit", hint=HINT)
        return found


def _connect(path: Path, checked: os.stat_result) -> _Opened:
    # Immutable: no lock, no journal, no look for a WAL, which an unprivileged reader could not open.
    uri = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
    db = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise ViewError(f"{path} is no view of IAM bridge", hint="see paths.view in the settings")
        opened = _Opened(path, db)
        if not os.path.samestat(checked, os.stat(path)):  # SQLite opens by name, at its first question
            raise ViewError(f"the view {path} was replaced while it was opened", hint="it is looked at again")
    except BaseException:
        db.close()
        raise
    return opened


def _open(path: Path) -> _Opened:
    """Check and open a view file; raise ViewError with one sentence for any that cannot be believed."""
    try:
        return _connect(path, _check_whole(path))
    except OSError as error:
        raise _Passing(f"the view {path} cannot be read: {error.strerror}", hint=HINT) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _AROUND_US:
            raise _Passing(f"the view {path} cannot be read: {error}", hint=HINT) from error
        raise ViewError(f"the view {path} is damaged: {error}", hint=HINT) from error
    except ViewError:
        raise
    except (BridgeError, ValueError, TypeError) as error:
        raise ViewError(f"the view {path} is damaged: {error}", hint=HINT) from error


def _is_whole(crc: int, length: int, header: bytes) -> bool:
    if len(header) < PAGE_COUNT.stop or crc.to_bytes(4, "big") != header[USER_VERSION]:
        return False
    page = int.from_bytes(header[PAGE_SIZE], "big")
    return length == int.from_bytes(header[PAGE_COUNT], "big") * (65536 if page == 1 else page)


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid)


class View:
    """Answers who an account belongs to; call `reload_if_changed` before each question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = "not read yet"
        self._fresh = fresh_path(path)
        self._used: _Opened | None = None
        self._seen: tuple[int, ...] | None = None
        self._fresh_seen: tuple[int, ...] | None = None
        self._look_again = True
        self._sets: dict[str, frozenset[str]] = {}

    @property
    def generation(self) -> int:
        """Give the generation of the view in use, 0 where there is none."""
        return self._used.generation if self._used else 0

    @property
    def ledger_id(self) -> str:
        """Give the ledger of the view in use, empty where there is none."""
        return self._used.ledger_id if self._used else ""

    def reload_if_changed(self) -> None:
        """Take over a new file if there is one that can be believed; raise ViewError when none is in use.

        Costs two stat(2) while nothing changed.
        """
        seen = _stat(self.path)
        if seen != self._seen or self._look_again:
            self._look_again = self._take_over()
            self._seen, self._fresh_seen = seen, None
        fresh = _stat(self._fresh)
        if fresh != self._fresh_seen:
            self._read_fresh()
            self._fresh_seen = fresh
        self._require()

    def by_name(self, name: str) -> ViewRow | None:
        """Give the account of this name, None where we have none; raise ViewError where that cannot be said."""
        return self._find(_BY_NAME, (name,))

    def has_adopted(self, uid: int) -> bool:
        """Tell whether an adopted account has this number, by whatever name; raise ViewError."""
        return uid in self._require().adopted_uids

    def by_subject(self, subject: Subject) -> ViewRow | None:
        """Give the account of this subject, None where we have none; raise ViewError where that cannot be said."""
        issuer_id = self._require().ids.get(subject.issuer)
        return None if issuer_id is None else self._find(_BY_SUBJECT, (issuer_id, subject.sub))

    def taken_at(self) -> dict[Issuer, datetime | None]:
        """Give the time of each issuer's last complete list of members; raise ViewError when no view is in use."""
        used = self._require()
        return {issuer: used.taken_at[issuer_id] for issuer_id, issuer in used.issuers.items()}

    def names(self) -> list[tuple[str, int, bool]]:
        """Give (name, uid, whether it was adopted) of every account, by name; raise ViewError. For reports."""
        try:
            rows = self._require().db.execute("SELECT name, uid, adopted FROM accounts ORDER BY name").fetchall()
        except sqlite3.Error as error:
            raise ViewError(f"the view {self.path} cannot be read: {error}", hint=HINT) from error
        return [(str(name), int(uid), bool(adopted)) for name, uid, adopted in rows]

    def close(self) -> None:
        """Close the file; generation and ledger are remembered."""
        if self._used:
            self._used.db.close()

    def _require(self) -> _Opened:
        if self._used is None:
            raise ViewError(self.problem, hint=HINT)
        return self._used

    def _take_over(self) -> bool:
        """Use the file from now on where it can be believed; tell whether the same file may yet become usable."""
        try:
            opened = _open(self.path)
        except ViewError as error:
            self.problem = error.message
            return isinstance(error, _Passing)
        used = self._used
        if used and opened.ledger_id != used.ledger_id:
            self.problem = (
                f"the view {self.path} is of another ledger than before; restart the service if that is meant"
            )
        elif used and opened.generation < used.generation:
            self.problem = (
                f"the view {self.path} ({opened.generation}) is older than the one in use ({used.generation})"
            )
        else:
            self.problem, self._used = "", opened
            if used:
                used.db.close()
            return False
        opened.db.close()
        return False

    def _read_fresh(self) -> None:
        """Take the times of `view.fresh`; what cannot be believed there leaves those of the view, which are older."""
        used = self._used
        if used is None:
            return
        used.taken_at = dict(used.written_taken_at)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            data, found = read_bounded(self._fresh, FRESH_MAX)
            fresh = json.loads(data)
            if why_unsafe_to_read(self._fresh, found):
                return
            if (fresh["ledger"], fresh["generation"]) != (used.ledger_id, used.generation):
                return
            for url, text in fresh["taken_at"].items():
                issuer_id = used.ids.get(Issuer(url))
                if issuer_id is not None:
                    used.taken_at[issuer_id] = max(moment(text), used.written_taken_at[issuer_id] or moment(text))

    def _find(self, query: str, key: tuple[str] | tuple[int, str]) -> ViewRow | None:
        used = self._require()
        try:
            row = used.db.execute(query, key).fetchone()
            return self._build(used, row) if row else None
        except UnicodeEncodeError:
            return None  # a lone surrogate: no name and no subject of ours holds one
        except sqlite3.Error as error:
            raise ViewError(f"the view {self.path} cannot be read: {error}", hint=HINT) from error
        except (ValueError, TypeError, KeyError) as error:
            raise ViewError(
                f"the view {self.path} holds a row that is none: {type(error).__name__}", hint=HINT
            ) from error

    def _build(self, used: _Opened, row: _Row) -> ViewRow:
        issuer_id, sub, name, uid, gid, home, shell, groups, locks, gecos, adopted, iam_groups, iam_active = row
        account = Account(
            Subject(used.issuers[issuer_id], sub),
            UserName(name),
            uid,
            gid,
            home,
            shell,
            frozenset(map(GroupName, groups.split(","))) if groups else frozenset(),
            frozenset(map(LockReason, locks.split(","))) if locks else frozenset(),
            gecos,
            bool(adopted),
        )
        return ViewRow(account, self._iam_groups(iam_groups), bool(iam_active), used.taken_at[issuer_id])

    def _iam_groups(self, text: str) -> frozenset[str]:
        groups = self._sets.get(text)
        if groups is None:
            groups = frozenset(json.loads(text))
            if len(self._sets) >= SETS_MAX:
                self._sets.clear()
            self._sets[text] = groups
        return groups
