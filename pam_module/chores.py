"""What the login daemon does between requests: fetch keys that are due, look at kept keys, make receipts last.

All of it runs in lanes of its own, so that neither a slow issuer nor a slow disk holds up an answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from iam_bridge.ledger.chain import ChainWriter
from iam_bridge.model.identity import Issuer
from iam_bridge.ports import Clock
from pam_module.asking import refresh_errand
from pam_module.errands import Errand, Lanes
from pam_module.records import LogLines
from pam_module.service import Service

EVERY_S = 1.0
LOOK_AT_DISK_S = 30.0
ANCHOR_S = 3600.0
"""How often the head of the receipts goes into the log: an anchor outside the file that it vouches for."""
SPREAD_S = 60.0
"""Keys that are merely old are fetched within this time at random: login nodes started together do not ask together."""


class Chores:
    """Called once a second by the loop."""

    def __init__(
        self,
        service: Service,
        receipts: ChainWriter,
        lanes: Lanes,
        log: LogLines,
        *,
        clock: Clock,
        ticks: Callable[[], float],
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._receipts = receipts
        self._lanes = lanes
        self._log = log
        self._clock = clock
        self._ticks = ticks
        self._spread = spread
        self._synced = receipts.seq
        self._fetch_at: dict[Issuer, float] = {}
        self._look_at = ticks() + LOOK_AT_DISK_S
        self._anchor_at = ticks()

    def do(self) -> None:
        """Start what is due."""
        now = self._ticks()
        self._fetch_keys(now)
        if now >= self._look_at:
            self._look_at = now + LOOK_AT_DISK_S
            lane = ("disk", "keys")
            self._lanes.start(Errand(lane, lane, self._service.deciders.desk.keys.reload))
        if self._receipts.seq != self._synced:
            self._synced = self._receipts.seq
            lane = ("disk", "receipts")
            self._lanes.start(Errand(lane, lane, self._receipts.sync))
        if now >= self._anchor_at:
            self._anchor_at = now + ANCHOR_S
            self.anchor()

    def anchor(self) -> None:
        """Write the head of the receipts into the log."""
        self._log.write(event="receipts", seq=self._receipts.seq, head=self._receipts.head)

    def _fetch_keys(self, now: float) -> None:
        keys, moment = self._service.deciders.desk.keys, self._clock()
        due = keys.due(moment)
        missing = {status.issuer for status in keys.status(moment) if not status.usable} if due else set()
        for issuer in due:
            wait = 0.0 if issuer in missing else self._spread() * SPREAD_S
            if now >= self._fetch_at.setdefault(issuer, now + wait) or issuer in missing:
                self._lanes.start(refresh_errand(keys, issuer))
        for issuer in self._fetch_at.keys() - set(due):
            del self._fetch_at[issuer]
