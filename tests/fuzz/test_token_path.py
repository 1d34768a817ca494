"""Whatever bytes come, the token path refuses with a reason: it accepts nothing new, raises nothing else, waits for nobody.

Seeded from good tokens and from the table of bad ones; `derandomize` keeps the run the same everywhere.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iam_bridge.errors import InvalidValue, Reason, TokenRefused
from iam_bridge.iam.introspect import claims_of_answer
from iam_bridge.iam.jwks import parse_key_set
from iam_bridge.iam.jws import parse_compact
from iam_bridge.model.token import AccessToken
from tests.unit.build import AUDIENCE, NOW, issuer_rules
from tests.unit.tokens import MAKER, validator
from tests.vectors.bad_tokens import BAD_TOKENS, b64url, public_jwk, throw_away_ec, throw_away_rsa

VALIDATOR = validator()
GOOD = (MAKER.token(), MAKER.ec_token(), MAKER.token(MAKER.claims(groups=["hpc/users"])))
SEEDS = (*GOOD, *(text for case in BAD_TOKENS if len(text := case.build(MAKER)) < 4000))
FUZZ = settings(
    max_examples=300, deadline=1000, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)


def refused(text: str) -> bool:
    """Tell whether the token is refused for what it is; any other exception is a failure."""
    try:
        VALIDATOR.validate(AccessToken(text), audience=AUDIENCE, now=NOW)
    except TokenRefused as error:
        return error.reason is not Reason.INTERNAL
    return False


@FUZZ
@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    assert refused(raw.decode("utf-8", "surrogateescape"))


@FUZZ
@given(st.text(alphabet='eyJhbGciOiJ.-_{}"=\b\n\r\x7fINCORRECT\u0131\u212a', max_size=400))
def test_text_that_resembles_tokens_is_refused(text: str) -> None:
    assert refused(text)


@FUZZ
@given(st.data())
def test_a_mutated_token_is_refused_unless_nothing_changed(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SEEDS))
    raw = bytearray(text.encode("utf-8", "surrogateescape"))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        kind = data.draw(st.sampled_from(("set", "delete", "insert", "double", "splice")))
        if kind == "set" and raw:
            raw[place] = data.draw(st.integers(0, 255))
        elif kind == "delete":
            del raw[place : place + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=20))
        elif kind == "double":
            raw[place:place] = raw[place : place + 50]
        else:
            other = data.draw(st.sampled_from(SEEDS)).encode("utf-8", "surrogateescape")
            raw[place:] = other[place:]
    mutated = raw.decode("utf-8", "surrogateescape")
    assert refused(mutated) or mutated in GOOD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = ("alg", "kid", "typ", "cty", "crit", "jku", "jwk", "b64", "zip", "x")


@FUZZ
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_a_header_of_any_shape_never_lets_a_foreign_key_in(changes: dict[str, Any]) -> None:
    header = MAKER.header() | changes
    assert refused(MAKER.token(header=json.dumps(header).encode(), key=throw_away_rsa("foreign")))


CLAIMS = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp", "scope", "groups", "wlcg.groups",
          "roles", "entitlements", "typ", "nonce")  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(CLAIMS), JSON, min_size=1, max_size=6))
def test_signed_claims_of_any_shape_are_decided(changes: dict[str, Any]) -> None:
    text = MAKER.token(json.dumps(MAKER.claims() | changes).encode())
    if refused(text):
        return
    # What passes still names our issuer, our audience, an end and a person.
    kept = parse_compact(AccessToken(text)).unverified_claims
    assert MAKER.issuer.rstrip("/") == kept["iss"].rstrip("/")
    assert AUDIENCE[0] in kept["aud"]
    assert kept["exp"] > MAKER.now
    assert isinstance(kept["sub"], str)
    assert kept["sub"]


@FUZZ
@given(
    st.dictionaries(st.sampled_from(("active", "iss", "sub", "aud", "exp", "user_id", "username", "token_type")), JSON)
)
def test_an_introspection_answer_of_any_shape_is_decided(answer: dict[str, Any]) -> None:
    parsed = parse_compact(AccessToken(GOOD[0]))
    try:
        claims = claims_of_answer(answer, parsed, issuer_rules())
    except TokenRefused:
        return
    assert answer["active"] is True
    assert claims["sub"] == MAKER.sub


JWK = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct"])},
    optional={
        name: JSON | st.binary(max_size=300).map(b64url) | st.sampled_from(["P-256", "Ed25519", "AQAB", "sig"])
        for name in ("n", "e", "crv", "x", "y", "d", "k", "kid", "use", "alg", "key_ops")
    },
)
KEYS = [public_jwk(throw_away_rsa("trusted"), "rsa1"), public_jwk(throw_away_ec("trusted"), "ec1")]


@pytest.mark.filterwarnings("ignore:Key size should be")
@FUZZ
@given(st.lists(JWK | JSON | st.sampled_from(KEYS), max_size=4))
def test_a_key_set_of_any_shape_gives_public_keys_or_is_refused(entries: list[Any]) -> None:
    try:
        keys = parse_key_set({"keys": entries}, algorithms=("RS256", "ES256", "EdDSA"), fetched_at=NOW)
    except InvalidValue:
        return
    for key in keys.to_jwks()["keys"]:
        assert key["kty"] in {"RSA", "EC", "OKP"}
        assert not {"d", "k", "p", "q"} & key.keys()


def test_the_seeds_hold_what_passes_and_what_does_not() -> None:
    assert [refused(text) for text in GOOD] == [False, False, False]
    assert all(refused(text) for text in SEEDS[len(GOOD) :])
    assert base64.urlsafe_b64decode(GOOD[0].split(".")[0] + "==")[:1] == b"{"
