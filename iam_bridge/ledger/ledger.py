"""The ledger: who is who, for good. One SQLite file, root's alone, one writer at a time.

The class only joins the parts of this package: each method is one transaction of the part that it names, and lets no
foreign exception out. Whoever writes holds the `RunLock`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from iam_bridge.collector import no_collection
from iam_bridge.errors import LedgerError
from iam_bridge.ledger import anchor, banbook, check, memberbook, parking, past, statebook
from iam_bridge.ledger.backup import write_backup
from iam_bridge.ledger.commit import commit_changes
from iam_bridge.ledger.db import no_foreign_exception, open_db, transaction
from iam_bridge.ledger.records import (
    Finding,
    MemberRecord,
    ParkedRow,
    Receipt,
    Reconciled,
    RunRow,
    SourceRow,
    WhoWas,
    Why,
)
from iam_bridge.ledger.rows import read_meta, read_meta_int
from iam_bridge.ledger.times import stamp
from iam_bridge.model.account import UserName
from iam_bridge.model.change import AdoptAccount, Change, CreateAccount, CreateGroup, Parked
from iam_bridge.model.identity import MemberSnapshot, Subject
from iam_bridge.model.state import LedgerState
from iam_bridge.model.verdict import Ban


class Ledger:
    """Everything that is known for good. Times are given, never read; every failure is a LedgerError with a hint."""

    def __init__(self, path: Path, db: sqlite3.Connection, anchors: Sequence[Path]) -> None:
        self.path = path
        self._db = db
        self._anchors = tuple(anchors)
        self.ledger_id = read_meta(db, "ledger")

    @classmethod
    def open(cls, path: Path, *, create: bool = True, anchors: Sequence[Path] = ()) -> Ledger:
        """Open the ledger, made or migrated where need be.

        `anchors` are the files outside that say where it stood; one that is ahead stops all allocation. Raises
        LedgerError for a file or folder that others could write, that is damaged, foreign, empty or of a newer version.
        """
        with no_foreign_exception(path):
            db = open_db(path, create=create)
            try:
                return cls(path, db, anchors)
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one consistent read; for the writer of the view."""
        with no_foreign_exception(self.path):
            self._db.execute("BEGIN")
            try:
                yield self._db
            finally:
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def generation(self) -> int:
        """Give the number that rises with every change that the view or the ban list shows."""
        with no_foreign_exception(self.path):
            return read_meta_int(self._db, "generation")

    def bans_generation(self) -> int:
        """Give the number that rises with every ban added, lifted or tied to a subject."""
        with no_foreign_exception(self.path):
            return read_meta_int(self._db, "bans_generation")

    def read_state(self, now: datetime) -> LedgerState:
        """Read who is who; `stopped` says why no number may be given, as the anchors tell."""
        with no_foreign_exception(self.path), no_collection():
            return statebook.read_state(self._db, now, self.check_anchors())

    # runs

    def start_run(self, now: datetime, command: str) -> int:
        """Write that a run begins; give its number. One that never ends in `finish_run` was interrupted."""
        with no_foreign_exception(self.path), transaction(self._db):
            return past.insert_run(self._db, now, command, finished=False)

    def finish_run(
        self, run_id: int, now: datetime, *, outcome: str, counts: Mapping[str, int], remarks: Sequence[str] = ()
    ) -> None:
        """Write how a run ended."""
        with no_foreign_exception(self.path), transaction(self._db):
            past.finish_run(self._db, run_id, now, outcome=outcome, counts=counts, remarks=remarks)

    def record_check(self, now: datetime, command: str, *, remarks: Sequence[str] = ()) -> int:
        """Write the one row of a run that found nothing to do: when the truth was checked."""
        with no_foreign_exception(self.path), transaction(self._db):
            return past.insert_run(self._db, now, command, finished=True, remarks=remarks)

    def runs(self, limit: int = 20) -> tuple[RunRow, ...]:
        """Give the last runs, newest first."""
        with no_foreign_exception(self.path):
            return past.read_runs(self._db, limit)

    # changes

    def commit(
        self,
        run_id: int,
        changes: Iterable[Change],
        *,
        now: datetime,
        saved_expiry: Mapping[UserName, str],
        by: str,
    ) -> None:
        """Write changes with one receipt each, in one transaction; raise LedgerError and write nothing on a conflict.

        `run_id` is 0 outside a run. `saved_expiry` is what stood in the shadow field of those about to be locked.
        While an anchor is ahead of the ledger nothing that brings a number is taken.
        """
        due = tuple(changes)
        if not due:
            return
        if any(isinstance(change, CreateAccount | AdoptAccount | CreateGroup) for change in due):
            stopped = self.check_anchors()
            if stopped:
                raise LedgerError(f"no number may be given: {stopped}")
        with no_foreign_exception(self.path), no_collection():
            commit_changes(self._db, run_id, due, now=now, saved_expiry=saved_expiry, by=by)

    def save_expiry(self, found: Mapping[UserName, str]) -> None:
        """Keep what somebody wrote into the expiry fields of locked accounts, in place of what was saved before."""
        rows = [(text, name.text) for name, text in found.items()]
        with no_foreign_exception(self.path), transaction(self._db):
            self._db.executemany("UPDATE accounts SET saved_expiry = ? WHERE name = ? AND locks <> ''", rows)

    def clear_saved_expiry(self, names: Iterable[UserName]) -> None:
        """Forget the expiry fields that the store has given back; a locked account keeps what was saved first."""
        rows = [(name.text,) for name in names]
        with no_foreign_exception(self.path), transaction(self._db):
            self._db.executemany("UPDATE accounts SET saved_expiry = NULL WHERE name = ? AND locks = ''", rows)

    def homes_made(self, names: Iterable[UserName], now: datetime) -> None:
        """Note that these accounts have their homes."""
        at = stamp(now)
        rows = [(at, name.text) for name in names]
        with no_foreign_exception(self.path), transaction(self._db):
            self._db.executemany("UPDATE accounts SET home_made_at = ? WHERE name = ? AND home_made_at IS NULL", rows)

    # members

    def write_members(
        self, snapshot: MemberSnapshot, now: datetime, *, held: AbstractSet[Subject] = frozenset()
    ) -> int:
        """Record what a source answered; give the number of member records written.

        Only a complete snapshot replaces records; of any other, and of one that is suddenly empty, only the attempt
        and its reason are kept. Those in `held`, whose removal is parked, keep their last record.
        """
        with no_foreign_exception(self.path), no_collection():
            return memberbook.write_members(self._db, snapshot, now, held)

    def sources(self) -> tuple[SourceRow, ...]:
        """Give each source with its last complete snapshot and its last attempt."""
        with no_foreign_exception(self.path):
            return memberbook.read_sources(self._db)

    def members(self) -> dict[Subject, MemberRecord]:
        """Give everybody's last IAM record."""
        with no_foreign_exception(self.path):
            return memberbook.read_members(self._db)

    def member(self, subject: Subject) -> MemberRecord | None:
        """Give one person's last IAM record."""
        with no_foreign_exception(self.path):
            return memberbook.read_member(self._db, subject)

    # parked

    def write_parked(self, run_id: int, parked: Iterable[Parked], now: datetime) -> None:
        """Make the list of what waits that of this run; the same list is not written again."""
        with no_foreign_exception(self.path):
            parking.write_parked(self._db, run_id, parked, now)

    def parked(self) -> tuple[ParkedRow, ...]:
        """Give what waits for an admin's word, oldest first."""
        with no_foreign_exception(self.path):
            return parking.read_parked(self._db)

    def approve(self, digest: str, now: datetime, by: str) -> int:
        """Let the next run make parked changes, for 24 hours; give their number; raise RefusedByGuard if none wait."""
        with no_foreign_exception(self.path):
            return parking.approve(self._db, digest, now, by)

    # bans

    def add_ban(
        self,
        now: datetime,
        by: str,
        *,
        subject: Subject | None = None,
        name: str | None = None,
        uid: int | None = None,
        reason: str = "",
        until: datetime | None = None,
    ) -> Ban:
        """Ban a subject, a name or a uid, known or not; raise InvalidValue for a ban that could never hold."""
        with no_foreign_exception(self.path):
            return banbook.add_ban(self._db, now, by, subject=subject, name=name, uid=uid, reason=reason, until=until)

    def lift_ban(self, ban_id: int, now: datetime, by: str) -> Ban:
        """End a ban now."""
        with no_foreign_exception(self.path):
            return banbook.lift_ban(self._db, ban_id, now, by)

    def bans(self, now: datetime, *, include_past: bool = False) -> tuple[Ban, ...]:
        """Give the bans in force, or all that ever were; a lifted one ends when it was lifted."""
        with no_foreign_exception(self.path):
            return banbook.read_bans(self._db, now, include_past=include_past)

    # questions

    def who(self, at: datetime, *, uid: int | None = None, name: str | None = None) -> WhoWas | None:
        """Give who held a uid or a name at a moment."""
        with no_foreign_exception(self.path):
            return past.read_who(self._db, at, uid=uid, name=name)

    def history(
        self, *, subject: Subject | None = None, name: str | None = None, uid: int | None = None, limit: int = 1000
    ) -> tuple[Receipt, ...]:
        """Give the last `limit` receipts on a person, oldest first."""
        with no_foreign_exception(self.path):
            return past.read_history(self._db, subject=subject, name=name, uid=uid, limit=limit)

    def why(self, name: str) -> Why | None:
        """Gather what stands behind an account; None where there is none of this name."""
        with no_foreign_exception(self.path):
            return past.read_why(self._db, name)

    # trust

    def verify(self) -> tuple[Finding, ...]:
        """Check file, chain, uniqueness, counters, receipts against accounts, and anchors; give what does not hold."""
        found: list[Finding] = []
        try:
            with self.reading() as db:
                found.extend(check.verify(db))
        except LedgerError as error:  # damage that stops the look itself; what was found before it stays
            found.append(Finding("ledger-damaged", error.message, error.hint))
        stopped = self.check_anchors()
        if stopped:
            found.append(Finding("anchor", stopped, "iam-bridge ledger reconcile marks what may have been given since"))
        return tuple(found)

    def check_anchors(self) -> str:
        """Say why no number may be given; empty while all anchors agree with the ledger."""
        with no_foreign_exception(self.path):
            return anchor.check_anchors(self._db, self._anchors)

    def write_anchors(self) -> str:
        """Write where the ledger stands to the anchor files; give the text, for the log.

        While one of them is ahead no file is written: it is the only witness of what was lost.
        """
        with no_foreign_exception(self.path):
            stopped = anchor.check_anchors(self._db, self._anchors)
            return anchor.write_anchors(self._db, () if stopped else self._anchors)

    def reconcile(
        self,
        now: datetime,
        by: str,
        *,
        numbers_seen: Iterable[int],
        names_seen: Iterable[str],
        generation_seen: int = 0,
    ) -> Reconciled:
        """Let a restored ledger go on: what may have been given since is marked as given to somebody unknown.

        `numbers_seen` and `names_seen` are those of the store, of NSS and of home folders; `generation_seen` is that of
        the view in use.
        """
        with no_foreign_exception(self.path):
            return anchor.reconcile(
                self._db,
                now,
                by,
                numbers_seen=numbers_seen,
                names_seen=names_seen,
                generation_seen=generation_seen,
                paths=self._anchors,
            )

    def backup(self, to: Path) -> None:
        """Copy the ledger, consistent and whole, to a new file of mode 0600; never over an existing one."""
        if os.path.lexists(to):
            raise LedgerError(f"{to} exists already", hint="name a new file for the backup")
        with no_foreign_exception(to):
            write_backup(self._db, to)
