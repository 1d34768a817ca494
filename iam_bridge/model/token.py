"""Tokens: the secret, what its signature covers, and what policy accepts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NewType

from iam_bridge.model.identity import Subject

FINGERPRINT_HEX = 16

SignedClaims = NewType("SignedClaims", dict[str, Any])
"""Claims whose signature held, nothing more. Made by `iam.verify` alone, taken by `policy.claims` alone."""


def fingerprint_of(secret: bytes) -> str:
    """Name a secret in a way that shows in logs: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(secret).hexdigest()[:FINGERPRINT_HEX]


class AccessToken:
    """A secret that shows as its fingerprint; `reveal()` is the one way to the text."""

    __slots__ = ("_text", "fingerprint")

    def __init__(self, text: str) -> None:
        self._text = text
        self.fingerprint = fingerprint_of(text.encode("utf-8", "surrogateescape"))

    def reveal(self) -> str:
        """Give the token itself; for adapters that verify or present it."""
        return self._text

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AccessToken) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<token {self.fingerprint}>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a token is not pickled")


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that a trusted issuer signed for us and that is alive; built by `policy.claims.check_claims` alone.

    `groups` is None where the token says nothing about groups; an empty set means that it says "none".
    """

    subject: Subject
    audience: tuple[str, ...]
    scopes: frozenset[str]
    groups: frozenset[str] | None
    client_id: str
    jti: str
    expires_at: datetime
    fingerprint: str
