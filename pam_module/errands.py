"""What a request may have to wait for: blocking calls to an issuer, made in threads, away from the loop that answers.

Each lane (the keys of one issuer, the introspection of one issuer) has threads and a queue of its own, so that an
issuer which hangs delays its own people alone. Equal errands under way are one: fifty logins that miss the same keys
make one fetch. Nothing here decides anything.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass

from iam_bridge.errors import SourceUnavailable
from pam_module.wire import Reply

QUEUE_MAX = 256
"""Errands that may wait in one lane; beyond it the issuer counts as unavailable at once."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A blocking call: errands of one `lane` share at most `threads` threads, those of one `key` a single call.

    `run` gives the outcome or raises; what it raises is raised in whoever waits.
    """

    lane: tuple[str, str]
    key: tuple[str, str]
    run: Callable[[], object]
    threads: int = 1


class TooLate(SourceUnavailable):
    """An errand did not come back while its request could wait."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an errand: a value, or the error that it ended in."""

    key: tuple[str, str]
    value: object = None
    error: Exception | None = None


Conversation = Generator[Errand, object, Reply]
"""A request being answered: it yields what it must wait for, is sent the value (or thrown the error), and returns."""


class Lanes:
    """Run errands in daemon threads that end when their lane is empty; `wake` is called after each, from its thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, str], deque[Errand]] = {}
        self._threads: dict[tuple[str, str], int] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._done: deque[Outcome] = deque()

    def start(self, errand: Errand) -> None:
        """Begin an errand, or join the one of the same key; its outcome comes by `take_outcomes`."""
        with self._lock:
            if errand.key in self._under_way:
                return
            queue = self._queues.setdefault(errand.lane, deque())
            if len(queue) >= QUEUE_MAX:
                full = SourceUnavailable(f"{len(queue)} calls wait for {errand.lane[1]} already")
                self._done.append(Outcome(errand.key, error=full))
                self._wake()
                return
            self._under_way.add(errand.key)
            queue.append(errand)
            if self._threads.get(errand.lane, 0) >= errand.threads:
                return
            self._threads[errand.lane] = self._threads.get(errand.lane, 0) + 1
        try:
            threading.Thread(target=self._work, args=(errand.lane,), name="/".join(errand.lane), daemon=True).start()
        except RuntimeError:  # the host lets us have no more of them (ulimit -u, TasksMax)
            self._work_without(errand.lane)

    def take_outcomes(self) -> list[Outcome]:
        """Give what has come back since the last call."""
        outcomes = []
        while self._done:
            outcomes.append(self._done.popleft())
        return outcomes

    def _next(self, lane: tuple[str, str]) -> Errand | None:
        with self._lock:
            if self._queues[lane]:
                return self._queues[lane].popleft()
            self._threads[lane] -= 1
            return None

    def _work_without(self, lane: tuple[str, str]) -> None:
        """Fail what waits in a lane that has no thread, so that the next errand there may try for one again."""
        with self._lock:
            self._threads[lane] -= 1
            while self._threads[lane] == 0 and self._queues[lane]:
                errand = self._queues[lane].popleft()
                self._under_way.discard(errand.key)
                self._done.append(Outcome(errand.key, error=SourceUnavailable("no thread is to be had on this host")))
        self._wake()

    def _work(self, lane: tuple[str, str]) -> None:
        while (errand := self._next(lane)) is not None:
            try:
                outcome = Outcome(errand.key, errand.run())
            except Exception as error:  # noqa: BLE001 - a thread's edge: whoever waits raises it again and denies
                outcome = Outcome(errand.key, error=error)
            with self._lock:
                self._under_way.discard(errand.key)
            self._done.append(outcome)
            self._wake()
