"""What is known of an account name at this moment: the view, the ban list, and the uid that the host gives for it.

A name that the ledger does not know is an orphan when its uid lies in our ranges or is an adopted account's, and
foreign otherwise. Without a view that question has no safe answer, because people who were adopted have uids outside
our ranges; docs/adr/0002 tells what is done then. The view looks after itself: one that was good stays in use until a
better one is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iam_bridge.errors import ViewError
from iam_bridge.ledger.banlist import BanList
from iam_bridge.ledger.view import View, ViewRow
from iam_bridge.model.account import Account, Foreign, IdRange, Orphan
from iam_bridge.model.identity import Subject
from iam_bridge.model.verdict import AccountFacts, Ban
from pam_module.records import LogLines


class FactsMissing(ViewError):
    """View or ban list cannot be used; `maybe_foreign` when not even the kind of the account is known."""

    def __init__(self, message: str, *, maybe_foreign: bool) -> None:
        super().__init__(message)
        self.maybe_foreign = maybe_foreign


class Facts:
    """The files that root writes and services read; for one thread."""

    def __init__(self, view: Path, bans: Path, log: LogLines) -> None:
        self._view_path = view
        self._view = View(view)
        self._bans = BanList(bans)
        self._log = log
        self._told = ""

    @property
    def generation(self) -> int:
        """Give the generation of the view in use, 0 where there is none."""
        return self._view.generation

    def close(self) -> None:
        """Let go of the view."""
        self._view.close()

    def find_account(
        self, name: str, host_uid: int | None, uids: Sequence[IdRange]
    ) -> tuple[ViewRow | None, Account | Foreign | Orphan | None]:
        """Say what kind of account a name is, with its row where it is ours; raise FactsMissing."""
        try:
            self._view.reload_if_changed()
            row = self._view.by_name(name)
        except ViewError as error:
            self._tell(error.message)
            return None, self._guess_foreign(name, host_uid, uids, error)
        self._tell(self._view.problem)
        if row is not None:
            return row, row.account
        if host_uid is None:
            return None, None
        # A directory may give one number two names (spelling, alias): the second would be a way around a ban.
        kind = Orphan if _is_ours(host_uid, uids) or self._view.has_adopted(host_uid) else Foreign
        return None, kind(name, host_uid)

    def problems(self) -> list[str]:
        """Say what stands in the way of using the view and the ban list, as of now."""
        found = []
        for file in (self._view, self._bans):
            try:
                file.reload_if_changed()
            except ViewError as error:
                found.append(str(error))
        if self._view.problem and not found:
            found.append(self._view.problem)
        return found

    def find_own(self, subject: Subject) -> Account | None:
        """Give the account of a subject; raise FactsMissing."""
        try:
            row = self._view.by_subject(subject)
        except ViewError as error:
            raise FactsMissing(error.message, maybe_foreign=False) from error
        return None if row is None else row.account

    def read(
        self, name: str, host_uid: int | None, uids: Sequence[IdRange], *, presented: Subject | None = None
    ) -> AccountFacts:
        """Read everything that a decision about a name takes; `presented` is the subject of a token, if there is one.

        Raises FactsMissing. A foreign account needs no ban list: what a ban names there is none of our business.
        """
        row, account = self.find_account(name, host_uid, uids)
        if isinstance(account, Foreign) and presented is None:
            return AccountFacts(account, host_uid, frozenset(), False, None, ())
        bans = self._find_bans(name, host_uid, account, presented)
        if row is None:
            return AccountFacts(account, host_uid, frozenset(), False, None, bans)
        return AccountFacts(account, host_uid, row.iam_groups, row.iam_active, row.members_taken_at, bans)

    def _find_bans(
        self, name: str, host_uid: int | None, account: Account | Foreign | Orphan | None, presented: Subject | None
    ) -> tuple[Ban, ...]:
        subject = account.subject if isinstance(account, Account) else None
        uid = account.uid if isinstance(account, Account) else host_uid
        try:
            self._bans.reload_if_changed()
            found = self._bans.find(subject=subject, name=name, uid=uid)
            if presented is not None and presented != subject:
                found += self._bans.find(subject=presented)
        except ViewError as error:
            self._tell(error.message)
            raise FactsMissing(error.message, maybe_foreign=False) from error
        return found

    def _guess_foreign(self, name: str, host_uid: int | None, uids: Sequence[IdRange], cause: ViewError) -> Foreign:
        """Say "foreign" without a view only where it cannot be wrong: uid 0, or no run ever wrote one here."""
        if host_uid is None or _is_ours(host_uid, uids):
            raise FactsMissing(cause.message, maybe_foreign=False) from cause
        if host_uid != 0 and not _is_absent(self._view_path):
            raise FactsMissing(cause.message, maybe_foreign=True) from cause
        return Foreign(name, host_uid)

    def _tell(self, problem: str) -> None:
        """Write a line when what is wrong changes, not at each login."""
        if problem and problem != self._told:
            self._log.write(event="view", verdict="refused", detail=problem)
        elif self._told and not problem:
            self._log.write(event="view", verdict="accepted", generation=self._view.generation)
        self._told = problem


def _is_absent(path: Path) -> bool:
    """Tell whether there is surely no such file; one that may not be looked at is there for all we know."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_ours(uid: int, uids: Sequence[IdRange]) -> bool:
    return any(uid in known for known in uids)
