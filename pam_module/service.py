"""The login daemon's decisions, request by request, without a socket: facts in, reply out, receipt and log line beside.

A request is a `Conversation`: it runs to its reply at once, or yields an errand where an issuer must be asked. Every
early way out denies. A permit is given only once its receipt is written: what cannot be recorded is not permitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from iam_bridge.errors import LedgerError, Reason, TokenRefused
from iam_bridge.model.account import Account, Foreign
from iam_bridge.model.rules import Settings
from iam_bridge.model.token import AccessToken, VerifiedToken
from iam_bridge.model.verdict import AccountVerdict, Deny, NotOurs, Permit, Verdict
from iam_bridge.policy.login import NOT_NOW, decide_account, decide_login
from iam_bridge.ports import Clock
from pam_module.asking import TokenDesk, explain
from pam_module.errands import Conversation
from pam_module.facts import Facts, FactsMissing
from pam_module.handles import Handles
from pam_module.records import LogLines, Note, Record
from pam_module.wire import Phase, Reply, Request, Status

_NO_RECEIPT = frozenset({Reason.EMPTY, Reason.JUNK_FROM_SSHD, Reason.NOT_A_TOKEN})
"""Nothing was presented: the guesses of a scanner stay in the log and do not fill the receipts."""
_EXPIRED = frozenset({Reason.LEFT, Reason.SUSPENDED, Reason.LOCKED})
"""Locks that stand in shadow as an expiry date too: PAM hears the same word from us as from pam_unix."""


@dataclass(frozen=True, slots=True)
class Deciders:
    """What decisions are made with; replaced whole when the settings are read again."""

    settings: Settings
    desk: TokenDesk
    facts: Facts

    @classmethod
    def of(cls, settings: Settings, log: LogLines, clock: Clock) -> Deciders:
        """Put them together; reads files, and no network."""
        return cls(settings, TokenDesk.of(settings, clock), Facts(settings.paths.view, settings.paths.bans, log))

    def renew(self, settings: Settings, log: LogLines, clock: Clock) -> Deciders:
        """Put them together anew; facts from the same files stay, and with them what they saw last that was good."""
        before, after = self.settings.paths, settings.paths
        desk = TokenDesk.of(settings, clock)
        if (before.view, before.bans) == (after.view, after.bans):
            return Deciders(settings, desk, self.facts)
        return Deciders(settings, desk, Facts(after.view, after.bans, log))

    def close(self) -> None:
        """Let go of files and idle connections."""
        self.desk.validator.close()
        self.facts.close()


class Service:
    """Answers requests. `record` writes a receipt or raises LedgerError; `ticks` counts seconds from anywhere."""

    def __init__(
        self,
        deciders: Deciders,
        *,
        record: Callable[[Record], None],
        log: LogLines,
        clock: Clock,
        ticks: Callable[[], float],
    ) -> None:
        self.deciders = deciders
        self._record = record
        self._log = log
        self._clock = clock
        self._ticks = ticks
        self._handles = Handles(ticks)
        self._quick = {
            Phase.WHO: self._who,
            Phase.ACCOUNT: self._account,
            Phase.OPEN_SESSION: self._open_session,
            Phase.CLOSE_SESSION: self._close_session,
        }

    def answer(self, request: Request) -> Conversation:
        """Answer one request; whatever goes wrong inside becomes a denial, and a log line that quotes nothing of it."""
        note = Note(request, self._ticks())
        try:
            note.host_uid = request.nss_uid
            if request.phase is Phase.AUTH:
                return (yield from self._auth(note))
            return self._quick[request.phase](note)
        except Exception as error:  # noqa: BLE001 - the process edge: one bad request neither passes nor ends the daemon
            deny = Deny(Reason.INTERNAL, NOT_NOW, f"{type(error).__name__} at {_place(error)}")
            self._log.write(**note.line(deny, self._ticks()))
            return Reply(Status.DENY, text=NOT_NOW)

    def _who(self, note: Note) -> Reply:
        """Give foreign accounts no prompt, and everybody else the same one, known or not."""
        facts, uids = self.deciders.facts, self.deciders.settings.login.rules.uids
        try:
            _, account = facts.find_account(note.request.user, note.host_uid, uids)
        except FactsMissing as missing:
            return Reply(Status.UNAVAILABLE if missing.maybe_foreign else Status.PROMPT)
        return Reply(Status.FOREIGN if isinstance(account, Foreign) else Status.PROMPT)

    def _auth(self, note: Note) -> Conversation:
        secret = AccessToken(note.request.secret.decode("utf-8", "surrogateescape"))
        note.fingerprint = secret.fingerprint
        try:
            token = yield from self.deciders.desk.validate(secret, self._clock)
        except TokenRefused as refused:
            if refused.reason in _NO_RECEIPT:  # a password, perhaps: from a hash of one it is soon guessed
                note.fingerprint = ""
            audience = self.deciders.settings.login.rules.audience
            return self._give(note, explain(refused, len(note.request.secret), audience))
        note.see_token(token)
        return self._give(note, self._decide_login(note, token))

    def _account(self, note: Note) -> Reply:
        return self._give(note, self._decide_account(note))

    def _open_session(self, note: Note) -> Reply:
        """Decide once more: a ban or a lock may have come since the account phase."""
        note.see_opened(self._handles.take(note.request.handle, note.request.user))
        return self._give(note, self._decide_account(note))

    def _close_session(self, note: Note) -> Reply:
        """Write down who leaves; a session of ours ends well whatever became of the account meanwhile."""
        verdict = self._decide_account(note)
        if isinstance(verdict, Deny) and note.host_uid is not None and not note.maybe_foreign:
            note.remark = verdict.reason.value
            verdict = Permit(note.request.user, note.host_uid, "the end of a session")
        return self._give(note, verdict)

    def _decide_login(self, note: Note, token: VerifiedToken) -> Verdict:
        facts, rules, name = self.deciders.facts, self.deciders.settings.login.rules, note.request.user
        try:
            known = facts.read(name, note.host_uid, rules.uids, presented=token.subject)
            is_own = isinstance(known.account, Account) and known.account.subject == token.subject
            own = known.account if is_own else facts.find_own(token.subject)
        except FactsMissing as missing:
            return Deny(Reason.NO_VIEW, NOT_NOW, missing.message)
        assert own is None or isinstance(own, Account)
        return decide_login(name, token, known, own=own, rules=rules, now=self._clock())

    def _decide_account(self, note: Note) -> AccountVerdict:
        rules, name = self.deciders.settings.login.rules, note.request.user
        try:
            known = self.deciders.facts.read(name, note.host_uid, rules.uids)
        except FactsMissing as missing:
            note.maybe_foreign = missing.maybe_foreign
            return Deny(Reason.NO_VIEW, NOT_NOW, missing.message)
        return decide_account(name, known, rules, self._clock())

    def _give(self, note: Note, verdict: AccountVerdict) -> Reply:
        """Record the verdict, then make it the reply."""
        if isinstance(verdict, NotOurs):
            return Reply(Status.FOREIGN)  # neither receipt nor line: other people's logins are none of our business
        if isinstance(verdict, Permit) or verdict.reason not in _NO_RECEIPT:
            try:
                self._record(note.receipt(verdict, self._clock(), self._ticks()))
            except LedgerError as error:
                if isinstance(verdict, Permit) and note.request.phase is not Phase.CLOSE_SESSION:
                    verdict = Deny(Reason.INTERNAL, NOT_NOW, f"not recorded: {error.message}")
                else:
                    note.remark = f"not recorded: {error.message}"
        self._log.write(**note.line(verdict, self._ticks()))
        if isinstance(verdict, Deny):
            return Reply(_status_of(verdict, note), text=verdict.text)
        handle = self._handles.make(note.opened()) if note.request.phase is Phase.AUTH else ""
        return Reply(Status.PERMIT, verdict.uid, verdict.name, handle=handle)


def _status_of(deny: Deny, note: Note) -> Status:
    """Choose the word for a denial.

    `unavailable` lets the module's break-glass group in, so it is for those alone of whom we cannot say whether they
    are ours (docs/adr/0002).
    """
    if deny.reason is Reason.NO_VIEW and note.maybe_foreign:
        return Status.UNAVAILABLE
    return Status.EXPIRED if deny.reason in _EXPIRED else Status.DENY


def _place(error: Exception) -> str:
    """Say where an error arose. Its message stays out of the log: it may quote what was presented."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
