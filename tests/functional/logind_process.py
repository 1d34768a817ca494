"""The login daemon as a process of its own: an IAM on loopback, files as a run leaves them, a client of its socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iam_bridge.demo.iam import EmbeddedIam, ServedIam, demo_people, running_iam
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.view_write import write_bans, write_view
from iam_bridge.model.account import Account, UserName
from iam_bridge.model.change import Cause, CreateAccount
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from pam_module.wire import Phase, Reply, Request, encode_request, parse_reply

AUDIENCE = "https://login.hpc.example.org"
GROUP = "hpc/users"
ROOT = Path(__file__).parents[2]
CAUSE = Cause("test", "test")

SETTINGS = """
version: 1
site: {{name: test}}
issuers:
{issuers}
members:
  - issuer: {issuer}
    kind: file
    file: {folder}/people.yaml
    groups: [{{iam: hpc/users, unix: hpcusers}}]
accounts:
  ids: {{uid: [20000, 59999], gid: [20000, 59999]}}
login:
  audience: [{audience}]
  requires: [{{issuer: {issuer}, group: hpc/users}}]
  socket: {folder}/run/login.sock
  peers: [{peers}]
  receipts: {folder}/state/receipts.jsonl
  key_cache: {folder}/state/keys
paths:
  ledger: {folder}/ledger.db
  view: {folder}/view.db
  bans: {folder}/bans
  journal: {folder}/journal
