"""A token validated for a login: with what is at hand where that is enough, else by one errand to its issuer.

What a person reads before the signature of their token held depends on the length of what they typed alone. sshd puts
junk of that length in place of the answer for names that it will not let in (auth-pam.c), so a text that looked at the
content would tell a known name from an unknown one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

from iam_bridge.errors import Reason, SourceUnavailable, TokenRefused
from iam_bridge.iam.keys import KeyCache, KeysNeeded
from iam_bridge.iam.validate import IntrospectionNeeded, TokenValidator
from iam_bridge.iam.verify import Verifier
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules, Settings
from iam_bridge.model.token import AccessToken, VerifiedToken
from iam_bridge.model.verdict import Deny
from iam_bridge.policy.refusals import explain_refusal
from iam_bridge.ports import Clock
from pam_module.errands import Errand

INTROSPECTIONS = 4
"""Threads that may ask one issuer about tokens at the same time."""
CLIENT_CUT = 1023  # openssh readpass.c: what its client keeps of an answer

JUNK_DETAIL = (
    "sshd refused this login name before PAM (unknown to NSS, unusable shell, AllowUsers/DenyUsers, PermitRootLogin)"
)
UNPROVEN_TEXT = (
    "This is no complete access token of an issuer that this site trusts, or it cannot be checked right now. "
    "Passwords do not work here; long tokens need iam-ssh."
)
_UNPROVEN = frozenset(
    {
        Reason.JUNK_FROM_SSHD,
        Reason.NOT_A_TOKEN,
        Reason.TRUNCATED,
        Reason.BAD_HEADER,
        Reason.BAD_CLAIMS,
        Reason.ALGORITHM,
        Reason.UNKNOWN_KEY,
        Reason.BAD_SIGNATURE,
        Reason.UNTRUSTED_ISSUER,
        Reason.NO_KEYS,
    }
)

_NOT_ANSWERED = frozenset({Reason.INACTIVE, Reason.ISSUER_UNREACHABLE, Reason.INTERNAL})
"""What an issuer that was asked never vouched for."""

Asking = Generator[Errand, object, VerifiedToken]


class RefusedUnproven(TokenRefused):
    """Refused by an issuer before any signature was looked at (`validation: introspect`)."""


def explain(refused: TokenRefused, length: int, audience: tuple[str, ...]) -> Deny:
    """Turn a refusal into a denial whose text gives away nothing before a signature held; see above."""
    deny = explain_refusal(refused, audience)
    if refused.reason is Reason.JUNK_FROM_SSHD:
        deny = replace(deny, detail=JUNK_DETAIL)
    if refused.reason not in _UNPROVEN and not isinstance(refused, RefusedUnproven):
        return deny
    if length == CLIENT_CUT:
        return replace(deny, text=explain_refusal(TokenRefused(Reason.TRUNCATED), audience).text)
    return replace(deny, text=UNPROVEN_TEXT)


def refresh_errand(keys: KeyCache, issuer: Issuer) -> Errand:
    """Make the errand that fetches an issuer's keys; there is one at a time for each."""
    lane = ("keys", issuer.url)
    return Errand(lane, lane, partial(keys.refresh, issuer))


@dataclass(frozen=True, slots=True)
class TokenDesk:
    """Validates what a person presented, for the names in the login rules' audience."""

    settings: Settings
    keys: KeyCache
    validator: TokenValidator
    verifier: Verifier

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> TokenDesk:
        """Put it together; reads the kept keys from disk, and no network."""
        keys = KeyCache(settings.issuers, settings.login.key_cache, clock)
        validator = TokenValidator(settings.issuers, keys, clock)
        return cls(settings, keys, validator, Verifier(settings.issuers, keys))

    def validate(self, secret: AccessToken, clock: Clock) -> Asking:
        """Validate, yielding what must be waited for; raise TokenRefused and nothing else."""
        audience = self.settings.login.rules.audience
        try:
            try:
                return self.validator.validate_cached(secret, audience=audience, now=clock())
            except KeysNeeded as needed:
                with suppress(SourceUnavailable):  # the second look says what came of it
                    yield refresh_errand(self.keys, needed.issuer)
            return self.validator.validate_cached(secret, audience=audience, now=clock())
        except IntrospectionNeeded as needed:
            rules = self.settings.issuers[needed.issuer]
        except KeysNeeded:  # the fetch has not even begun in time, or a new pause ran out: no third look
            raise TokenRefused(Reason.NO_KEYS, "the issuer was not asked in time") from None
        return (yield from self._introspect(secret, rules, clock))

    def _introspect(self, secret: AccessToken, rules: IssuerRules, clock: Clock) -> Asking:
        """Have the issuer asked in a thread; the answer is kept nowhere, so that a revoked token is dead at once."""
        audience, now = self.settings.login.rules.audience, clock()
        lane = ("introspection", rules.issuer.url)
        # The whole digest, because whoever shares the key shares the answer; the fingerprint in the log is a short one.
        key = sha256(secret.reveal().encode("utf-8", "surrogateescape")).hexdigest()
        ask = partial(self.validator.validate, secret, audience=audience, now=now)
        try:
            token = yield Errand(lane, (lane[0], key), ask, threads=INTROSPECTIONS)
        except SourceUnavailable as error:  # too late, or too many wait already
            if rules.down != "offline":
                kind = RefusedUnproven if rules.validation == "introspect" else TokenRefused
                raise kind(Reason.ISSUER_UNREACHABLE, error.message) from None
            return self._verify_alone(secret, clock)
        except TokenRefused as refused:
            if refused.reason in _NOT_ANSWERED and rules.validation == "introspect":
                raise RefusedUnproven(refused.reason, refused.detail) from None
            raise
        assert isinstance(token, VerifiedToken)
        return token

    def _verify_alone(self, secret: AccessToken, clock: Clock) -> VerifiedToken:
        """Let the signature alone decide, as the site chose for an issuer that does not answer (`down: offline`)."""
        try:
            return self.verifier.verify(secret, audience=self.settings.login.rules.audience, now=clock())
        except KeysNeeded:
            raise TokenRefused(Reason.NO_KEYS, "the issuer does not answer, and no keys of it are at hand") from None
