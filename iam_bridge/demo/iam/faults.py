"""Faults: everything that an IAM, its proxy or its network does wrong, each a switch of its own.

A fault holds for a path (exact, or a prefix that ends in `*`) and, if wanted, only for the nth
matching request since it was set.  Faults of the same kind may stand side by side.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

Value = float | str | None


class FaultKind(StrEnum):
    """What goes wrong; docs/reference/embedded-iam.md says what each shows on the wire."""

    PAGE_DRIFT = "page-drift"
    DUPLICATE_ID = "duplicate-id"
    SHORT_PAGE = "short-page"
    LYING_TOTAL = "lying-total"
    TOKEN_DIES = "token-dies"
    WRONG_ISSUER = "wrong-issuer"
    EMPTY_KEYS = "empty-keys"
    SLASHLESS_ISSUER = "slashless-issuer"
    STRING_AUDIENCE = "string-audience"
    EMPTY_BODY = "empty-body"
    CUT_BODY = "cut-body"
    SLOW = "slow"
    HANG = "hang"
    SERVER_ERROR = "server-error"
    GARBAGE = "garbage"
    REDIRECT = "redirect"
    HUGE_BODY = "huge-body"
    RATE_LIMIT = "rate-limit"
    WRONG_TYPE = "wrong-content-type"
    DEEP_JSON = "deep-json"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Preset:
    """Where a fault strikes and how hard, when the caller does not say."""

    path: str
    value: Value


PRESETS: dict[FaultKind, Preset] = {
    FaultKind.PAGE_DRIFT: Preset("/scim/Users", 1),
    FaultKind.DUPLICATE_ID: Preset("/scim/Users", None),
    FaultKind.SHORT_PAGE: Preset("/scim/Users", 1),
    FaultKind.LYING_TOTAL: Preset("/scim/Users", 1),
    FaultKind.TOKEN_DIES: Preset("/scim/*", 1),
    FaultKind.WRONG_ISSUER: Preset("/.well-known/openid-configuration", "https://other-iam.example.org/"),
    FaultKind.EMPTY_KEYS: Preset("/jwk", None),
    FaultKind.SLASHLESS_ISSUER: Preset("", None),
    FaultKind.STRING_AUDIENCE: Preset("", None),
    FaultKind.EMPTY_BODY: Preset("*", None),
    FaultKind.CUT_BODY: Preset("*", None),
    FaultKind.SLOW: Preset("*", 2.0),
    FaultKind.HANG: Preset("*", None),
    FaultKind.SERVER_ERROR: Preset("*", 500),
    FaultKind.GARBAGE: Preset("*", None),
    FaultKind.REDIRECT: Preset("*", "https://127.0.0.2:9/elsewhere"),
    FaultKind.HUGE_BODY: Preset("*", 64 * 1024 * 1024),
    FaultKind.RATE_LIMIT: Preset("*", 1),
    FaultKind.WRONG_TYPE: Preset("*", "text/html;charset=UTF-8"),
    FaultKind.DEEP_JSON: Preset("*", 100_000),
    FaultKind.REPLY: Preset("*", "{}"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One switched-on fault: it strikes at matching requests `first`..`last` (from 1; None: for ever)."""

    kind: FaultKind
    path: str
    value: Value
    first: int = 1
    last: int | None = None

    def matches(self, path: str) -> bool:
        """Tell whether a request path is this fault's."""
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path

    @property
    def number(self) -> int:
        """Give the value where it is a count."""
        return int(self.value or 0)


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that strikes at the request in hand: its `turn`th matching one, counted from 0 at `first`."""

    fault: Fault
    turn: int


Strikes = dict[FaultKind, Strike]


class Faults:
    """The switchboard; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: list[Fault] = []
        self._seen: list[int] = []

    def switch_on(
        self,
        kind: str,
        *,
        path: str | None = None,
        value: Value = None,
        nth: int | None = None,
        first: int = 1,
        last: int | None = None,
    ) -> Fault:
        """Switch a fault on, for the `nth` matching request only or for `first`..`last`.

        Raises:
            ValueError: there is no such fault.
        """
        known = FaultKind(kind)
        preset = PRESETS[known]
        fault = Fault(
            known,
            preset.path if path is None else path,
            preset.value if value is None else value,
            first=first if nth is None else nth,
            last=last if nth is None else nth,
        )
        with self._lock:
            self._set.append(fault)
            self._seen.append(0)
        return fault

    def switch_off(self, kind: str | None = None) -> None:
        """Switch off all faults of a kind, or all."""
        with self._lock:
            kept = [
                (fault, seen)
                for fault, seen in zip(self._set, self._seen, strict=True)
                if kind not in {None, fault.kind}
            ]
            self._set = [fault for fault, _ in kept]
            self._seen = [seen for _, seen in kept]

    def is_on(self, kind: FaultKind) -> bool:
        """Tell whether a fault that concerns minting, not a request, is on."""
        with self._lock:
            return any(fault.kind is kind for fault in self._set)

    def take(self, path: str) -> Strikes:
        """Count one request of `path` against every fault, and give those that strike at it."""
        striking: Strikes = {}
        with self._lock:
            for index, fault in enumerate(self._set):
                if not fault.matches(path):
                    continue
                self._seen[index] += 1
                ordinal = self._seen[index]
                if fault.first <= ordinal and (fault.last is None or ordinal <= fault.last):
                    striking[fault.kind] = Strike(fault, ordinal - fault.first)
        return striking
