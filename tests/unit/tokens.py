"""What tests of the token path share: a maker, the rules of its issuer, keys that come from a function."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iam_bridge.iam.keys import KeyCache
from iam_bridge.iam.validate import TokenValidator
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from tests.unit.build import AUDIENCE, ISSUER, NOW, issuer_rules
from tests.vectors.bad_tokens import TokenMaker

MAKER = TokenMaker(ISSUER.url, AUDIENCE[0], int(NOW.timestamp()))


class HandClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Publisher:
    """The issuer's end of a key fetch: what it publishes, and how often it was asked."""

    def __init__(self, jwks: dict[str, Any] | Exception) -> None:
        self.jwks = jwks
        self.asked = 0

    def __call__(self, _rules: IssuerRules) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.jwks, Exception):
            raise self.jwks
        return self.jwks


def key_cache(
    publisher: Callable[[IssuerRules], dict[str, Any]],
    *,
    clock: HandClock | None = None,
    folder: Path | None = None,
    **rules: Any,
) -> KeyCache:
    return KeyCache({ISSUER: issuer_rules(**rules)}, folder, clock or HandClock(), fetch=publisher, spread=lambda: 0.0)


def validator(maker: TokenMaker = MAKER, *, now: datetime = NOW, **rules: Any) -> TokenValidator:
    """Give a validator that trusts one issuer and holds its keys."""
    issuer = Issuer.parse(maker.issuer)
    issuers = {issuer: issuer_rules(issuer=issuer, types=frozenset({"at+jwt", "jwt", "absent"}), **rules)}
    clock = HandClock(now)
    keys = KeyCache(issuers, None, clock, fetch=lambda _: maker.jwks())
    keys.refresh(issuer)
    return TokenValidator(issuers, keys, clock)


def utc_now() -> datetime:
    return datetime.now(UTC)
