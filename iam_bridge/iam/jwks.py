"""A published key set (RFC 7517), read into public keys that may check a signature; the rest of it is left out."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from iam_bridge.errors import InvalidValue
from iam_bridge.iam.jws import ALGORITHMS, MAX_KID_CHARS, Key
from iam_bridge.model.identity import has_control

MAX_KEYS = 100
RSA_BITS = (2048, 8192)
"""RFC 7518 3.3 asks for 2048 at least; beyond 8192 a check takes milliseconds that an attacker chooses to spend."""

_EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_MATERIAL = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE_NAMES = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_CLASSES: dict[str, Callable[[Any], Key]] = {"RSA": RSAKey.import_key, "EC": ECKey.import_key, "OKP": OKPKey.import_key}


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer by kid, and when they were fetched; `only` is a key without kid that stood alone.

    `left_out` holds one sentence for each entry that cannot be used.
    """

    keys: Mapping[str, Key]
    only: Key | None
    fetched_at: datetime
    left_out: tuple[str, ...] = ()

    def find(self, kid: str | None) -> Key | None:
        """Give the key of this kid; without one, the key that stands alone and has none either."""
        return self.only if kid is None else self.keys.get(kid)

    def to_jwks(self) -> dict[str, Any]:
        """Give the usable keys as a JWK Set of public members only."""
        return {"keys": [key.as_dict() for key in (*self.keys.values(), *([self.only] if self.only else []))]}


def parse_key_set(body: Mapping[str, Any], *, algorithms: tuple[str, ...], fetched_at: datetime) -> KeySet:
    """Read a JWK Set; raise InvalidValue when it holds no key that can check a signature in one of `algorithms`."""
    entries = body.get("keys")
    if not isinstance(entries, list) or not entries:
        raise InvalidValue("the key set is empty")
    if len(entries) > MAX_KEYS:
        raise InvalidValue(f"the key set holds more than {MAX_KEYS} keys")
    named: dict[str, Key] = {}
    twice: set[str] = set()
    only: Key | None = None
    left_out: list[str] = []
    for place, entry in enumerate(entries, start=1):
        try:
            key = _parse_key(entry, algorithms)
        except InvalidValue as error:
            left_out.append(f"key {place}: {error.message}")
            continue
        if key.kid is None:
            only = key
        elif key.kid in named and named[key.kid] != key:
            twice.add(key.kid)
        else:
            named[key.kid] = key
    if only is not None and len(entries) > 1:
        left_out.append("a key without kid stands beside others")
        only = None
    for kid in twice:  # which of the two was meant, nobody can say
        left_out.append("two different keys have one kid")
        del named[kid]
    if not named and only is None:
        raise InvalidValue(f"the key set holds no usable key ({left_out[0]})")
    return KeySet(named, only, fetched_at, tuple(left_out))


def _parse_key(entry: Any, algorithms: tuple[str, ...]) -> Key:
    if not isinstance(entry, dict):
        raise InvalidValue("it is no object")
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _MATERIAL:
        raise InvalidValue("it is no RSA, EC or OKP key")
    if _PRIVATE_NAMES & entry.keys():
        raise InvalidValue("its private part is published, so everybody can sign with it")
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise InvalidValue("it is not for signatures")
    kid = entry.get("kid")
    if "kid" in entry and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS or has_control(kid)):
        raise InvalidValue("its kid is no text")
    alg = entry.get("alg")
    if "alg" in entry and (not isinstance(alg, str) or alg not in algorithms):
        raise InvalidValue("its alg is none that is allowed here")
    # Rebuilt from what is needed: a certificate, a URL or a list of operations in it has no effect on us.
    plain = {name: entry.get(name) for name in ("kty", *_MATERIAL[kind])}
    plain |= {name: entry[name] for name in ("kid", "alg") if name in entry}
    try:
        key = _CLASSES[kind](plain)
        possible = _possible_algorithms(key)
    except (JoseError, ValueError, TypeError, KeyError, binascii.Error, OverflowError):
        raise InvalidValue("its numbers are no key") from None
    if not possible & set(algorithms if alg is None else [alg]):
        raise InvalidValue("its size, curve or kind fits no algorithm that is allowed here")
    return key


def _possible_algorithms(key: Key) -> frozenset[str]:
    if isinstance(key, RSAKey):
        fits = RSA_BITS[0] <= key.public_key.key_size <= RSA_BITS[1]
        return frozenset(name for name in ALGORITHMS if fits and name[:2] in {"RS", "PS"})
    if isinstance(key, ECKey):
        return frozenset({_EC_ALGORITHMS.get(key.curve_name, "")})
    return frozenset({"EdDSA"} if key.curve_name == "Ed25519" else ())
