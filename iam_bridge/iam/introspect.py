"""Asking the issuer whether a token lives (RFC 7662), and reading the two shapes in which INDIGO IAM answers.

Only what is built like a signed token of a trusted issuer is ever sent, and only to that issuer's own host: a password
typed at the wrong prompt stays here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from iam_bridge.errors import Reason, SettingsError, SourceUnavailable, TokenRefused
from iam_bridge.iam.discovery import fetch_metadata
from iam_bridge.iam.http import BadAnswer, BadStatus, Session
from iam_bridge.iam.jws import UnverifiedToken
from iam_bridge.iam.secrets import read_secret
from iam_bridge.model.rules import IssuerRules
from iam_bridge.model.token import AccessToken, SignedClaims, VerifiedToken
from iam_bridge.policy.claims import check_claims
from iam_bridge.ports import Clock

MAX_ANSWER_BYTES = 256 * 1024
IDLE_MOST = 8
_ACCESS_TOKEN_TYPES = frozenset({"bearer", "access_token"})
# Of the token itself only what can refuse it is heard: times, marks of an ID token, what RFC 9068 demands of at+jwt.
_ONLY_REFUSING = ("iat", "nbf", "jti", "typ", "nonce", "at_hash", "c_hash", "s_hash")


class Introspector:
    """Introspects the tokens of one issuer. Safe for many threads; connections are kept alive between questions.

    The secret is read for each question, so that a changed one needs no restart.
    """

    def __init__(self, rules: IssuerRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._idle: deque[Session] = deque()
        self._endpoint = ""
        self._found_at: datetime | None = None

    def introspect(
        self, token: AccessToken, parsed: UnverifiedToken, *, audience: tuple[str, ...], now: datetime
    ) -> VerifiedToken:
        """Ask the issuer about a token that was parsed as one of its own; wait at most twice `timeout_s`.

        Raises TokenRefused: ISSUER_UNREACHABLE where no answer came (5xx and time-outs too), INACTIVE where the answer
        is anything but a plain yes, INTERNAL where our own client is not set up, and whatever the claims deserve.
        """
        try:
            answer = self._ask(token, self._read_client())
        except SettingsError as error:
            raise TokenRefused(Reason.INTERNAL, error.message) from None
        except BadStatus as error:
            raise TokenRefused(_reason_of_status(error.status), error.message) from None
        except BadAnswer as error:
            raise TokenRefused(Reason.INACTIVE, error.message) from None
        except SourceUnavailable as error:
            raise TokenRefused(Reason.ISSUER_UNREACHABLE, error.message) from None
        claims = claims_of_answer(answer, parsed, self._rules)
        return check_claims(
            claims,
            typ=parsed.typ,
            rules=self._rules,
            audience=audience,
            fingerprint=parsed.fingerprint,
            now=now,
        )

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _read_client(self) -> tuple[str, str]:
        client = self._rules.client
        if client is None or client.secret_file is None:
            raise SettingsError(f"the entry of {self._rules.issuer} names no client with a secret")
        return client.client_id, read_secret(client.secret_file)

    def _ask(self, token: AccessToken, basic: tuple[str, str]) -> dict[str, Any]:
        try:
            session = self._idle.pop()
        except IndexError:
            session = Session(ca_file=self._rules.ca_file)
        try:
            answer = session.fetch_json(
                self._find_endpoint(session),
                method="POST",
                form={"token": token.reveal(), "token_type_hint": "access_token"},
                basic=basic,
                timeout_s=self._rules.timeout_s,
                max_bytes=MAX_ANSWER_BYTES,
            )
        except SourceUnavailable:
            session.close()  # its connection may be in any state
            raise
        if len(self._idle) < IDLE_MOST:
            self._idle.append(session)
        else:
            session.close()
        return answer.body

    def _find_endpoint(self, session: Session) -> str:
        """Give the endpoint, discovered anew every `refresh_s`; an outage of discovery leaves the last one in use."""
        now = self._clock()
        age = timedelta(seconds=self._rules.refresh_s)
        if self._found_at is not None and timedelta(0) <= now - self._found_at < age:
            return self._endpoint
        try:
            metadata = fetch_metadata(session, self._rules.issuer, timeout_s=self._rules.timeout_s)
        except SourceUnavailable:
            if not self._endpoint:
                raise
            return self._endpoint
        if metadata.introspection_endpoint is None:
            raise BadAnswer(f"{self._rules.issuer} names no introspection endpoint on its own host")
        self._endpoint, self._found_at = metadata.introspection_endpoint, now
        return self._endpoint


def claims_of_answer(answer: Mapping[str, Any], parsed: UnverifiedToken, rules: IssuerRules) -> SignedClaims:
    """Read an introspection answer into claims of one form; raise TokenRefused for what is no plain yes.

    INDIGO IAM up to 1.13 writes `aud` as one text with blanks and names the person `user_id`, 1.14 an array and
    `username`. The issuer vouched for exactly these bytes: the token must agree about `sub`, and dies at its own `exp`.
    """
    if answer.get("active") is not True:
        raise TokenRefused(Reason.INACTIVE, "the issuer says that it is not active")
    if not rules.issuer.matches(answer.get("iss")):  # AARC-G052: an IAM may answer for tokens of others
        raise TokenRefused(Reason.UNTRUSTED_ISSUER, "the issuer answered for a token of another issuer")
    kind = answer.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() not in _ACCESS_TOKEN_TYPES:
        raise TokenRefused(Reason.BAD_CLAIMS, "the issuer says that it is no access token")
    person = answer.get("user_id", answer.get("username"))
    if not isinstance(person, str) or not person:
        raise TokenRefused(Reason.CLIENT_TOKEN, "the issuer names no person behind it")
    own = parsed.unverified_claims
    if answer.get("sub") != own.get("sub"):
        raise TokenRefused(Reason.BAD_CLAIMS, "the issuer and the token name different subjects")
    claims = {name: own[name] for name in _ONLY_REFUSING if name in own} | dict(answer)
    if isinstance(claims.get("aud"), str):
        claims["aud"] = claims["aud"].split()
    claims["exp"] = _earlier(answer.get("exp"), own.get("exp"))
    return SignedClaims(claims)


def _earlier(first: Any, second: Any) -> Any:
    """Give the earlier of two times; where one is no time, that one, so that the check of the claims refuses it."""
    for value in (first, second):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
    return min(first, second)


def _reason_of_status(status: int) -> Reason:
    return Reason.ISSUER_UNREACHABLE if status >= 500 else Reason.INACTIVE
