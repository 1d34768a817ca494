"""What a command works with: settings, clock, who asks, the ledger, the locks and the site.

Here, and nowhere below, the clock and the environment are read.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from iam_bridge.errors import RunLocked
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.lock import RunLock
from iam_bridge.model.rules import Settings
from iam_bridge.settings import read_settings
from provisioner.facts import Site
from provisioner.hostnames import HostPaths
from provisioner.stores.files import FilesStore

DAY_S = 86400
PATIENCE_S = 10.0
"""How long a command waits for another that is writing: a ban must not fail because a run is in its last second."""


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
    with Ledger.open(settings.paths.ledger, create=create, anchors=anchors_of(settings)) as ledger:
        yield ledger


@contextlib.contextmanager
def open_ledger_or_empty(settings: Settings) -> Iterator[Ledger]:
    """Open the ledger, or an empty one in a scratch folder where there is none yet: to look, never to write."""
    if os.path.lexists(settings.paths.ledger):
        with open_ledger(settings) as ledger:
            yield ledger
        return
    with tempfile.TemporaryDirectory(prefix="iam-bridge-") as scratch:
        # The anchors count all the same: a ledger that is gone is not a first run.
        path = Path(scratch) / "ledger.db"
        with Ledger.open(path, create=True, anchors=anchors_of(settings)) as ledger:
            yield ledger


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
def sole_writer(settings: Settings, command: str, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Be the only one who writes to the ledger and the store; raise RunLocked when another does for too long."""
    _prepare_folder(settings)
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(RunLock(settings.paths.ledger, now=utc_now(), command=command))
                break
            except RunLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield


def _prepare_folder(settings: Settings) -> None:
    """Make the ledger's folder, where its lock lies too; what is wrong with it the lock says."""
    with contextlib.suppress(OSError):
        settings.paths.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
