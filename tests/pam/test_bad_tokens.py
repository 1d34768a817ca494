"""The table of bad tokens through the real libpam, the real module and the real daemon: none opens anything."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from iam_bridge.model.account import Account, UserName
from iam_bridge.model.change import AdoptAccount
from iam_bridge.model.identity import Issuer, Subject
from tests.functional.logind_process import AUDIENCE, CAUSE, Site, now, site, until
from tests.pam.libpam import Pam, Transaction, marked, whole
from tests.vectors.bad_tokens import BAD_TOKENS, BadToken, TokenMaker

OURS = pwd.getpwnam("nobody")
SECOND = 1.0
LONGEST = 20_000  # what the module's own cap lets through


@dataclass
class Stranger:
    """A listening host that nobody may talk to."""

    url: str
    accepted: list[object]


@contextmanager
def stranger() -> Iterator[Stranger]:
    """Listen on loopback and remember every connection."""
    accepted: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stopping = threading.Event()

        def listen() -> None:
            while not stopping.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                connection.close()
                accepted.append(address)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield Stranger(f"https://127.0.0.1:{listener.getsockname()[1]}/", accepted)
        finally:
            stopping.set()
            thread.join()


@dataclass
class Door:
    """A PAM service that asks a running daemon."""

    site: Site
    confdir: Path
    maker: TokenMaker
    stranger: Stranger

    def knock(self, token: bytes, *, whole_at_once: bool = False) -> tuple[int, float]:
        began = time.monotonic()
        with Transaction(self.confdir, "iam", OURS.pw_name, (whole if whole_at_once else marked)(token)) as transaction:
            return transaction.authenticate(), time.monotonic() - began


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    folder = Path(tempfile.mkdtemp(prefix="bad-tokens-"))
    with site(folder, ()) as made, stranger() as nobody_asks:
        issuer = Issuer.parse(made.served.issuer)
        ada = Subject(issuer, made.iam.person("ada").id)
        account = Account(
            ada, UserName.parse(OURS.pw_name), OURS.pw_uid, OURS.pw_gid, "/nonexistent", "/bin/sh", adopted=True
        )
        made.ledger.commit(0, [AdoptAccount(account, "test", CAUSE)], now=now(), saved_expiry={}, by="test")
        made.uids["ada"] = OURS.pw_uid
        made.take_members()
        del made.uids["ada"]
        maker = TokenMaker(made.served.issuer, AUDIENCE, int(time.time()), sub=ada.sub, stranger=nobody_asks.url)
        made.iam.fault("reply", path="/jwk", value=json.dumps(maker.jwks()))
        made.start()
        assert made.ready, made.log
        confdir = folder / "pam.d"
        confdir.mkdir()
        module = Path(__file__).parents[2] / "pam_module/build/pam_iam.so"
        user = OURS.pw_uid if os.geteuid() == 0 else os.geteuid()
        line = f"required {module} socket={made.socket} daemon={user} uids={OURS.pw_uid}-{OURS.pw_uid}"
        for service in ("iam", "other"):
            (confdir / service).write_text(f"auth {line}\naccount {line}\nsession {line}\n")
        yield Door(made, confdir, maker, nobody_asks)
    shutil.rmtree(folder)


def test_the_door_opens_for_a_good_token(door: Door) -> None:
    assert door.knock(door.maker.token().encode())[0] == Pam.SUCCESS, door.site.log
    assert door.knock(door.maker.ec_token().encode(), whole_at_once=True)[0] == Pam.SUCCESS


@pytest.mark.parametrize("case", BAD_TOKENS, ids=lambda case: case.sentence)
def test_a_bad_token_opens_nothing(door: Door, case: BadToken) -> None:
    token = case.build(door.maker).encode("utf-8", "surrogateescape").replace(b"\0", b"")
    if b"\n" in token and not token.startswith(b"\b"):
        token = token.rstrip(b"\n") + b" "  # a line break ends an answer, so it never arrives; a blank does
    result, seconds = door.knock(token, whole_at_once=len(token) > LONGEST)
    assert result in (Pam.MAXTRIES, Pam.AUTH_ERR)
    assert seconds < SECOND
    until(lambda: "verdict=" in door.site.log, 2)
    assert "Traceback" not in door.site.log
    assert not door.stranger.accepted, "an issuer that is not trusted saw a connection"


def test_the_log_gives_the_reason_of_the_table(door: Door) -> None:
    for case in BAD_TOKENS:
        token = case.build(door.maker).encode("utf-8", "surrogateescape")
        if len(token) > LONGEST or b"\0" in token or b"\n" in token:
            continue
        before = len(door.site.log)
        door.knock(token)
        until(lambda start=before: "event=login" in door.site.log[start:], 2)
        lines = [line for line in door.site.log[before:].splitlines() if "phase=auth" in line]
        assert any(f"reason={reason.value}" in lines[-1] for reason in case.reasons), (case.sentence, lines[-1])
