"""What the claims of a token must say once its signature held, clause by clause.

Rules of RFC 7519 (JWT), RFC 8725 (best practice), RFC 9068 (access tokens) and the WLCG token profile. The clock is a
parameter. Every way out but the last raises TokenRefused; no detail ever holds text of the token beyond claim names.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from iam_bridge.errors import InvalidValue, Reason, TokenRefused
from iam_bridge.model.identity import Subject
from iam_bridge.model.rules import IssuerRules
from iam_bridge.model.token import SignedClaims, VerifiedToken
from iam_bridge.policy.groups import parse_token_groups

LEEWAY_S = 30
"""For nbf and iat only, against clocks that run ahead; exp gets none (RFC 7519 4.1.4 permits, does not require it)."""

ABSENT_TYPE = "absent"
TIME_MAX = 253402300799  # 9999-12-31, the last second that datetime can say

_ID_TOKEN_MARKS = ("nonce", "at_hash", "c_hash", "s_hash")  # OpenID Connect Core 2 and 3.3.2.11
_OTHER_KINDS = frozenset({"id", "refresh", "offline", "logout"})  # Keycloak's payload `typ`
_ACCESS_TOKEN_TYPE = "at+jwt"
_REQUIRED_9068 = ("client_id", "iat", "jti")  # RFC 9068 2.2; iss, exp, aud and sub have refusals of their own


def _check_type(typ: str | None, rules: IssuerRules) -> str:
    """Check the `typ` header (RFC 9068 4: explicit typing keeps ID tokens out) and give it in lower case."""
    word = ABSENT_TYPE if typ is None else typ.lower().removeprefix("application/")
    if word not in rules.types:
        hint = f"add {word} to `types` of this issuer if its access tokens are like that" if word == ABSENT_TYPE else ""
        raise TokenRefused(Reason.BAD_HEADER, "the typ header is none that this issuer's entry accepts", hint=hint)
    return word


def _check_kind(claims: SignedClaims, word: str) -> None:
    if any(mark in claims for mark in _ID_TOKEN_MARKS):
        raise TokenRefused(Reason.ID_TOKEN, "it has a claim that only ID tokens have")
    if "cnf" in claims:  # RFC 9449 7.2, RFC 8705 3: it is worth nothing without a proof that no prompt can carry
        raise TokenRefused(Reason.BOUND_TOKEN, "it is bound to a key of its client")
    kind = claims.get("typ")
    if kind is not None and (not isinstance(kind, str) or kind.lower() in _OTHER_KINDS):
        raise TokenRefused(Reason.ID_TOKEN, "its claim typ says that it is no access token")
    if word == _ACCESS_TOKEN_TYPE:
        missing = [name for name in _REQUIRED_9068 if name not in claims]
        if missing:
            raise TokenRefused(Reason.BAD_CLAIMS, f"an at+jwt without {', '.join(missing)}")


def _time(claims: SignedClaims, name: str) -> float | None:
    """Read a NumericDate (RFC 7519 2); a bool, text, NaN or a year past 9999 is none."""
    value = claims.get(name)
    if value is None:
        if name in claims:
            raise TokenRefused(Reason.BAD_CLAIMS, f"{name} is null")
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenRefused(Reason.BAD_CLAIMS, f"{name} is no time")
    if not 0 <= value <= TIME_MAX:
        raise TokenRefused(Reason.BAD_CLAIMS, f"{name} is no time of this era")
    return float(value)


def _check_times(claims: SignedClaims, now: datetime) -> datetime:
    now_s = now.timestamp()
    expires = _time(claims, "exp")
    if expires is None:
        raise TokenRefused(Reason.NO_EXPIRY, "no exp")
    if now_s >= expires:  # RFC 7519 4.1.4: "on or after which the JWT MUST NOT be accepted"
        raise TokenRefused(Reason.EXPIRED, f"{int(now_s - expires)} s ago")
    for name in ("nbf", "iat"):
        start = _time(claims, name)
        if start is not None and start > now_s + LEEWAY_S:
            raise TokenRefused(Reason.NOT_YET_VALID, f"{name} is {int(start - now_s)} s ahead")
    return datetime.fromtimestamp(expires, UTC)


def _check_audience(claims: SignedClaims, audience: tuple[str, ...]) -> tuple[str, ...]:
    """Check RFC 7519 4.1.3; the WLCG wildcard `…/jwt/v1/any` names nobody, so it does not name us."""
    value = claims.get("aud")
    if value in (None, [], ""):
        raise TokenRefused(Reason.NO_AUDIENCE, "no aud")
    named = [value] if isinstance(value, str) else value
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):
        raise TokenRefused(Reason.BAD_CLAIMS, "aud is neither text nor a list of texts")
    if not any(item in audience for item in named):
        raise TokenRefused(Reason.WRONG_AUDIENCE, "aud does not name this service")
    return tuple(named)


def _check_subject(claims: SignedClaims, rules: IssuerRules) -> tuple[Subject, str]:
    sub = claims.get("sub")
    client = claims.get("client_id", claims.get("azp", ""))
    if not isinstance(client, str):
        raise TokenRefused(Reason.BAD_CLAIMS, "client_id is no text")
    try:
        subject = Subject.parse(rules.issuer, sub)
    except InvalidValue as error:
        raise TokenRefused(Reason.NO_SUBJECT, "sub is missing or is no subject") from error
    if sub == client:  # RFC 9068 2.2: with no resource owner, sub identifies the client
        raise TokenRefused(Reason.CLIENT_TOKEN, "it speaks for a client, not for a person")
    return subject, client


def _scopes(claims: SignedClaims) -> frozenset[str]:
    value = claims.get("scope", "")
    if not isinstance(value, str):  # RFC 8693 4.2: a space-separated text
        raise TokenRefused(Reason.BAD_CLAIMS, "scope is no text")
    return frozenset(value.split())


def check_claims(
    claims: SignedClaims,
    *,
    typ: str | None,
    rules: IssuerRules,
    audience: tuple[str, ...],
    fingerprint: str,
    now: datetime,
) -> VerifiedToken:
    """Accept the claims of a token whose signature held, or raise TokenRefused with the first clause broken.

    `typ` is the header's type or None, `audience` the names under which this service may be addressed; none of them
    accepts nothing.
    """
    word = _check_type(typ, rules)
    if not rules.issuer.matches(claims.get("iss")):
        raise TokenRefused(Reason.UNTRUSTED_ISSUER, "iss is not the issuer whose key signed")
    _check_kind(claims, word)
    expires_at = _check_times(claims, now)
    named = _check_audience(claims, audience)
    subject, client = _check_subject(claims, rules)
    jti = claims.get("jti", "")
    return VerifiedToken(
        subject=subject,
        audience=named,
        scopes=_scopes(claims),
        groups=parse_token_groups(claims),
        client_id=client,
        jti=jti if isinstance(jti, str) else "",
        expires_at=expires_at,
        fingerprint=fingerprint,
    )