"""
ISSUER_ENTRY = """  - issuer: {issuer}
    algorithms: [RS256, ES256]
    types: [at+jwt, JWT, absent]
    ca_file: {ca_file}
    keys: {{refresh: {refresh}, usable: {usable}}}
    timeout: {timeout}
{more}"""


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Site:
    """The files of a login node, and the daemon that may run on them."""

    folder: Path
    iam: EmbeddedIam
    served: ServedIam
    ledger: Ledger
    uids: dict[str, int]
    process: subprocess.Popen[bytes] | None = None
    started_in_s: float = 0.0
    ready: bool = False
    minted: list[str] = field(default_factory=list)
    strangers: list[tuple[str, Path]] = field(default_factory=list)

    @property
    def socket(self) -> str:
        return str(self.folder / "run/login.sock")

    @property
    def receipts(self) -> Path:
        return self.folder / "state/receipts.jsonl"

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    # --- files

    def write_settings(
        self,
        *,
        refresh: str = "6h",
        usable: str = "2d",
        timeout: str = "1s",
        more: str = "",
        peers: Iterable[int] | None = None,
        audience: str = AUDIENCE,
    ) -> None:
        issuers = [(self.served.issuer, self.served.ca_file), *self.strangers]
        entries = [
            ISSUER_ENTRY.format(issuer=url, ca_file=ca, refresh=refresh, usable=usable, timeout=timeout, more=more)
            for url, ca in issuers
        ]
        allowed = [os.geteuid()] if peers is None else peers
        text = SETTINGS.format(
            issuers="\n".join(entries),
            issuer=self.served.issuer,
            folder=self.folder,
            peers=", ".join(map(str, allowed)),
            audience=audience,
        )
        (self.folder / "iam-bridge.yaml").write_text(text)

    def publish(self) -> None:
        write_view(self.ledger, self.folder / "view.db")
        bans = self.ledger.bans(now())
        generation = self.ledger.bans_generation()
        write_bans(self.folder / "bans", bans, ledger_id=self.ledger.ledger_id, generation=generation)

    def take_members(self) -> None:
        """Take over who is in the IAM's group, as a complete pull would."""
        issuer = Issuer.parse(self.served.issuer)
        members = [
            Member(Subject(issuer, person.id), person.username, person.active, now(), frozenset({GROUP}))
            for person in map(self.iam.person, self.uids)
        ]
        self.ledger.write_members(
            MemberSnapshot(issuer, tuple(members), frozenset({GROUP}), now(), complete=True), now()
        )
        self.publish()

    # --- the process

    def start(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
        errors: int | None = None,
    ) -> None:
        """Start the daemon (as nobody where we are root) and wait until it says that it is ready, or ended."""
        ready, told = os.pipe()
        began = time.perf_counter()
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "pam_module.logind", "--config", str(self.folder / "iam-bridge.yaml"),
                 "--ready-fd", str(told), *user_arguments(), *arguments],
                stderr=stderr if errors is None else errors, stdin=subprocess.DEVNULL, pass_fds=[told], cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(env or {})},
            )  # fmt: skip
        os.close(told)
        with open(ready, "rb") as said:
            self.ready = said.read(1) == b"\n"
            self.started_in_s = time.perf_counter() - began

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def restart(self) -> None:
        assert self.stop() == 0
        self.start()
        assert self.ready, self.log

    def status(self, name: str) -> int:
        """Give a number of the daemon's /proc/PID/status."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:"))

    # --- requests

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(20)
        try:
            client.connect(self.socket)
        except OSError as error:
            ended = self.process.poll() if self.process is not None else None
            raise AssertionError(f"the daemon cannot be reached (status {ended}): {self.log[-2000:]}") from error
        return client

    def send(self, phase: Phase, user: str, secret: str = "", **more: Any) -> socket.socket:
        client = self.connect()
        more = {"nss_uid": host_names(self.uids).get(user)} | more
        request = Request(phase, os.getpid(), user, "sshd", "ssh", "198.51.100.7", secret=secret.encode(), **more)
        client.sendall(encode_request(request))
        return client

    def ask(self, phase: Phase, user: str, secret: str = "", **more: Any) -> Reply:
        with self.send(phase, user, secret, **more) as client:
            return receive(client)

    def auth(self, user: str, token: str) -> Reply:
        return self.ask(Phase.AUTH, user, token)

    def token(self, user: str, **more: Any) -> str:
        self.minted.append(self.iam.mint(user, **({"audience": AUDIENCE} | more)))
        return self.minted[-1]

    def check_nothing_secret(self) -> None:
        """See that no part of any token stands in what the daemon wrote."""
        written = self.log + (self.receipts.read_text() if self.receipts.exists() else "")
        for token in self.minted:
            head, payload, signature = token.split(".")
            assert not any(part in written for part in (head, payload, payload[:40], signature, signature[:20]))


def user_arguments() -> list[str]:
    return ["--user", "nobody"] if os.geteuid() == 0 else []


def host_names(uids: dict[str, int]) -> dict[str, int]:
    return {"root": 0, "lea": 1000, "olga": 20900, "nobody": 65534, **uids}


def receive(client: socket.socket) -> Reply:
    data = b""
    while more := client.recv(65536):
        data += more
    return parse_reply(data[4:])


@contextmanager
def site(folder: Path, names: tuple[str, ...] = ("ada", "grace")) -> Iterator[Site]:
    """Serve an IAM and lay the files of a login node beside it; a daemon that was started is stopped at the end."""
    iam = EmbeddedIam(demo_people())
    (folder / "iam").mkdir()
    os.chmod(folder, 0o755)
    with running_iam(iam, folder / "iam") as served:
        issuer = Issuer.parse(served.issuer)
        uids = {name: 20001 + place for place, name in enumerate(names)}
        ledger = Ledger.open(folder / "ledger.db")
        changes = [
            CreateAccount(
                Account(
                    Subject(issuer, iam.person(name).id), UserName.parse(name), uid, uid, f"/home/{name}", "/bin/sh"
                ),
                CAUSE,
            )
            for name, uid in uids.items()
        ]
        ledger.commit(0, changes, now=now(), saved_expiry={}, by="test")
        made = Site(folder, iam, served, ledger, uids)
        made.take_members()
        made.write_settings()
        try:
            yield made
        finally:
            if made.process is not None:
                made.stop()
                made.check_nothing_secret()
            ledger.close()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
