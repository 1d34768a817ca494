"""A login service on real files: a ledger with a few people, the view and bans made from it, tokens of one issuer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from iam_bridge.errors import LedgerError
from iam_bridge.iam.keys import KeyCache
from iam_bridge.iam.validate import TokenValidator
from iam_bridge.iam.verify import Verifier
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.view_write import write_bans, write_view
from iam_bridge.model.account import Account, LockReason, UserName
from iam_bridge.model.change import AdoptAccount, Cause, Change, CreateAccount, CreateGroup, LockAccount
from iam_bridge.model.identity import Member, MemberSnapshot, Subject
from iam_bridge.model.rules import LoginRules, LoginSettings, Settings, StatePaths
from iam_bridge.model.verdict import Ban
from pam_module.asking import TokenDesk
from pam_module.facts import Facts
from pam_module.records import LogLines, Record
from pam_module.service import Deciders, Service
from pam_module.wire import Phase, Reply, Request
from tests.unit.build import (
    GPU,
    ISSUER,
    LIMITS,
    LOGIN_RULES,
    NOW,
    USERS,
    account,
    account_rules,
    issuer_rules,
    source,
    subject,
)
from tests.unit.tokens import MAKER, HandClock, Publisher

CAUSE = Cause("test", "test")
HOST = {"ada": 20001, "ben": 20002, "cleo": 20003, "dora": 20004, "eli": 20005, "flo": 20999, "gus": 5001,
        "olga": 20900, "root": 0, "lea": 1000, "postgres": 116}  # fmt: skip
"""What NSS says. flo's uid is not the ledger's, olga is an orphan, the last three are foreign."""
OURS = ("ada", "ben", "cleo", "dora", "eli", "flo")


def people() -> list[Change]:
    """Give the changes that make the accounts: ours by number, and gus, who was here before us."""
    made: list[Change] = [CreateGroup(USERS, 30000, CAUSE), CreateGroup(GPU, 30001, CAUSE)]
    accounts = [account(f"s-{name}", name, 20001 + place) for place, name in enumerate(OURS)]
    made += [CreateAccount(one, CAUSE) for one in accounts]
    made.append(AdoptAccount(account("s-gus", "gus", 5001, adopted=True), "CSV", CAUSE))
    made.append(lock(accounts[1], LockReason.LEFT))
    made.append(lock(accounts[2], LockReason.ADMIN))
    return made


def lock(one: Account, reason: LockReason) -> LockAccount:
    return LockAccount(one.subject, one.name, one.uid, reason, CAUSE)


def members(taken_at: datetime) -> MemberSnapshot:
    """Give what the IAM says: ben left, dora is in no group that is required, eli is suspended."""
    groups = {"dora": ("hpc/gpu",)}
    found = [
        Member(subject(f"s-{name}"), name, name != "eli", NOW, frozenset(groups.get(name, ("hpc/users",))))
        for name in (*OURS, "gus")
        if name != "ben"
    ]
    return MemberSnapshot(ISSUER, tuple(found), frozenset({"hpc/users", "hpc/gpu"}), taken_at, complete=True)


@dataclass
class Rig:
    """Everything of a service that a test may turn."""

    folder: Path
    clock: HandClock
    publisher: Publisher
    ledger: Ledger
    service: Service
    lines: list[bytes] = field(default_factory=list)
    receipts: list[Record] = field(default_factory=list)
    disk_full: bool = False

    def begin(self, phase: Phase, user: str, secret: str | bytes = b"", **more: Any) -> Any:
        raw = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
        more = {"nss_uid": HOST.get(user)} | more
        return self.service.answer(Request(phase, 4711, user, "sshd", "ssh", "198.51.100.7", secret=raw, **more))

    def ask(self, phase: Phase, user: str, secret: str | bytes = b"", **more: Any) -> Reply:
        """Ask and run every errand at once, as the server's lanes would."""
        conversation = self.begin(phase, user, secret, **more)
        try:
            errand = next(conversation)
            while True:
                try:
                    value = errand.run()
                except Exception as error:  # noqa: BLE001 - whatever it is, the conversation must cope with it
                    errand = conversation.throw(error)
                else:
                    errand = conversation.send(value)
        except StopIteration as stop:
            reply = stop.value
            assert isinstance(reply, Reply)
            return reply

    def auth(self, user: str, token: str | bytes) -> Reply:
        return self.ask(Phase.AUTH, user, token)

    def ban(self, *, until: datetime | None = None, reason: str = "", **whom: Any) -> Ban:
        ban = self.ledger.add_ban(self.clock(), "test", reason=reason, until=until, **whom)
        self.publish()
        return ban

    def publish(self) -> None:
        now = self.clock()
        write_view(self.ledger, self.view)
        write_bans(
            self.bans, self.ledger.bans(now), ledger_id=self.ledger.ledger_id, generation=self.ledger.bans_generation()
        )

    def change(self, *changes: Change) -> None:
        self.ledger.commit(0, changes, now=self.clock(), saved_expiry={}, by="test")
        self.publish()

    def restart(self) -> None:
        """Begin with nothing in memory, on the same files."""
        old = self.service.deciders
        self.service.deciders = Deciders(
            old.settings, old.desk, Facts(self.view, self.bans, LogLines(self.lines.append))
        )
        old.facts.close()

    @property
    def view(self) -> Path:
        return self.folder / "view.db"

    @property
    def bans(self) -> Path:
        return self.folder / "bans"

    @property
    def log(self) -> str:
        return b"".join(self.lines).decode()

    def last(self) -> dict[str, str]:
        """Give the fields of the last log line."""
        return dict(pair.split("=", 1) for pair in self.lines[-1].decode().split())  # type: ignore[misc]


