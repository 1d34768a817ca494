"""Owners, modes and room of everything that the settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from iam_bridge.cli.doctor.host import Host, look_at
from iam_bridge.model.rules import Settings
from iam_bridge.policy.doctor import Check, Mark, Wanted, judge_path, judge_space, warning

_NOT_HERE = "provision run makes it; on a host that only opens logins it is not needed"
_DAEMON_MAKES = "the login daemon makes it at its start (packaging/tmpfiles.d/iam-bridge.conf)"


def check_files(host: Host, settings: Settings) -> list[Check]:
    """Look at owners and modes; that the view or the ban list is missing is said where they are read."""
    checks = []
    for what, path, wanted in _wanted(host, settings):
        found = look_at(path)
        if not (found.is_missing and path in (settings.paths.view, settings.paths.bans)):
            checks.append(judge_path(what, str(path), found, wanted))
    return checks


def _wanted(host: Host, settings: Settings) -> Iterator[tuple[str, Path, Wanted]]:
    login, paths = settings.login, settings.paths
    ours = frozenset({0, os.geteuid()})
    daemon = ours | {uid for uid in (host.uid_of(login.user),) if uid is not None}
    yield "settings file", settings.path, Wanted(False, ours, 0o022, "who may write it decides who gets in")
    yield from _secrets(settings, ours, daemon)
    closed = Wanted(True, ours, 0o077, "who is who is for root alone", missing=Mark.WARN, make=_NOT_HERE)
    yield "ledger folder", paths.ledger.parent, closed
    yield "ledger", paths.ledger, _file(closed)
    shown = Wanted(True, ours, 0o022, "who may write there decides who gets in", make="iam-bridge provision run")
    yield "view folder", paths.view.parent, shown
    yield "view file", paths.view, _file(shown)
    if paths.bans.parent != paths.view.parent:
        yield "ban list's folder", paths.bans.parent, shown
    yield "ban list file", paths.bans, _file(shown)
    door = "who may write there can answer in the daemon's place"
    yield "socket folder", login.socket.parent, Wanted(True, daemon, 0o022, door, make=_DAEMON_MAKES)
    record = "receipts say who came when"
    yield "receipts folder", login.receipts.parent, Wanted(True, daemon, 0o027, record, make=_DAEMON_MAKES)
    signs = "who may write there can sign tokens"
    cache = Wanted(True, daemon, 0o022, signs, missing=Mark.WARN, make="iam-bridge keys refresh")
    yield "key cache", login.key_cache, cache


def _secrets(settings: Settings, ours: frozenset[int], daemon: frozenset[int]) -> Iterator[tuple[str, Path, Wanted]]:
    why = "who can read it can be us at the IAM"
    for rules in settings.issuers.values():
        if rules.client is not None and rules.client.secret_file is not None:
            yield f"login secret, {rules.issuer}", rules.client.secret_file, Wanted(False, daemon, 0o037, why)
    for source in settings.sources:
        if source.client is not None and source.client.secret_file is not None:
            yield f"sync secret, {source.issuer}", source.client.secret_file, Wanted(False, ours, 0o037, why)


def _file(folder: Wanted) -> Wanted:
    """Want of a file what is wanted of its folder."""
    return Wanted(False, folder.owners, folder.forbidden, folder.why, folder.missing, folder.make)


def check_space(settings: Settings) -> Check:
    """Look at the room for receipts; where their folder is not there yet, at the nearest one that is."""
    what, path = "room for receipts", settings.login.receipts
    try:
        folder = next(folder for folder in path.parents if folder.exists())
        found = os.statvfs(folder)
    except (OSError, StopIteration) as error:
        why = error.strerror if isinstance(error, OSError) else "no folder of its path exists"
        return warning(what, f"{path}: {why}", "run doctor as root to have it looked at")
    inodes = found.f_favail if found.f_files else None
    return judge_space(what, str(path), found.f_bavail * found.f_frsize, inodes)
