"""Signing keys: RSA-2048 `rsa1` (RS256) and P-256 `ec1` (ES256), their rotation, and keys to attack with.

Tokens are put together by hand on top of `cryptography`, since a JOSE library rightly refuses to
write most of the headers that a login service must be shown.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NO_KEY = "none"
HMAC_WITH_PUBLIC_KEY = "hmac-public"
"""Key choices that are no keys: `alg` none, and HS256 keyed with the PEM of the public RSA key."""


def encode_b64url(data: bytes) -> str:
    """Encode as RFC 7515 section 2 wants it, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its kid."""

    kid: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        """Say the JWS algorithm of this key."""
        return "RS256" if isinstance(self.private, rsa.RSAPrivateKey) else "ES256"

    def sign(self, data: bytes) -> bytes:
        """Sign as RFC 7518 sections 3.3 and 3.4 say (for ES256: r and s, 32 bytes each)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), SHA256())
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_pem(self) -> bytes:
        """Give the public half as PEM."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def jwk(self) -> dict[str, str]:
        """Give the public half as IAM's `/jwk` shows it: no `use`, no `alg`."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            return {"kty": "RSA", "e": _encode_integer(numbers.e), "kid": self.kid, "n": _encode_integer(numbers.n)}
        point = self.private.public_key().public_numbers()
        x, y = _encode_integer(point.x, 32), _encode_integer(point.y, 32)
        return {"kty": "EC", "crv": "P-256", "kid": self.kid, "x": x, "y": y}


def _encode_integer(number: int, size: int = 0) -> str:
    return encode_b64url(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


@cache
def generated_key(pool: str, kid: str) -> SigningKey:
    """Make the key of this name once per process: RSA-2048 takes a tenth of a second and more."""
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if "rsa" in kid:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(kid, private)


class KeyRing:
    """The keys of one IAM.  IAMs of the same `pool` name in one process share their keys."""

    def __init__(self, pool: str = "iam") -> None:
        self._pool = pool
        self._rotations = 1
        self._published = [generated_key(pool, "rsa1"), generated_key(pool, "ec1")]

    @property
    def current(self) -> SigningKey:
        """Give the key that signs by default: the newest RSA one."""
        return self._published[0]

    def rotate(self, *, keep_old: bool) -> SigningKey:
        """Sign with a new RSA key from now on; the old one stays in `/jwk` if `keep_old`.

        Tokens can still be minted with a dropped key, by its kid.
        """
        self._rotations += 1
        new = generated_key(self._pool, f"rsa{self._rotations}")
        kept = self._published if keep_old else self._published[1:]
        self._published = [new, *kept]
        return new

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Give the published key set (RFC 7517 section 5)."""
        return {"keys": [key.jwk() for key in self._published]}

    def chosen(self, name: str) -> SigningKey:
        """Find a key by name: `current`, a kid of this IAM past or present, `foreign-rsa`, `foreign-ec`.

        A foreign key bears the kid of a published one, as an attacker would write it.

        Raises:
            ValueError: there never was such a key.
        """
        if name == "current":
            return self.current
        if name in {"foreign-rsa", "foreign-ec"}:
            posing_as = self.current.kid if name == "foreign-rsa" else "ec1"
            return SigningKey(posing_as, generated_key(f"{self._pool}/foreign", name).private)
        if name in {"ec1", *(f"rsa{number}" for number in range(1, self._rotations + 1))}:
            return generated_key(self._pool, name)
        raise ValueError(f"no signing key {name!r}: use current, a kid, foreign-rsa or foreign-ec, none, hmac-public")

    def make_header(self, key: str, headers: Mapping[str, Any]) -> dict[str, Any]:
        """Make the JOSE header for a key choice; `headers` win, and a None among them removes."""
        if key == NO_KEY:
            made: dict[str, Any] = {"alg": "none"}
        elif key == HMAC_WITH_PUBLIC_KEY:
            made = {"kid": self.current.kid, "alg": "HS256"}
        else:
            signer = self.chosen(key)
            made = {"kid": signer.kid, "alg": signer.algorithm}
        return {name: value for name, value in {**made, **headers}.items() if value is not None}

    def sign(self, header: bytes, payload: bytes, key: str) -> str:
        """Write a compact JWS (RFC 7515 section 7.1) of these very bytes."""
        signed = f"{encode_b64url(header)}.{encode_b64url(payload)}"
        if key == NO_KEY:
            return f"{signed}."
        if key == HMAC_WITH_PUBLIC_KEY:
            mac = hmac.new(self.current.public_pem(), signed.encode(), hashlib.sha256).digest()
            return f"{signed}.{encode_b64url(mac)}"
        return f"{signed}.{encode_b64url(self.chosen(key).sign(signed.encode()))}"
