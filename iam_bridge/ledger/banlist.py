"""The ban list as the services read it: a small JSON file, read whole when it changed, looked up by hash.

A list that cannot be believed denies everybody: it may hold the one ban that matters. That includes a missing one and
one of an older generation than was seen; "nobody is banned" is a list without bans.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from iam_bridge.errors import BridgeError, ViewError
from iam_bridge.ledger.files import read_bounded, why_unsafe_to_read
from iam_bridge.ledger.times import moment, moment_or_none, stamp
from iam_bridge.model.identity import Issuer, Subject
from iam_bridge.model.verdict import Ban

LIST_MAX = 16 << 20
HINT = "it is written again by: iam-bridge provision run"
_KEYS = {"version", "ledger", "generation", "bans"}
_BAN_KEYS = {"id", "issuer", "sub", "name", "uid", "reason", "since", "until"}


def ban_to_json(ban: Ban) -> dict[str, str | int | None]:
    """Write a ban as the list holds it."""
    return {
        "id": ban.ban_id,
        "issuer": ban.subject.issuer.url if ban.subject else None,
        "sub": ban.subject.sub if ban.subject else None,
        "name": ban.name,
        "uid": ban.uid,
        "reason": ban.reason,
        "since": stamp(ban.since),
        "until": stamp(ban.until) if ban.until else None,
    }


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key comes twice")
    return fields


def _whole(value: object, *, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError("a number is no whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is no text")  # noqa: TRY004 one way for a list to be bad
    return value


def _parse_ban(row: object) -> Ban:
    if not isinstance(row, dict) or row.keys() != _BAN_KEYS:
        raise ValueError("a ban has other keys")
    if (row["issuer"] is None) != (row["sub"] is None):
        raise ValueError("a ban has half a subject")
    subject = None if row["sub"] is None else Subject.parse(Issuer.parse(row["issuer"]), row["sub"])
    name = None if row["name"] is None else _text(row["name"])
    uid = None if row["uid"] is None else _whole(row["uid"], least=1)
    if subject is None and name is None and uid is None:
        raise ValueError("a ban names nobody")
    since, until = moment(row["since"]), moment_or_none(row["until"])
    return Ban(_whole(row["id"], least=1), subject, name, uid, _text(row["reason"]), since, until)


def parse_bans(data: bytes) -> tuple[str, int, tuple[Ban, ...]]:
    """Read a ban list whole: the ledger's id, the generation, the bans; raise ValueError for anything else."""
    document = json.loads(data.decode(), object_pairs_hook=_no_key_twice)
    if not isinstance(document, dict) or document.keys() != _KEYS or document["version"] != 1:
        raise ValueError("it is no ban list of this version")
    if not isinstance(document["bans"], list):
        raise ValueError("its bans are no list")  # noqa: TRY004 one way for a list to be bad
    bans = tuple(map(_parse_ban, document["bans"]))
    return _text(document["ledger"]), _whole(document["generation"], least=1), bans


def read_lost_bans(path: Path, ledger_id: str, known: Iterable[Ban], now: datetime) -> tuple[int, tuple[Ban, ...]]:
    """Give the generation of the list on disk and its bans in force that a ledger put back from a copy does not know.

    `known` are all bans that the ledger ever had, past ones too. A list that is absent, damaged or another ledger's
    gives (0, ()).
    """
    try:
        listed_id, generation, listed = parse_bans(read_bounded(path, LIST_MAX)[0])
    except (OSError, ValueError, RecursionError, BridgeError):
        return 0, ()
    if listed_id != ledger_id:
        return 0, ()
    keys = {_key_of(ban) for ban in known}
    return generation, tuple(ban for ban in listed if ban.holds_at(now) and _key_of(ban) not in keys)


def _key_of(ban: Ban) -> tuple[object, ...]:
    return (ban.subject, ban.name, ban.uid, ban.since)


class BanList:
    """Tells which bans concern a person; call `reload_if_changed` before each question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self.ledger_id = ""
        self._seen: tuple[int, ...] | None = None
        self._why = "not read yet"
        self._by_key: Mapping[Subject | str | int, tuple[Ban, ...]] = {}

    def reload_if_changed(self) -> None:
        """Read the list again if the file changed; raise ViewError while it cannot be believed."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            self._seen, self._why = None, f"the ban list {self.path} cannot be read: {error.strerror}"
            raise ViewError(self._why, hint=HINT) from error
        seen = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode, found.st_uid)
        if seen != self._seen:
            self._seen = seen
            self._why = self._load()
        if self._why:
            raise ViewError(self._why, hint=HINT)

    def find(
        self, *, subject: Subject | None = None, name: str | None = None, uid: int | None = None
    ) -> tuple[Ban, ...]:
        """Give all bans on any of the three, in or out of force; raise ViewError while there is no list to believe."""
        if self._why:
            raise ViewError(self._why, hint=HINT)
        if not self._by_key:
            return ()
        keys = (key for key in (subject, name, uid) if key is not None)
        found = {ban.ban_id: ban for key in keys for ban in self._by_key.get(key, ())}
        return tuple(found.values())

    def _load(self) -> str:
        """Take over the list from disk; give the sentence that says why not.

        What is no fault of the list itself (no descriptor left, a folder of the wrong mode) is looked at again each
        time: when it is over, nobody writes a new list to tell.
        """
        try:
            data, found = read_bounded(self.path, LIST_MAX)
            unsafe = why_unsafe_to_read(self.path, found)
            if unsafe:
                self._seen = None
                return f"the ban list cannot be believed: {unsafe}"
            ledger_id, generation, bans = parse_bans(data)
        except OSError as error:
            self._seen = None
            return f"the ban list {self.path} cannot be read: {error.strerror}"
        except BridgeError as error:
            return f"the ban list {self.path} is damaged: {error.message}"
        except (ValueError, RecursionError) as error:
            return f"the ban list {self.path} is damaged: {error}"
        if self.ledger_id and ledger_id != self.ledger_id:
            return f"the ban list {self.path} is of another ledger than before; restart the service if that is meant"
        if generation < self.generation:
            return (
                f"the ban list {self.path} (generation {generation}) is older than the one before ({self.generation})"
            )
        by_key: dict[Subject | str | int, tuple[Ban, ...]] = {}
        for ban in bans:
            for key in (ban.subject, ban.name, ban.uid):
                if key is not None:
                    by_key[key] = (*by_key.get(key, ()), ban)
        self.ledger_id, self.generation, self._by_key = ledger_id, generation, by_key
        return ""