def token(name: str, **claims: Any) -> str:
    """Give a good token of a person, its claims changed."""
    return MAKER.token(MAKER.claims(sub=f"s-{name}", **claims))


def make_rig(folder: Path, *, rules: LoginRules = LOGIN_RULES, **issuer: Any) -> Rig:
    """Build the files and a service on them; the issuer's keys are published and not yet fetched."""
    clock = HandClock()
    ledger = Ledger.open(folder / "ledger.db")
    ledger.commit(0, people(), now=NOW, saved_expiry={}, by="test")
    ledger.write_members(members(NOW), NOW)
    issuers = {ISSUER: issuer_rules(**issuer)}
    login = LoginSettings(rules, folder / "s", frozenset({0}), "x", folder / "receipts", folder / "keys")
    paths = StatePaths(folder / "ledger.db", folder / "view.db", folder / "bans", folder / "journal")
    settings = Settings("test", issuers, (source(),), account_rules(), LIMITS, login, paths, folder / "c.yaml")
    publisher = Publisher(MAKER.jwks())
    keys = KeyCache(issuers, folder / "keys", clock, fetch=publisher, spread=lambda: 0.0)
    lines: list[bytes] = []
    log = LogLines(lines.append)
    desk = TokenDesk(settings, keys, TokenValidator(issuers, keys, clock), Verifier(issuers, keys))
    facts = Facts(paths.view, paths.bans, log)
    receipts: list[Record] = []

    def record(receipt: Record) -> None:
        if rig.disk_full:
            raise LedgerError("the disk is full")
        receipts.append(receipt)

    service = Service(Deciders(settings, desk, facts), record=record, log=log, clock=clock, ticks=lambda: 0.0)
    rig = Rig(folder, clock, publisher, ledger, service, lines, receipts)
    rig.publish()
    return rig


def age_members(rig: Rig, age: timedelta) -> None:
    """Let time pass since the last complete pull."""
    rig.clock.now += age


__all__ = ["HOST", "OURS", "Rig", "Subject", "UserName", "age_members", "lock", "make_rig", "members", "token"]
