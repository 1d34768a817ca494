"""What joserfc's own words make of a token, with nothing of ours around: the floor for any verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from iam_bridge.demo.iam import EmbeddedIam
from tests.bench.sites import AUDIENCE

KEYS = {"RS256": "rsa1", "ES256": "ec1"}
"""The embedded IAM's key for an algorithm."""
Work = Callable[[Any], None]


def bare_check(iam: EmbeddedIam, algorithm: str) -> Work:
    """Give a check of signature, iss, aud and exp of a request's token, by a key that was imported before."""
    published = {key["kid"]: key for key in iam.keys.jwks()["keys"]}
    key = (RSAKey if algorithm == "RS256" else ECKey).import_key(dict(published[KEYS[algorithm]]))
    registry = JWTClaimsRegistry(
        iss={"essential": True, "value": iam.issuer},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    def check(request: Any) -> None:
        registry.validate(jwt.decode(request.secret, key, algorithms=[algorithm]).claims)

    return check
