"""The keys of every trusted issuer, kept so that a login needs no network and an outage stops nobody.

`find` only looks; when looking is not enough it raises KeysNeeded, and whoever may wait calls `refresh`. A good
refresh replaces the whole set: a key that is missing from it is dead at once. A failed one changes nothing: the last
good keys count until they are `usable_s` old. An empty or unusable set is a failed refresh.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from iam_bridge.errors import InvalidValue, Reason, SourceUnavailable, TokenRefused
from iam_bridge.iam.discovery import fetch_metadata, metadata_url
from iam_bridge.iam.http import Session
from iam_bridge.iam.jwks import KeySet, parse_key_set
from iam_bridge.iam.jws import Key
from iam_bridge.iam.key_files import AHEAD_MOST, KeyFiles
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from iam_bridge.ports import Clock

log = logging.getLogger(__name__)

MAX_JWKS_BYTES = 256 * 1024
COOL_DOWN = timedelta(seconds=30)
"""The least time between two fetches that tokens can cause: anybody can write a token with an unknown kid."""
JITTER = 0.25
"""By how much a pause is lengthened at random, so that login nodes that lost their IAM together do not ask together."""

FetchJwks = Callable[[IssuerRules], dict[str, Any]]


class NetworkNeeded(Exception):
    """A signal, no error: the issuer must be asked, by a caller that may wait."""

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(f"{issuer} must be asked")
        self.issuer = issuer


class KeysNeeded(NetworkNeeded):
    """Call `KeyCache.refresh(issuer)` and look again; the second look decides."""


@dataclass(slots=True)
class _Slot:
    """What is known of one issuer. `keys` is replaced whole, so that `find` needs no lock."""

    rules: IssuerRules
    keys: KeySet | None = None
    tried_at: datetime | None = None
    pause: timedelta = COOL_DOWN
    failure: str = ""
    flight: Future[KeySet] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def may_try(self, now: datetime) -> bool:
        """Tell whether the pause is over; one that begins in the future is of a clock that was set back."""
        return self.tried_at is None or not timedelta(0) <= now - self.tried_at < self.pause

    def may_help(self, now: datetime) -> bool:
        """Tell whether a refresh can be started or joined."""
        return self.flight is not None or self.may_try(now)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What an admin wants to know of an issuer's keys; `kids` is empty and `fetched_at` None where there are none."""

    issuer: Issuer
    kids: tuple[str, ...]
    fetched_at: datetime | None
    usable: bool
    failure: str
    left_out: tuple[str, ...]


