"""A login node as a run of the provisioner leaves it: ledger, view, bans, kept keys; and the daemon that serves it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from iam_bridge.iam.keys import KeyCache
from iam_bridge.ledger.chain import ChainWriter
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.view_write import write_bans, write_view
from iam_bridge.model.account import Account, GroupName, UserName
from iam_bridge.model.change import Cause, Change, CreateAccount, CreateGroup
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.rules import Settings
from pam_module.records import LogLines
from pam_module.service import Deciders, Service
from tests.bench.iam_process import IamProcess
from tests.bench.people import take_snapshot
from tests.bench.sites import FIRST_UID, LAST_UID, make_site

LOGIND = Path(sys.executable).with_name("iam-bridge-logind")
CAUSE = Cause("bench", "bench")
STOP_S = 10.0


def now_utc() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Node:
    """A login node's files; `people` are the user names that have accounts, in the order of their uids."""

    settings: Settings
    iam: IamProcess
    people: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Give the folder of everything."""
        return self.settings.path.parent

    def uid_of(self, number: int) -> int:
        """Give the uid of the person at this place in `people`."""
        return FIRST_UID + number

    @contextmanager
    def service(self) -> Iterator[Service]:
        """Give the daemon's decisions in this process; receipts and log lines go to disk as the daemon's do."""
        with TemporaryDirectory(dir=self.folder) as scratch, open(f"{scratch}/log", "ab", buffering=0) as lines:
            log = LogLines(lines.write)
            receipts = ChainWriter.open(Path(scratch) / "receipts.jsonl", now=now_utc())
            deciders = Deciders.of(self.settings, log, now_utc)
            yield Service(deciders, record=receipts.append, log=log, clock=now_utc, ticks=time.monotonic)
            deciders.close()
            receipts.close()

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Run the daemon until the block ends."""
        daemon = Daemon(self)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@dataclass
class Daemon:
    """The login daemon as a process of its own."""

    node: Node
    ready_s: float = 0.0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> Path:
        """Give where it listens."""
        return self.node.settings.login.socket

    @property
    def pid(self) -> int:
        """Give the process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it says that it serves; raise RuntimeError where it does not."""
        ready, told = os.pipe()
        argv: list[str | Path] = [LOGIND, "--config", self.node.settings.path, "--ready-fd", str(told)]
        with (self.node.folder / "daemon.log").open("ab") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[told], start_new_session=True
            )
        os.close(told)
        with os.fdopen(ready, "rb") as said:
            if said.read(1) != b"\n":
                raise RuntimeError(f"the daemon did not start: see {self.node.folder / 'daemon.log'}")
        self.ready_s = time.perf_counter() - began

    def stop(self) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def resident_kb(self) -> int:
        """Give the memory that it holds (VmRSS of proc_pid_status(5))."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def make_node(folder: Path, iam: IamProcess, accounts: int) -> Node:
    """Make a login node on which the first so many people of the IAM have accounts, with keys fetched just now."""
    settings = make_site(folder, issuer=iam.iam.issuer, ca_file=iam.ca_file)
    people = iam.data.people[:accounts]
    _write_state(settings, iam, accounts)
    keep_keys(settings)
    return Node(settings, iam, tuple(person.username for person in people))


def keep_keys(settings: Settings) -> None:
    """Fetch the issuer's keys and keep them where the daemon finds them."""
    home = settings.login.key_cache.parent
    home.mkdir(mode=0o700)
    keys = KeyCache(settings.issuers, settings.login.key_cache, now_utc)
    for issuer in settings.issuers:
        keys.refresh(issuer)
    if os.geteuid() == 0:
        for path in (home, *home.rglob("*")):
            shutil.chown(path, settings.login.user)


def _write_state(settings: Settings, iam: IamProcess, accounts: int) -> None:
    """Write ledger, view and bans."""
    now = now_utc()
    issuer = Issuer.parse(iam.iam.issuer)
    users = GroupName.parse("hpcusers")
    made = [
        Account(
            Subject(issuer, person.id),
            UserName.parse(person.username),
            FIRST_UID + number,
            FIRST_UID + number,
            f"/home/{person.username}",
            "/bin/bash",
            frozenset({users}),
        )
        for number, person in enumerate(iam.data.people[:accounts])
    ]
    with Ledger.open(settings.paths.ledger) as ledger:
        changes: list[Change] = [
            CreateGroup(users, LAST_UID, CAUSE),
            *(CreateAccount(account, CAUSE) for account in made),
        ]
        ledger.commit(0, changes, now=now, saved_expiry={}, by="bench")
        ledger.write_members(take_snapshot(iam.data, issuer, now), now)
        write_view(ledger, settings.paths.view)
        write_bans(
            settings.paths.bans, ledger.bans(now), ledger_id=ledger.ledger_id, generation=ledger.bans_generation()
        )
