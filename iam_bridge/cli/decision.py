"""The login daemon's own decision, asked in this process: same code, no socket, no PAM, no receipt."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from iam_bridge.model.rules import Settings
from iam_bridge.model.token import AccessToken, VerifiedToken
from iam_bridge.ports import Clock
from pam_module.asking import TokenDesk
from pam_module.errands import Errand
from pam_module.records import LogLines
from pam_module.service import Deciders, Service
from pam_module.wire import Phase, Reply, Request, Status

T = TypeVar("T")
SERVICE = "iam-bridge-check"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the daemon would say. `verdict` is permit, deny or foreign; `text` is what the person would read.

    `detail` is what the log would say beside the reason; `rule` is what permitted; `subject` is known once the
    signature of the token held.
    """

    verdict: str
    name: str
    uid: int | None
    rule: str
    reason: str
    text: str
    detail: str
    subject: str
    fingerprint: str
    remarks: str


class _KeptLines(LogLines):
    """Log lines as fields, kept instead of written."""

    def __init__(self) -> None:
        super().__init__(lambda _line: None)
        self.kept: list[dict[str, object]] = []

    def write(self, **fields: object) -> None:
        self.kept.append(fields)


def decide(settings: Settings, phase: Phase, name: str, secret: bytes, clock: Clock) -> Decision:
    """Decide as the daemon would at this moment, asking issuers where it would ask them."""
    log = _KeptLines()
    with _keeping_keys(settings) as known:
        deciders = Deciders.of(known, log, clock)
        try:
            service = Service(deciders, record=lambda _receipt: None, log=log, clock=clock, ticks=time.monotonic)
            request = Request(phase, os.getpid(), name, service=SERVICE, secret=secret, nss_uid=_host_uid(name))
            reply = _drive(service.answer(request))
        finally:
            deciders.close()
    line = next((fields for fields in log.kept if fields.get("event") == "login"), {})
    return _decision_of(reply, name, {key: str(value) for key, value in line.items()})


def _host_uid(name: str) -> int | None:
    """Ask NSS, as the PAM module does before it asks the daemon."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def verify(settings: Settings, secret: bytes, clock: Clock) -> VerifiedToken:
    """Validate a token as the daemon would before it looks at any account; raise TokenRefused."""
    with _keeping_keys(settings) as known:
        desk = TokenDesk.of(known, clock)
        try:
            return _drive(desk.validate(AccessToken(secret.decode("utf-8", "surrogateescape")), clock))
        finally:
            desk.validator.close()


@contextmanager
def _keeping_keys(settings: Settings) -> Iterator[Settings]:
    """Keep fetched keys where the daemon does if that folder is here; never make it, for it would not be the daemon's.

    A folder that root made in passing would stop the daemon from writing its receipts beside it.
    """
    if os.path.isdir(settings.login.key_cache):
        yield settings
        return
    with TemporaryDirectory(prefix="iam-bridge-") as folder:
        yield replace(settings, login=replace(settings.login, key_cache=Path(folder)))


def _run(errand: Errand) -> tuple[object, Exception | None]:
    """Do at once what the daemon would do in a thread."""
    try:
        return errand.run(), None
    except Exception as error:  # noqa: BLE001 - as in a thread of the daemon: whoever waits raises it again
        return None, error


def _drive(asking: Generator[Errand, object, T]) -> T:
    """Run to the end what the daemon's loop would run in steps."""
    try:
        errand = next(asking)
        while True:
            value, error = _run(errand)
            errand = asking.throw(error) if error is not None else asking.send(value)
    except StopIteration as stop:
        outcome: T = stop.value
        return outcome


def _decision_of(reply: Reply, name: str, line: dict[str, str]) -> Decision:
    verdict = "foreign" if reply.status is Status.FOREIGN else line.get("verdict", "deny")
    known_uid = line.get("uid", "")
    subject = f"{line['sub']}@{line['issuer']}" if "sub" in line else ""
    return Decision(
        verdict=verdict,
        name=name,
        uid=reply.uid if reply.status is Status.PERMIT else int(known_uid) if known_uid.isdecimal() else None,
        rule=line.get("rule", ""),
        reason="not-ours" if verdict == "foreign" else line.get("reason", ""),
        text=reply.text,
        detail=line.get("detail", ""),
        subject=subject,
        fingerprint=line.get("fp", ""),
        remarks=line.get("remarks", ""),
    )
