"""What the auth phase knew, kept for the session phase under an opaque handle that travels in the PAM environment.

A handle proves nothing and opens nothing: it only lets the receipt of a session name the token that opened it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

HANDLE_BYTES = 16
TTL_S = 600.0
"""sshd gives a login 120 s (LoginGraceTime) from the first prompt to the session, and sites raise it."""
MOST = 2048
"""Logins between token and session at one moment: more than sshd lets in, and small in memory."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The token that opened a login, as it may be written down."""

    user: str
    fingerprint: str
    subject: str
    issuer: str
    jti_hash: str


class Handles:
    """A bounded table of handles; the oldest make room, and unknown ones are no error."""

    def __init__(self, ticks: Callable[[], float], entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._ticks = ticks
        self._entropy = entropy
        self._table: dict[str, tuple[float, Opened]] = {}  # in the order of their making, so of their end

    def __len__(self) -> int:
        return len(self._table)

    def make(self, opened: Opened) -> str:
        """Keep what the auth phase knew, and give the handle for it."""
        now = self._ticks()
        while self._table:
            oldest = next(iter(self._table))
            if len(self._table) < MOST and self._table[oldest][0] > now:
                break
            del self._table[oldest]
        handle = self._entropy(HANDLE_BYTES).hex()
        self._table[handle] = (now + TTL_S, opened)
        return handle

    def take(self, handle: str, user: str) -> Opened | None:
        """Give back what was kept, once, and only for the user it was made for."""
        kept = self._table.get(handle)
        if kept is None or kept[1].user != user:
            return None
        del self._table[handle]
        return kept[1] if kept[0] > self._ticks() else None
