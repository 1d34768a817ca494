"""What a command works with: settings, clock, who asks, the ledger, the locks and the site.

Here, and nowhere below, the clock and the environment are read.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import syslog
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.cli.render import note
from iam_bridge.errors import BridgeError, LedgerError, RunLocked
from iam_bridge.iam.pull import pull_members
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.lock import RunLock
from iam_bridge.model.rules import Settings
from iam_bridge.settings import read_settings
from provisioner.facts import Site
from provisioner.hostnames import HostPaths
from provisioner.run import Pulled, pull_all, write_anchors
from provisioner.stores.files import FilesStore

DAY_S = 86400
PATIENCE_S = 10.0
"""How long a command waits for another that is writing: a ban must not fail because a run is in its last second."""
PAUSE_S = 0.1


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


def days_now() -> int:
    """Tell the day as shadow(5) counts it."""
    return int(time.time()) // DAY_S


def read_config(config: Path) -> Settings:
    """Read the settings file; raise SettingsError."""
    return read_settings(config)


def who_asks() -> str:
    """Name the person behind this process: whom audit saw log in, else who called sudo, else the user it runs as."""
    acting = _name_of(os.geteuid())
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            login_uid = int(file.read())
    except (OSError, ValueError):
        login_uid = 2**32 - 1  # "not set", pam_loginuid(8)
    person = _name_of(login_uid) if login_uid != 2**32 - 1 else _printable(os.environ.get("SUDO_USER", ""))
    return f"{person} as {acting}" if person and person != acting else acting


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= 64 else "?"


def anchors_of(settings: Settings) -> tuple[Path, ...]:
    """Name the files that say, outside the ledger's own folder, where it stood: beside the view, and in the store."""
    return (settings.paths.view.parent / "anchor", settings.accounts.folder / "iam-bridge.anchor")


@contextlib.contextmanager
def open_ledger(settings: Settings, *, create: bool = False) -> Iterator[Ledger]:
    """Open the ledger of the settings; raise LedgerError where there is none and `create` is not said."""
    if create and not _is_there(settings.paths.ledger):
        _check_first(settings)
    with Ledger.open(settings.paths.ledger, create=create, anchors=anchors_of(settings)) as ledger:
        yield ledger


@contextlib.contextmanager
def open_ledger_or_empty(settings: Settings) -> Iterator[Ledger]:
    """Open the ledger, or an empty one in a scratch folder where there is none yet: to look, never to write."""
    if _is_there(settings.paths.ledger):
        with open_ledger(settings) as ledger:
            yield ledger
        return
    _check_first(settings)
    with (
        tempfile.TemporaryDirectory(prefix="iam-bridge-") as scratch,
        Ledger.open(Path(scratch) / "ledger.db", create=True) as ledger,
    ):
        yield ledger


def _check_first(settings: Settings) -> None:
    """Raise LedgerError where there was a ledger before: a new one would take everybody's account and every ban away.

    A ledger that is gone is most often on a disk that is not mounted.
    """
    anchor = next((path for path in anchors_of(settings) if os.path.lexists(path)), None)
    if anchor is not None:
        raise LedgerError(
            f"there is no ledger {settings.paths.ledger}, and there was one: {anchor} says where it stood",
            hint="mount its disk, or restore a backup and run: iam-bridge ledger reconcile",
        )


def _is_there(path: Path) -> bool:
    """Tell whether there is a file; raise LedgerError where this process may not know."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise LedgerError(f"{path} cannot be looked at: {error.strerror}", hint="run it as root") from error
    return True


def make_site(settings: Settings, ledger: Ledger) -> Site:
    """Join settings and ledger with this host's account store."""
    store = FilesStore(settings.accounts, journal=settings.paths.journal, today=days_now)
    return Site(settings, ledger, store, HostPaths())


@contextlib.contextmanager
def sole_run(settings: Settings, command: str) -> Iterator[None]:
    """Be the only run, from the pull to the report; raise RunLocked, at once, when there is another."""
    _prepare_folder(settings)
    with RunLock(settings.paths.ledger.with_name("provision-run"), now=utc_now(), command=command):
        yield


@contextlib.contextmanager
def writing(settings: Settings, command: str, *, create: bool = False) -> Iterator[Site]:
    """Open the site as the only one who writes to ledger and store; afterwards tell the log where the ledger stands.

    Raises RunLocked when somebody else goes on writing for `PATIENCE_S`, LedgerError where there is no ledger yet and
    `create` is not said.
    """
    _prepare_folder(settings)
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(RunLock(settings.paths.ledger, now=utc_now(), command=command))
                break
            except RunLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)
        with open_ledger(settings, create=create) as ledger:
            site = make_site(settings, ledger)
            yield site
            _tell_log(site)


def _tell_log(site: Site) -> None:
    """Write the head of the chain to the log: a chain proves nothing without an anchor outside its host (design 7)."""
    try:
        anchor = write_anchors(site)
    except BridgeError as error:
        note(f"{error}; what the command did stands")
        return
    if anchor:
        syslog.openlog("iam-bridge", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
        syslog.syslog(syslog.LOG_NOTICE, f"ledger {anchor.strip()}")


def _prepare_folder(settings: Settings) -> None:
    """Make the ledger's folder, where its lock lies too; what is wrong with it the lock says."""
    with contextlib.suppress(OSError):
        settings.paths.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def pull_everybody(settings: Settings) -> Pulled:
    """Ask every source; call it before the ledger is open, since each pull starts as a copy of this process."""
    return pull_all(settings, functools.partial(pull_members, clock=utc_now))
