"""A compact JWS taken apart strictly, and its signature checked (RFC 7515, with the warnings of RFC 8725).

Nothing here trusts a token: it is bytes until `check_signature` held over exactly the bytes that were parsed. Every way
to be refused is a TokenRefused whose detail holds no text of the token.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from iam_bridge.errors import InvalidValue, Reason, TokenRefused
from iam_bridge.iam.strict_json import parse_json_object
from iam_bridge.model.token import AccessToken

Key = RSAKey | ECKey | OKPKey

MAX_TOKEN_CHARS = 20_000
MAX_HEADER_CHARS = 4096 * 4 // 3
MAX_KID_CHARS = 256
MAX_TYPE_CHARS = 64
MAX_HEADER_DEPTH = 4
MAX_CLAIMS_DEPTH = 16

# Characters of an algorithm's shortest signature: RSA keys have 2048 bits at least, the others have one size.
_SIGNATURE_CHARS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), 342),
    "ES256": 86,
    "ES384": 128,
    "ES512": 176,
    "EdDSA": 86,
}
ALGORITHMS = frozenset(_SIGNATURE_CHARS)
"""Every algorithm that a site can allow. All are asymmetric: `none` and HMAC have no code path (RFC 8725 2.1, 3.1)."""

# jku, jwk, x5u and x5c say where the attacker's key is; b64 and zip change what is signed; crit and cty ask for rules
# that we do not have (RFC 7515 4.1.11); enc, epk and p2c belong to encryption.
_FORBIDDEN_NAMES = frozenset({"b64", "crit", "cty", "enc", "epk", "jku", "jwk", "p2c", "x5c", "x5u", "zip"})

_JUNK = "\b\n\r\x7fINCORRECT"  # openssh auth-pam.c: the answer to PAM for a user that sshd will not let in
_FIRST_CHARS = ("ey", "ew", "e3")  # a brace, then a quote or a blank, a line end or a tab, or the other brace
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z", re.ASCII)
# The last character of a text carries 4 or 2 bits that no byte uses; written canonically they are zero (RFC 4648 3.5).
_CANONICAL_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token taken apart, believed in nothing; `typ` and `kid` are None where the header has none."""

    algorithm: str
    kid: str | None
    typ: str | None
    unverified_claims: dict[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    fingerprint: str


def is_junk_from_sshd(text: str) -> bool:
    """Tell whether sshd put this in place of what the person typed, because it will not let the user in.

    The pattern starts anew in each part of a chunked answer, so its alphabet is looked at and not its order.
    """
    return text.startswith(_JUNK[0]) and set(text) <= set(_JUNK)


def parse_compact(token: AccessToken) -> UnverifiedToken:
    """Take a compact JWS apart; raise TokenRefused for anything else and for headers that ask for what we never do."""
    text = token.reveal()
    if not text:
        raise TokenRefused(Reason.EMPTY, "nothing was given")
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenRefused(Reason.TOO_LONG, f"{len(text)} characters")
    if is_junk_from_sshd(text):
        raise TokenRefused(Reason.JUNK_FROM_SSHD, "sshd refused this login name and replaced the answer")
    parts = text.split(".")
    if len(parts) == 1:
        _refuse_without_dots(text)
    header = _parse_header(parts[0])
    if len(parts) > 3:
        raise TokenRefused(Reason.NOT_A_TOKEN, f"{len(parts)} parts where a signed token has three")
    algorithm = _check_header(header)
    if len(parts) == 2 or len(parts[2]) < _SIGNATURE_CHARS[algorithm]:
        _refuse_cut(len(text))
    claims = _parse_claims(parts[1])
    signature = _decode(parts[2], Reason.BAD_SIGNATURE, "the signature is no base64url")
    return UnverifiedToken(
        algorithm=algorithm,
        kid=_header_text(header, "kid", MAX_KID_CHARS),
        typ=_header_text(header, "typ", MAX_TYPE_CHARS),
        unverified_claims=claims,
        signed=text[: text.rindex(".")].encode("ascii"),
        signature=signature,
        fingerprint=token.fingerprint,
    )


def check_signature(token: UnverifiedToken, key: Key) -> None:
    """Check the signature with this one key and the algorithm that the header names; raise TokenRefused."""
    algorithm = JWSRegistry.algorithms[token.algorithm]
    try:
        algorithm.check_key(key)  # key type, curve, `use` and `alg` of the key must fit (RFC 8725 3.1)
    except JoseError:
        raise TokenRefused(Reason.ALGORITHM, "the key is not made for the algorithm that the header names") from None
    if isinstance(key, RSAKey) and len(token.signature) * 8 < key.public_key.key_size:
        _refuse_cut(len(token.signed) + 1 + len(token.signature) * 4 // 3)
    try:
        holds = algorithm.verify(token.signed, token.signature, key)
    except (JoseError, ValueError, AssertionError):  # what joserfc raises for keys and numbers that are none
        holds = False
    if holds is not True:
        raise TokenRefused(Reason.BAD_SIGNATURE, "the signature does not hold")


def _refuse_without_dots(text: str) -> NoReturn:
    if text.startswith("eyJ") and _BASE64URL.match(text):
        _refuse_cut(len(text))
    raise TokenRefused(Reason.NOT_A_TOKEN, "it does not look like a token")


def _refuse_cut(length: int) -> NoReturn:
    raise TokenRefused(Reason.TRUNCATED, f"it ends after {length} characters, before its signature is complete")


def _parse_header(part: str) -> dict[str, Any]:
    if not part.startswith(_FIRST_CHARS):
        raise TokenRefused(Reason.NOT_A_TOKEN, "it does not begin as a token does")
    if len(part) > MAX_HEADER_CHARS:
        raise TokenRefused(Reason.BAD_HEADER, "the header is too long")
    raw = _decode(part, Reason.NOT_A_TOKEN, "the header is no base64url")
    try:
        return parse_json_object(raw, max_depth=MAX_HEADER_DEPTH)
    except InvalidValue as error:
        raise TokenRefused(Reason.BAD_HEADER, f"header: {error.message}") from None


def _check_header(header: dict[str, Any]) -> str:
    forbidden = sorted(_FORBIDDEN_NAMES & header.keys())
    if forbidden:
        raise TokenRefused(Reason.BAD_HEADER, f"the header has {', '.join(forbidden)}, which is never followed")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused(Reason.ALGORITHM, "alg is missing or is no asymmetric signature that we know")
    return algorithm


def _header_text(header: dict[str, Any], name: str, most: int) -> str | None:
    value = header.get(name)
    if value is None and name not in header:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise TokenRefused(Reason.BAD_HEADER, f"{name} is no text of 1 to {most} characters")
    return value


def _parse_claims(part: str) -> dict[str, Any]:
    raw = _decode(part, Reason.BAD_CLAIMS, "the payload is no base64url")
    try:
        return parse_json_object(raw, max_depth=MAX_CLAIMS_DEPTH)
    except InvalidValue as error:
        raise TokenRefused(Reason.BAD_CLAIMS, f"payload: {error.message}") from None


def _decode(part: str, reason: Reason, detail: str) -> bytes:
    """Decode base64url as RFC 7515 2 writes it: no padding, no blanks, and one spelling for the same bytes."""
    rest = len(part) % 4
    if rest == 1 or not _BASE64URL.match(part) or (rest and part[-1] not in _CANONICAL_LAST[rest]):
        raise TokenRefused(reason, detail)
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