class KeyCache:
    """Key sets by issuer, in memory and (with a folder) on disk. Safe for many threads."""

    def __init__(
        self,
        rules: Mapping[Issuer, IssuerRules],
        folder: Path | None,
        clock: Clock,
        *,
        fetch: FetchJwks | None = None,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._slots = {issuer: _Slot(entry) for issuer, entry in rules.items()}
        self._files = KeyFiles(folder) if folder is not None else None
        self._clock = clock
        self._fetch = fetch or fetch_jwks
        self._spread = spread
        self.reload()

    def find(self, issuer: Issuer, kid: str | None, now: datetime) -> Key:
        """Give the key of a token, without any network.

        Raises KeysNeeded where a refresh is due and permitted, TokenRefused (NO_KEYS, UNKNOWN_KEY) where it is not.
        """
        slot = self._slots[issuer]
        keys = slot.keys
        if keys is None or not _usable(slot.rules, keys, now):
            if slot.may_help(now):
                raise KeysNeeded(issuer)
            raise TokenRefused(Reason.NO_KEYS, slot.failure or "no keys of this issuer are at hand")
        key = keys.find(kid)
        if key is None:
            if kid is not None and slot.may_help(now):
                raise KeysNeeded(issuer)
            raise TokenRefused(Reason.UNKNOWN_KEY, "the issuer publishes no key of this id" if kid else "no key id")
        return key

    def refresh(self, issuer: Issuer) -> None:
        """Fetch the key set and wait for it; callers at the same time share one fetch and its outcome.

        Within the pause after a try nothing is fetched: the outcome of that try stands. Raises SourceUnavailable when
        the issuer gives no usable set; the last good keys then stay.
        """
        slot = self._slots[issuer]
        with slot.lock:
            flight, now = slot.flight, self._clock()
            first = flight is None and slot.may_try(now)
            if first:
                flight = slot.flight = Future()
                slot.tried_at, slot.pause = now, COOL_DOWN * (1 + JITTER * self._spread())
        if flight is None:
            return
        if first:
            self._fly(slot, flight)
        flight.result()

    def due(self, now: datetime) -> tuple[Issuer, ...]:
        """Name the issuers whose keys are older than `refresh_s`, or missing, and that may be asked again."""
        return tuple(issuer for issuer, slot in self._slots.items() if slot.may_try(now) and _is_due(slot, now))

    def reload(self) -> tuple[Issuer, ...]:
        """Take over sets on disk that are newer than ours (`keys refresh` wrote them); name their issuers."""
        if self._files is None:
            return ()
        taken = []
        for issuer, slot in self._slots.items():
            found = self._files.read(slot.rules, self._clock())
            with slot.lock:
                if found is not None and (slot.keys is None or found.fetched_at > slot.keys.fetched_at):
                    slot.keys, slot.failure = found, ""
                    taken.append(issuer)
        return tuple(taken)

    def status(self, now: datetime) -> tuple[KeyStatus, ...]:
        """Tell what is held, for `keys show`, doctor and metrics."""
        return tuple(_status(slot, now) for slot in self._slots.values())

    def _fly(self, slot: _Slot, flight: Future[KeySet]) -> None:
        """Do the one fetch, and settle the flight whatever happens: others wait for it."""
        issuer = slot.rules.issuer
        try:
            keys = self._fetch_keys(slot.rules)
        except BaseException as error:
            failure = error if isinstance(error, SourceUnavailable) else _broken_off(issuer, error)
            with slot.lock:
                slot.failure, slot.flight = failure.message, None
            flight.set_exception(failure)
            if not isinstance(error, Exception):  # an interrupt or the end of the process
                raise
            log.warning("event=keys issuer=%s not refreshed: %s", issuer, failure.message)
            return
        for sentence in keys.left_out:
            log.warning("event=keys issuer=%s left out: %s", issuer, sentence)
        with slot.lock:
            slot.keys, slot.failure, slot.flight = keys, "", None
        flight.set_result(keys)

    def _fetch_keys(self, rules: IssuerRules) -> KeySet:
        body = self._fetch(rules)
        try:
            keys = parse_key_set(body, algorithms=rules.algorithms, fetched_at=self._clock())
        except InvalidValue as error:
            raise SourceUnavailable(f"{metadata_url(rules.issuer)}: {error.message}") from error
        if self._files is not None:
            self._files.write(rules, keys)
        return keys


def fetch_jwks(rules: IssuerRules) -> dict[str, Any]:
    """Fetch the issuer's JWK Set by way of its metadata; raise SourceUnavailable."""
    with Session(ca_file=rules.ca_file) as session:
        metadata = fetch_metadata(session, rules.issuer, timeout_s=rules.timeout_s)
        answer = session.fetch_json(metadata.jwks_uri, timeout_s=rules.timeout_s, max_bytes=MAX_JWKS_BYTES)
    return answer.body


def _broken_off(issuer: Issuer, error: BaseException) -> SourceUnavailable:
    return SourceUnavailable(f"fetching the keys of {issuer} broke off ({type(error).__name__})")


def _usable(rules: IssuerRules, keys: KeySet, now: datetime) -> bool:
    return -AHEAD_MOST <= now - keys.fetched_at < timedelta(seconds=rules.usable_s)


def _is_due(slot: _Slot, now: datetime) -> bool:
    if slot.keys is None:
        return True
    return not -AHEAD_MOST <= now - slot.keys.fetched_at < timedelta(seconds=slot.rules.refresh_s)


def _status(slot: _Slot, now: datetime) -> KeyStatus:
    keys = slot.keys
    if keys is None:
        return KeyStatus(slot.rules.issuer, (), None, usable=False, failure=slot.failure, left_out=())
    kids = (*sorted(keys.keys), *(["(no kid)"] if keys.only else []))
    usable = _usable(slot.rules, keys, now)
    return KeyStatus(slot.rules.issuer, kids, keys.fetched_at, usable, slot.failure, keys.left_out)
