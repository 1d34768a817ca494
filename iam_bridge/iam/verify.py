"""Offline verification: a token's bytes, a key that is at hand, and the rules of its issuer. No network, ever."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from iam_bridge.errors import Reason, TokenRefused
from iam_bridge.iam.jws import Key, UnverifiedToken, check_signature, parse_compact
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from iam_bridge.model.token import AccessToken, SignedClaims, VerifiedToken
from iam_bridge.policy.claims import check_claims


class KeyFinder(Protocol):
    """Gives the key of a token without asking anybody; `KeyCache` is one."""

    def find(self, issuer: Issuer, kid: str | None, now: datetime) -> Key: ...


class Verifier:
    """Verifies tokens of the issuers that the settings name."""

    def __init__(self, issuers: Mapping[Issuer, IssuerRules], keys: KeyFinder) -> None:
        self._issuers = {spelling: rules for rules in issuers.values() for spelling in _spellings(rules.issuer)}
        self._keys = keys

    def parse(self, token: AccessToken) -> tuple[UnverifiedToken, IssuerRules]:
        """Take a token apart and find whose it claims to be; raise TokenRefused, UNTRUSTED_ISSUER among the reasons.

        The claim is believed only so far that it chooses among what the settings name (RFC 8725 3.8, 3.10).
        """
        parsed = parse_compact(token)
        claimed = parsed.unverified_claims.get("iss")
        rules = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if rules is None:
            raise TokenRefused(Reason.UNTRUSTED_ISSUER, "iss is none of the issuers that this site names")
        if parsed.algorithm not in rules.algorithms:
            raise TokenRefused(Reason.ALGORITHM, "the settings do not allow this algorithm for this issuer")
        return parsed, rules

    def verify(self, token: AccessToken, *, audience: tuple[str, ...], now: datetime) -> VerifiedToken:
        """Verify a token with the keys at hand; raise TokenRefused, or KeysNeeded where a refresh may help."""
        parsed, rules = self.parse(token)
        return self.verify_parsed(parsed, rules, audience=audience, now=now)

    def verify_parsed(
        self, parsed: UnverifiedToken, rules: IssuerRules, *, audience: tuple[str, ...], now: datetime
    ) -> VerifiedToken:
        """Verify what `parse` gave; raises as `verify` does."""
        check_signature(parsed, self._keys.find(rules.issuer, parsed.kid, now))
        return check_claims(
            SignedClaims(parsed.unverified_claims),
            typ=parsed.typ,
            rules=rules,
            audience=audience,
            fingerprint=parsed.fingerprint,
            now=now,
        )


def _spellings(issuer: Issuer) -> tuple[str, str]:
    """Give the two spellings that `Issuer.matches` accepts: INDIGO IAM drops or adds one final slash."""
    return (issuer.url, issuer.url[:-1] if issuer.url.endswith("/") else issuer.url + "/")
