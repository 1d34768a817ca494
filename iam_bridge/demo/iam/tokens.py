"""Tokens: claims of the four profiles, overrides, exact lengths, and the record of what was issued.

A token is known to introspection by its digest, as in IAM's own table; what this IAM did not issue
(a foreign key, no signature) is unknown to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iam_bridge.demo.iam.keys import HMAC_WITH_PUBLIC_KEY, NO_KEY, KeyRing
from iam_bridge.demo.iam.profiles import spell_group

UNISSUED_KEYS = frozenset({NO_KEY, HMAC_WITH_PUBLIC_KEY, "foreign-rsa", "foreign-ec"})
SIGNATURE_CHARS = {"RS256": 342, "ES256": 86, "HS256": 43, "none": 0}
PADDING_PATH = "projects/synthetic-padding/member-of-collaboration-{:04d}"
GROUP_CLAIMS = {"groups": "iam", "wlcg.groups": "wlcg", "entitlements": "aarc", "roles": "kc"}


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """What IAM's token table keeps of an access token.  `person_id` is None for a client's own."""

    person_id: str | None
    client_id: str
    profile: str
    scopes: tuple[str, ...]
    claims: Mapping[str, Any]

    @property
    def expires_at(self) -> float:
        """Say when the token dies; one whose `exp` was removed or is no number never does."""
        exp = self.claims.get("exp")
        return float(exp) if isinstance(exp, (int, float)) else float("inf")


def fingerprint(token: str) -> bytes:
    """Give the digest under which a token is kept; the token itself is not."""
    return hashlib.sha256(token.encode()).digest()


def make_audience(audience: str | Sequence[str], *, as_string: bool) -> dict[str, Any]:
    """Make the `aud` claim: an array, or one string (several joined by blanks), or nothing."""
    values = audience.split() if isinstance(audience, str) else list(audience)
    if not values:
        return {}
    return {"aud": " ".join(values) if as_string else values}


def edit_claims(
    claims: Mapping[str, Any], overrides: Mapping[str, Any] | None, without: Iterable[str]
) -> dict[str, Any]:
    """Apply overrides and removals."""
    removed = frozenset([without] if isinstance(without, str) else without)
    return {name: value for name, value in {**claims, **(overrides or {})}.items() if name not in removed}


def write_token(
    keys: KeyRing,
    claims: Mapping[str, Any],
    *,
    key: str,
    headers: Mapping[str, Any] | None,
    pad_to: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """Sign claims; with `pad_to` the compact token has exactly so many bytes.

    Padding looks like life: more groups of the kind that the token has (more account attributes if it
    has none), then a `filler` claim for the last bytes.

    Raises:
        ValueError: the token is longer than `pad_to` already.
    """
    header = keys.make_header(key, headers or {})
    if pad_to is None:
        return keys.sign(_encode(header), _encode(claims), key), dict(claims)
    signature = SIGNATURE_CHARS[keys.make_header(key, {})["alg"]]
    space = pad_to - signature - 2
    header_bytes = _encode(header)
    # base64url never has length 1 modulo 4: a blank inside the header's JSON makes up for it.
    while (space - _encoded_chars(len(header_bytes))) % 4 == 1:
        header_bytes = header_bytes[:-1] + b" }"
    payload_chars = space - _encoded_chars(len(header_bytes))
    padded = _pad_claims(claims, payload_chars * 3 // 4)
    return keys.sign(header_bytes, _encode(padded), key), padded


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded_chars(size: int) -> int:
    return (size * 4 + 2) // 3


def _pad_claims(claims: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Grow the JSON of the claims to exactly `size` bytes."""
    padded = {**claims, "filler": ""}
    missing = size - len(_encode(padded))
    if missing < 0:
        raise ValueError(f"pad_to is {-missing * 4 // 3 + 1} bytes too small for these claims")
    has_groups = (name for name in GROUP_CLAIMS if isinstance(claims.get(name), list))
    if claim := next(has_groups, None):
        entry = spell_group(GROUP_CLAIMS[claim], PADDING_PATH)
        copies = 2 if claim == "entitlements" and "eduperson_entitlement" in claims else 1
        size_of_entry = len(_encode({"": entry.format(0)})) - len('{"":}') + 1
        number = missing // (size_of_entry * copies)
        more = [entry.format(index) for index in range(1, number + 1)]
        padded[claim] = [*claims[claim], *more]
        if copies == 2:
            padded["eduperson_entitlement"] = padded[claim]
    else:
        attributes = dict(claims.get("attr", {}))
        entry_size = len('"collaboration_role_0000":"synthetic-padding-value",')
        for index in range(1, missing // entry_size):
            attributes[f"collaboration_role_{index:04d}"] = "synthetic-padding-value"
        if attributes:
            padded["attr"] = attributes
    padded["filler"] = "x" * (size - len(_encode(padded)))
    return padded
