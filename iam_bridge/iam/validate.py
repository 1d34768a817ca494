"""A token accepted or refused as its issuer's entry asks: by signature, by introspection, or by both.

`validate_cached` never touches the network and is what a login daemon's loop may call. What it cannot answer it hands
back as NetworkNeeded; `validate` answers that too, and may wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from iam_bridge.errors import Reason, SourceUnavailable, TokenRefused
from iam_bridge.iam.introspect import Introspector
from iam_bridge.iam.jws import UnverifiedToken
from iam_bridge.iam.keys import KeyCache, KeysNeeded, NetworkNeeded
from iam_bridge.iam.verify import Verifier
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from iam_bridge.model.token import AccessToken, VerifiedToken
from iam_bridge.ports import Clock


class IntrospectionNeeded(NetworkNeeded):
    """The issuer's entry asks for introspection."""


class TokenValidator:
    """Validates tokens of all issuers; safe for many threads."""

    def __init__(self, issuers: Mapping[Issuer, IssuerRules], keys: KeyCache, clock: Clock) -> None:
        self._verifier = Verifier(issuers, keys)
        self._keys = keys
        self._introspectors = {
            issuer: Introspector(rules, clock) for issuer, rules in issuers.items() if rules.validation != "offline"
        }

    def validate_cached(self, token: AccessToken, *, audience: tuple[str, ...], now: datetime) -> VerifiedToken:
        """Validate without any network; raise TokenRefused, or NetworkNeeded where the issuer must be asked.

        A token whose signature or claims are bad is refused here, before anybody is asked, unless the entry asks for
        introspection alone.
        """
        parsed, rules = self._verifier.parse(token)
        if rules.validation == "introspect":
            raise IntrospectionNeeded(rules.issuer)
        verified = self._verifier.verify_parsed(parsed, rules, audience=audience, now=now)
        if rules.validation == "both":
            raise IntrospectionNeeded(rules.issuer)
        return verified

    def validate(self, token: AccessToken, *, audience: tuple[str, ...], now: datetime) -> VerifiedToken:
        """Validate, asking the issuer where that is needed; raise TokenRefused and nothing else.

        Waits at most four times the issuer's `timeout_s`: two questions for keys, two for introspection.
        """
        parsed, rules = self._verifier.parse(token)
        offline = None
        if rules.validation != "introspect":
            offline = self._verify_waiting(parsed, rules, audience=audience, now=now)
        if rules.validation == "offline" and offline is not None:
            return offline
        try:
            asked = self._introspectors[rules.issuer].introspect(token, parsed, audience=audience, now=now)
        except TokenRefused as refused:
            if refused.reason is not Reason.ISSUER_UNREACHABLE or rules.down != "offline":
                raise
            # The site chose that a silent issuer stops nobody: then the signature decides alone.
            return offline or self._verify_waiting(parsed, rules, audience=audience, now=now)
        return asked if offline is None else replace(asked, groups=_narrow(offline.groups, asked.groups))

    def close(self) -> None:
        """Close idle connections."""
        for introspector in self._introspectors.values():
            introspector.close()

    def _verify_waiting(
        self, parsed: UnverifiedToken, rules: IssuerRules, *, audience: tuple[str, ...], now: datetime
    ) -> VerifiedToken:
        try:
            return self._verifier.verify_parsed(parsed, rules, audience=audience, now=now)
        except KeysNeeded:
            with suppress(SourceUnavailable):  # the second look says what came of it
                self._keys.refresh(rules.issuer)
        try:
            return self._verifier.verify_parsed(parsed, rules, audience=audience, now=now)
        except KeysNeeded:  # another flight took off meanwhile; a token is not worth a third look
            raise TokenRefused(Reason.NO_KEYS, "no keys of this issuer are at hand") from None


def _narrow(signed: frozenset[str] | None, answered: frozenset[str] | None) -> frozenset[str] | None:
    """Give the groups that both name; where only one says anything, that."""
    if signed is None or answered is None:
        return answered if signed is None else signed
    return signed & answered
