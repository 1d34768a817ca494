"""A lock holds for what runs already (design, invariant 7): sessions of locked accounts are ended.

By state and not by change: a run that was killed between the lock and this leaves it to the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from iam_bridge.errors import BridgeError
from iam_bridge.model.account import Account
from provisioner.processes import Process, read_process
from provisioner.sessions import SessionReport, end_sessions

PROC = Path("/proc")


def count_processes(uids: Iterable[int], proc: Path = PROC) -> dict[int, int]:
    """Count what runs for each of these uids that has anything running, in one pass over all processes."""
    wanted = frozenset(uids)
    found: dict[int, int] = {}
    if not wanted:
        return found
    for entry in os.listdir(proc):
        process = read_process(int(entry), proc) if entry.isdecimal() else None
        if process is not None:
            for uid in _people_of(process) & wanted:
                found[uid] = found.get(uid, 0) + 1
    return found


def _people_of(process: Process) -> set[int]:
    candidates = {*process.uids, process.login_uid if process.login_uid is not None else process.uids[0]}
    return {uid for uid in candidates if process.belongs_to(uid) == "theirs"}


def end_locked_sessions(accounts: Iterable[Account]) -> tuple[SessionReport, ...]:
    """End everything that runs for accounts that are locked; nothing where this is not root, who alone could."""
    if os.geteuid() != 0:
        return ()
    locked = {account.uid: account for account in accounts if not account.is_open}
    running = count_processes(locked)
    return tuple(_end(locked[uid]) for uid in sorted(running))


def _end(account: Account) -> SessionReport:
    name = account.name.text
    try:
        return end_sessions(account.uid, name, adopted=account.adopted)
    except BridgeError as error:
        return SessionReport(account.uid, name, False, (), (), (str(error),))
