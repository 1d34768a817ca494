"""The claims of a token: each refusal has a case that falls when only its check is removed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from iam_bridge.errors import Reason, TokenRefused
from iam_bridge.model.identity import Issuer
from iam_bridge.model.token import SignedClaims, VerifiedToken
from iam_bridge.policy.claims import check_claims
from tests.unit.build import AUDIENCE, ISSUER, NOW, issuer_rules, subject

T = int(NOW.timestamp())
GOOD: dict[str, Any] = {
    "iss": ISSUER.url, "sub": "s-ada", "aud": AUDIENCE[0], "exp": T + 600, "iat": T, "nbf": T, "jti": "j1",
    "client_id": "portal", "scope": "openid profile",
}  # fmt: skip
GONE = object()


def check(claims: dict[str, Any], *, typ: str | None = "at+jwt", **rules: Any) -> VerifiedToken:
    kept = {name: value for name, value in claims.items() if value is not GONE}
    audience = rules.pop("audience", AUDIENCE)
    return check_claims(
        SignedClaims(kept), typ=typ, rules=issuer_rules(**rules), audience=audience, fingerprint="f" * 16, now=NOW
    )


def test_a_good_token_becomes_a_verified_token() -> None:
    token = check(GOOD)
    assert token.subject == subject("s-ada")
    assert token.audience == AUDIENCE
    assert token.scopes == {"openid", "profile"}
    assert token.groups is None
    assert (token.client_id, token.jti, token.fingerprint) == ("portal", "j1", "f" * 16)
    assert int(token.expires_at.timestamp()) == T + 600


@dataclass(frozen=True)
class Case:
    sentence: str
    change: dict[str, Any]
    reason: Reason
    typ: str | None = "at+jwt"


CASES = [
    Case("no exp", {"exp": GONE}, Reason.NO_EXPIRY),
    Case("exp is this very second", {"exp": T}, Reason.EXPIRED),
    Case("exp gets no leeway", {"exp": T - 1}, Reason.EXPIRED),
    Case("exp long past", {"exp": 1}, Reason.EXPIRED),
    Case("exp is null", {"exp": None}, Reason.BAD_CLAIMS),
    Case("exp is text", {"exp": str(T + 600)}, Reason.BAD_CLAIMS),
    Case("exp is true", {"exp": True}, Reason.BAD_CLAIMS),
    Case("exp is infinite", {"exp": float("inf")}, Reason.BAD_CLAIMS),
    Case("exp is not a number", {"exp": float("nan")}, Reason.BAD_CLAIMS),
    Case("exp is negative", {"exp": -1}, Reason.BAD_CLAIMS),
    Case("exp is past year 9999", {"exp": 10**15}, Reason.BAD_CLAIMS),
    Case("nbf ahead of the leeway", {"nbf": T + 31}, Reason.NOT_YET_VALID),
    Case("iat ahead of the leeway", {"iat": T + 31}, Reason.NOT_YET_VALID),
    Case("nbf is a list", {"nbf": [T]}, Reason.BAD_CLAIMS),
    Case("no aud", {"aud": GONE}, Reason.NO_AUDIENCE),
    Case("empty list of aud", {"aud": []}, Reason.NO_AUDIENCE),
    Case("empty aud", {"aud": ""}, Reason.NO_AUDIENCE),
    Case("aud of another service", {"aud": "https://jobs.hpc.example.org"}, Reason.WRONG_AUDIENCE),
    Case("aud is the WLCG wildcard", {"aud": "https://wlcg.cern.ch/jwt/v1/any"}, Reason.WRONG_AUDIENCE),
    Case("aud is a star", {"aud": ["*"]}, Reason.WRONG_AUDIENCE),
    Case("aud list without ours", {"aud": ["a", "b"]}, Reason.WRONG_AUDIENCE),
    Case("aud that starts like ours", {"aud": AUDIENCE[0] + ".evil.org"}, Reason.WRONG_AUDIENCE),
    Case("aud is an object", {"aud": {"value": AUDIENCE[0]}}, Reason.BAD_CLAIMS),
    Case("aud list with a number", {"aud": [AUDIENCE[0], 1]}, Reason.BAD_CLAIMS),
    Case("iss of somebody else", {"iss": "https://other.example.org/"}, Reason.UNTRUSTED_ISSUER),
    Case("no iss", {"iss": GONE}, Reason.UNTRUSTED_ISSUER),
    Case("no sub", {"sub": GONE}, Reason.NO_SUBJECT),
    Case("sub is a number", {"sub": 7}, Reason.NO_SUBJECT),
    Case("empty sub", {"sub": ""}, Reason.NO_SUBJECT),
    Case("sub with a newline", {"sub": "a\nb"}, Reason.NO_SUBJECT),
    Case("sub is the client", {"sub": "portal"}, Reason.CLIENT_TOKEN),
    Case("sub is the azp", {"sub": "portal", "client_id": GONE, "azp": "portal"}, Reason.CLIENT_TOKEN, typ="JWT"),
    Case("client_id is a number", {"client_id": 5}, Reason.BAD_CLAIMS),
    Case("a nonce marks an ID token", {"nonce": "n"}, Reason.ID_TOKEN),
    Case("an at_hash marks an ID token", {"at_hash": "h"}, Reason.ID_TOKEN),
    Case("a c_hash marks an ID token", {"c_hash": "h"}, Reason.ID_TOKEN),
    Case("payload typ ID", {"typ": "ID"}, Reason.ID_TOKEN),
    Case("payload typ Refresh", {"typ": "Refresh"}, Reason.ID_TOKEN),
    Case("payload typ a number", {"typ": 1}, Reason.ID_TOKEN),
    Case("bound to a key by DPoP", {"cnf": {"jkt": "x"}}, Reason.BOUND_TOKEN),
    Case("an at+jwt without jti", {"jti": GONE}, Reason.BAD_CLAIMS),
    Case("an at+jwt without client_id", {"client_id": GONE}, Reason.BAD_CLAIMS),
    Case("scope is a list", {"scope": ["openid"]}, Reason.BAD_CLAIMS),
    Case("groups is text", {"groups": "hpc/users"}, Reason.BAD_CLAIMS),
    Case("groups is a number", {"groups": 5}, Reason.BAD_CLAIMS),
    Case("groups holds a number", {"groups": ["a", 5]}, Reason.BAD_CLAIMS),
    Case("a list of groups too long", {"groups": [f"g{i}" for i in range(1001)]}, Reason.BAD_CLAIMS),
    Case("a group with a newline", {"wlcg.groups": ["/a\nb"]}, Reason.BAD_CLAIMS),
    Case("typ header of an ID token kind", {}, Reason.BAD_HEADER, typ="dpop+jwt"),
    Case("no typ header where it is not accepted", {}, Reason.BAD_HEADER, typ=None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence)
def test_bad_claims_are_refused(case: Case) -> None:
    with pytest.raises(TokenRefused) as refused:
        check(GOOD | case.change, typ=case.typ)
    assert refused.value.reason is case.reason


@pytest.mark.parametrize(
    ("sentence", "change", "typ"),
    [
        ("iat and nbf within the leeway", {"iat": T + 30, "nbf": T + 30}, "at+jwt"),
        ("no nbf and no scope", {"nbf": GONE, "scope": GONE}, "at+jwt"),
        ("issuer without its final slash", {"iss": ISSUER.url[:-1]}, "at+jwt"),
        ("a list of audiences with ours", {"aud": ["x", AUDIENCE[0]]}, "at+jwt"),
        ("the media type written out", {}, "application/at+jwt"),
        ("a plain JWT needs no jti", {"jti": GONE, "client_id": GONE}, "JWT"),
        ("a jti that is no text names nothing", {"jti": 5}, "JWT"),
        ("Keycloak's payload typ Bearer", {"typ": "Bearer"}, "JWT"),
        ("exp with a fraction", {"exp": T + 0.5}, "at+jwt"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_what_the_standards_leave_open_is_accepted(sentence: str, change: dict[str, Any], typ: str) -> None:
    assert check(GOOD | change, typ=typ).subject == subject("s-ada")


def test_a_missing_typ_is_accepted_where_the_issuers_entry_says_so() -> None:
    assert check(GOOD, typ=None, types=frozenset({"absent"})).subject == subject("s-ada")


def test_no_audience_of_ours_accepts_nothing() -> None:
    with pytest.raises(TokenRefused) as refused:
        check(GOOD, audience=())
    assert refused.value.reason is Reason.WRONG_AUDIENCE


def test_an_issuer_configured_without_slash_accepts_the_slash() -> None:
    bare = Issuer.parse("https://iam.example.org")
    assert check(GOOD, issuer=bare).subject.issuer == bare


@pytest.mark.parametrize(
    ("claim", "value", "groups"),
    [
        ("groups", ["Analysis", "Analysis/sub"], {"Analysis", "Analysis/sub"}),
        ("wlcg.groups", ["/Analysis", "/Analysis/sub"], {"Analysis", "Analysis/sub"}),
        ("roles", ["Analysis"], {"Analysis"}),
        ("entitlements", ["urn:geant:iam.example:group:Analysis:sub"], {"Analysis/sub"}),
        ("eduperson_entitlement", ["urn:mace:egi.eu:group:vo:grp#aai.egi.eu"], {"vo/grp"}),
        ("entitlements", ["urn:mace:dir:entitlement:common-lib-terms"], set()),
        ("groups", [], set()),
    ],
)
def test_groups_of_all_profiles_become_paths(claim: str, value: list[str], groups: set[str]) -> None:
    assert check(GOOD | {claim: value}).groups == groups


def test_an_entitlement_made_to_be_slow_is_read_at_once() -> None:
    text = "urn:ab:" + "group:" * 2500 + "\n#\n"
    began = time.perf_counter()
    with pytest.raises(TokenRefused):
        check(GOOD | {"entitlements": [text]})
    assert time.perf_counter() - began < 0.1
