"""iam-bridge-logind: the login daemon's start, its account, its signals and its end."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.errors import BridgeError, Exit, LedgerError, SettingsError
from iam_bridge.ledger.chain import ChainWriter
from iam_bridge.model.rules import Settings
from iam_bridge.settings import DEFAULT_PATH, read_settings
from pam_module.chores import EVERY_S, Chores
from pam_module.listening import BoundSocket, Who, become, find_user, make_folder
from pam_module.records import LogLines
from pam_module.server import LoginServer
from pam_module.service import Deciders, Service

PROGRAM = "iam-bridge-logind"
SWITCH_S = 0.0005
"""How long a thread that fetches keys may keep the interpreter from the loop; five milliseconds would show in p99."""
FILES_MOST = 8192


def now_utc() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; the return value is its exit status."""
    options = _parser().parse_args(argv)
    os.umask(0o077)
    log = LogLines(_stderr_writer())
    try:
        settings = read_settings(options.config)
        who = _choose_user(options.user, settings)
        if options.check:
            return _check(settings, who)
        return _serve(settings, who, options, log)
    except BridgeError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201 - before the log begins, to whoever started us
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Answer the PAM module: may this person log in under this name? See iam-bridge-logind(8).",
        epilog=f"example: {PROGRAM} --config /etc/iam-bridge/iam-bridge.yaml --check",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, help="the settings file (default: %(default)s)")
    parser.add_argument("--user", help="become this account when started as root (default: login.user of the settings)")
    parser.add_argument("--check", action="store_true", help="say whether it could serve, and end")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write a newline to descriptor N once it serves")
    return parser


def _choose_user(name: str | None, settings: Settings) -> Who | None:
    """Give the account to become: none where we are not root and stay who we are."""
    if os.geteuid() == 0:
        return find_user(name or settings.login.user)
    if name is not None and find_user(name).uid != os.geteuid():
        raise SettingsError(f"--user {name}: only root can become another account", hint="leave --user out")
    return None


def _serve(settings: Settings, who: Who | None, options: argparse.Namespace, log: LogLines) -> int:
    login = settings.login
    make_folder(login.socket.parent, who, 0o755)
    make_folder(login.receipts.parent, who, 0o700)
    bound = BoundSocket(login.socket, who)
    try:
        if who is not None:
            become(who)
        _set_limits()
        receipts = ChainWriter.open(login.receipts, now=now_utc())
        try:
            _run(settings, bound, receipts, options, log)
        finally:
            receipts.close()
    finally:
        bound.close()
    return Exit.OK


def _run(
    settings: Settings, bound: BoundSocket, receipts: ChainWriter, options: argparse.Namespace, log: LogLines
) -> None:
    logging.basicConfig(handlers=[_ToLogLines(log)], level=logging.INFO, force=True)
    deciders = Deciders.of(settings, log, now_utc)
    service = Service(deciders, record=receipts.append, log=log, clock=now_utc, ticks=time.monotonic)
    server = LoginServer(bound.sock, service.answer, peers=settings.login.peers, log=log)
    chores = Chores(service, receipts, server.lanes, log, clock=now_utc, ticks=time.monotonic)
    server.every(EVERY_S, chores.do)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.call(server.stop))

    def hang_up() -> None:
        _follow(receipts, log)
        _reload(service, server, options.config, log)

    signal.signal(signal.SIGHUP, lambda *_: server.call(hang_up))
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # what is loaded now stays: no collection walks it again
    for problem in deciders.facts.problems():
        log.write(event="view", verdict="missing", detail=problem)
    bound.listen()
    log.write(event="start", socket=bound.path, uid=os.geteuid(), view=deciders.facts.generation)
    _say_ready(options.ready_fd)
    try:
        server.run()
    finally:
        chores.anchor()
        log.write(event="stop")
        service.deciders.close()


def _follow(receipts: ChainWriter, log: LogLines) -> None:
    """Go on in a new file of receipts where logrotate moved the old one away."""
    before = receipts.head
    try:
        if receipts.follow(now=now_utc()):
            log.write(event="receipts", verdict="continued", after=before, seq=receipts.seq, head=receipts.head)
    except LedgerError as error:
        log.write(event="receipts", verdict="not-continued", detail=error.message)


def _reload(service: Service, server: LoginServer, path: Path, log: LogLines) -> None:
    """Read the settings again; those that have problems change nothing."""
    old = service.deciders
    try:
        settings = read_settings(path)
    except SettingsError as error:
        for problem in error.problems or (error.message,):
            log.write(event="settings", verdict="refused", detail=problem)
        return
    before, after = old.settings.login, settings.login
    for name in ("socket", "user", "receipts"):
        if getattr(before, name) != getattr(after, name):
            log.write(event="settings", verdict="needs-restart", detail=f"login.{name}")
    service.deciders = old.renew(settings, log, now_utc)
    server.peers = after.peers
    old.desk.validator.close()
    if service.deciders.facts is not old.facts:
        old.facts.close()
    log.write(event="settings", verdict="accepted")


def _check(settings: Settings, who: Who | None) -> int:
    """Say, as the account that would serve, whether what it needs can be read."""
    if who is not None:
        become(who)
    deciders = Deciders.of(settings, LogLines(lambda _: None), now_utc)
    problems = deciders.facts.problems()
    for status in deciders.desk.keys.status(now_utc()):
        if not status.usable:
            problems.append(f"{status.issuer}: no keys at hand; the first login fetches them (iam-bridge keys refresh)")
    deciders.close()
    for sentence in problems or [f"ready to serve at {settings.login.socket}"]:
        print(f"{PROGRAM}: {sentence}")  # noqa: T201 - what --check is for
    return Exit.FAILED if problems else Exit.OK


def _set_limits() -> None:
    """Let no core file hold a token, and allow as many descriptors as connections may need."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MOST if hard == resource.RLIM_INFINITY else min(FILES_MOST, hard)
    with contextlib.suppress(OSError, ValueError):  # systemd's filters may forbid it; the unit has set it then
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _say_ready(descriptor: int | None) -> None:
    """Tell whoever waits: the starter by its descriptor, systemd by its socket (sd_notify(3))."""
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\n")
            os.close(descriptor)
    name = os.environ.pop("NOTIFY_SOCKET", "")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
            notify.sendto(b"READY=1", "\0" + name[1:] if name.startswith("@") else name)


def _stderr_writer() -> Callable[[bytes], None]:
    """Give what writes a line to stderr and never waits: who reads the log may hang, and the loop must not with it."""
    room = select.poll()
    room.register(2, select.POLLOUT)

    def write(line: bytes) -> None:
        if not room.poll(0):
            raise BlockingIOError(errno.EAGAIN, "nobody reads the log")
        os.write(2, line)

    return write


class _ToLogLines(logging.Handler):
    """Pass what the libraries beneath us log on as lines of our own form."""

    def __init__(self, log: LogLines) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(event="note", level=record.levelname.lower(), source=record.name, detail=record.getMessage())


if __name__ == "__main__":
    sys.exit(main())
