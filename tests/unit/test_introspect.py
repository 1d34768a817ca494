"""Introspection: both shapes of INDIGO IAM, every answer that is no plain yes, and what is never asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.demo.iam import EmbeddedIam, FaultKind, ServedIam, indigo_fixture, running_iam
from iam_bridge.errors import Reason, SettingsError, TokenRefused
from iam_bridge.iam.introspect import Introspector, claims_of_answer
from iam_bridge.iam.jws import parse_compact
from iam_bridge.iam.keys import KeyCache, KeysNeeded
from iam_bridge.iam.secrets import read_secret
from iam_bridge.iam.validate import IntrospectionNeeded, TokenValidator
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import ClientSettings
from iam_bridge.model.token import AccessToken, VerifiedToken
from tests.unit.build import AUDIENCE, ISSUER, issuer_rules
from tests.unit.tokens import MAKER, HandClock, utc_now
from tests.vectors.bad_tokens import BAD_TOKENS, GONE, TokenMaker

TYPES = frozenset({"jwt", "at+jwt", "absent"})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedIam]:
    iam = EmbeddedIam(indigo_fixture(), key_pool="introspection")
    with running_iam(iam, tmp_path_factory.mktemp("iam")) as running:
        yield running


@pytest.fixture(autouse=True)
def as_it_was(served: ServedIam) -> Iterator[None]:
    yield
    served.iam.clear_faults()
    served.iam.version = "1.12"
    served.iam.reset_counters()


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "login.secret"
    path.write_text("login-secret\n")
    path.chmod(0o640)
    return path


class Site:
    """A login node that trusts the embedded IAM."""

    def __init__(self, served: ServedIam, secret_file: Path | None, **rules: Any) -> None:
        self.iam = served.iam
        self.issuer = Issuer.parse(served.issuer)
        client = ClientSettings(rules.pop("client_id", "login-client"), secret_file)
        entry = issuer_rules(
            issuer=self.issuer, types=TYPES, ca_file=served.ca_file, client=client, **({"timeout_s": 5.0} | rules)
        )
        self.keys = KeyCache({self.issuer: entry}, None, utc_now)
        self.validator = TokenValidator({self.issuer: entry}, self.keys, utc_now)

    def mint(self, **options: Any) -> str:
        return self.iam.mint(self.iam.person("test"), **({"audience": AUDIENCE[0]} | options))

    def validate(self, text: str) -> VerifiedToken:
        return self.validator.validate(AccessToken(text), audience=AUDIENCE, now=utc_now())

    def refusal(self, text: str) -> TokenRefused:
        with pytest.raises(TokenRefused) as caught:
            self.validate(text)
        assert "login-secret" not in f"{caught.value} {caught.value.detail}"
        return caught.value


@pytest.fixture
def site(served: ServedIam, secret_file: Path) -> Site:
    return Site(served, secret_file, validation="introspect")


@pytest.mark.parametrize("version", ["1.12", "1.14"])
@pytest.mark.parametrize("profile", ["iam", "wlcg", "aarc", "kc"])
def test_both_shapes_and_all_profiles_give_the_same_facts(site: Site, version: Any, profile: str) -> None:
    site.iam.version = version
    token = site.validate(site.mint(profile=profile, audience=["https://other.example.org", AUDIENCE[0]]))
    assert token.subject.sub == site.iam.person("test").id
    assert token.subject.issuer == site.issuer
    assert set(token.audience) == {"https://other.example.org", AUDIENCE[0]}
    assert token.groups == frozenset({"Analysis", "Production"})
    assert token.client_id == "public-client"


def test_a_revoked_token_is_inactive(site: Site) -> None:
    text = site.mint()
    site.iam.revoke(text)
    assert site.refusal(text).reason is Reason.INACTIVE


def test_a_client_s_own_token_is_refused(site: Site) -> None:
    text = site.iam.mint_for_client("login-client", audience=AUDIENCE[0])
    assert site.refusal(text).reason is Reason.CLIENT_TOKEN


@pytest.mark.parametrize("change", [{"audience": "https://jobs.example.org"}, {"audience": ()}])
def test_the_audience_is_checked_as_offline(site: Site, change: dict[str, Any]) -> None:
    assert site.refusal(site.mint(**change)).reason in {Reason.WRONG_AUDIENCE, Reason.NO_AUDIENCE}


def test_a_token_that_the_iam_did_not_issue_is_inactive(site: Site) -> None:
    assert site.refusal(site.mint(key="foreign-rsa")).reason is Reason.INACTIVE


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FaultKind.SERVER_ERROR, Reason.ISSUER_UNREACHABLE),
        (FaultKind.HANG, Reason.ISSUER_UNREACHABLE),
        (FaultKind.SLOW, Reason.ISSUER_UNREACHABLE),
        (FaultKind.CUT_BODY, Reason.ISSUER_UNREACHABLE),
        (FaultKind.GARBAGE, Reason.INACTIVE),
        (FaultKind.EMPTY_BODY, Reason.INACTIVE),
        (FaultKind.HUGE_BODY, Reason.INACTIVE),
        (FaultKind.DEEP_JSON, Reason.INACTIVE),
        (FaultKind.REDIRECT, Reason.INACTIVE),
        (FaultKind.RATE_LIMIT, Reason.INACTIVE),
    ],
)
@pytest.mark.parametrize("down", ["deny", "offline"])
def test_silence_follows_the_site_s_choice_and_a_strange_answer_never_permits(
    served: ServedIam, secret_file: Path, kind: FaultKind, reason: Reason, down: str
) -> None:
    site = Site(served, secret_file, validation="both", down=down, timeout_s=0.7)
    text = site.mint()
    site.keys.refresh(site.issuer)
    site.validate(text)  # finds the endpoint
    site.iam.fault(kind, path="/introspect")
    if down == "offline" and reason is Reason.ISSUER_UNREACHABLE:
        assert site.validate(text).subject.sub == site.iam.person("test").id
        assert site.refusal(site.mint(key="foreign-rsa")).reason is Reason.BAD_SIGNATURE
    else:
        assert site.refusal(text).reason is reason


def test_introspect_alone_falls_back_to_the_signature_where_the_site_says_so(
    served: ServedIam, secret_file: Path
) -> None:
    site = Site(served, secret_file, validation="introspect", down="offline")
    site.iam.fault(FaultKind.SERVER_ERROR, path="/introspect")
    assert site.validate(site.mint()).groups is None
    assert site.refusal(site.mint(key="foreign-rsa")).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("client_id", "secret"), [("login-client", "wrong"), ("nobody", "login-secret"), ("sync-client", "sync-secret")]
)
def test_a_client_that_may_not_introspect_permits_nobody(
    served: ServedIam, tmp_path: Path, client_id: str, secret: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(secret)
    path.chmod(0o600)
    site = Site(served, path, validation="introspect", down="offline", client_id=client_id)
    refused = site.refusal(site.mint())
    assert refused.reason is Reason.INACTIVE
    assert "/introspect answered 40" in refused.detail


def test_a_missing_secret_is_our_own_trouble_and_never_falls_back(served: ServedIam, tmp_path: Path) -> None:
    for path in (tmp_path / "absent", None):
        site = Site(served, path, validation="both", down="offline")
        assert site.refusal(site.mint()).reason is Reason.INTERNAL


NO_TOKEN_OF_OURS = {
    Reason.NOT_A_TOKEN, Reason.EMPTY, Reason.TOO_LONG, Reason.TRUNCATED, Reason.JUNK_FROM_SSHD,
    Reason.UNTRUSTED_ISSUER, Reason.BAD_HEADER, Reason.ALGORITHM,
}  # fmt: skip
# These are built like tokens of this issuer; what is wrong with them shows beside a key or in the claims.
LOOKS_LIKE_OURS = {
    "ES256 in the header over an RSA signature", "ES256 in the header, the kid of an RSA key",
    "RS256 in the header, the kid of an EC key", "typ of a logout token",
}  # fmt: skip
STAYS_HERE = [case for case in BAD_TOKENS if case.reasons <= NO_TOKEN_OF_OURS and case.sentence not in LOOKS_LIKE_OURS]


@pytest.mark.parametrize("case", STAYS_HERE, ids=lambda case: case.sentence)
def test_what_is_no_token_of_this_issuer_never_leaves_the_host(served: ServedIam, site: Site, case: Any) -> None:
    maker = TokenMaker(served.issuer, AUDIENCE[0], int(utc_now().timestamp()))
    before = served.connections
    assert site.refusal(case.build(maker)).reason in case.reasons
    assert served.connections == before


def test_of_signed_and_answered_groups_only_what_both_name_counts(served: ServedIam, secret_file: Path) -> None:
    site = Site(served, secret_file, validation="both")
    assert site.validate(site.mint(profile="iam", groups=["Analysis", "hpc/users"])).groups == frozenset({"Analysis"})
    assert site.validate(site.mint(profile="iam")).groups == frozenset({"Analysis", "Production"})


def test_a_bad_signature_is_refused_before_anybody_is_asked(served: ServedIam, secret_file: Path) -> None:
    site = Site(served, secret_file, validation="both")
    site.keys.refresh(site.issuer)
    site.iam.reset_counters()
    assert site.refusal(site.mint(key="foreign-rsa")).reason is Reason.BAD_SIGNATURE
    assert site.iam.count("/introspect") == 0


def test_the_cached_look_never_asks_and_says_who_must_be_asked(served: ServedIam, secret_file: Path) -> None:
    for validation, signal in (("offline", KeysNeeded), ("both", KeysNeeded), ("introspect", IntrospectionNeeded)):
        site = Site(served, secret_file, validation=validation)
        token = AccessToken(site.mint())
        before = served.connections
        with pytest.raises(signal) as needed:
            site.validator.validate_cached(token, audience=AUDIENCE, now=utc_now())
        assert needed.value.issuer == site.issuer
        assert served.connections == before
        site.validate(token.reveal())
        if validation == "offline":
            assert site.validator.validate_cached(token, audience=AUDIENCE, now=utc_now())
        else:
            with pytest.raises(IntrospectionNeeded):
                site.validator.validate_cached(token, audience=AUDIENCE, now=utc_now())


def test_connections_and_discovery_are_shared_by_many_questions(served: ServedIam, site: Site) -> None:
    texts = [site.mint() for _ in range(20)]
    before = served.connections
    for text in texts:
        site.validate(text)
    assert served.connections == before + 1
    assert site.iam.count("/.well-known/openid-configuration") == 1
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(site.validate, texts))) == 20
    assert served.connections <= before + 7
    site.validator.close()


def test_the_endpoint_is_found_anew_in_time_and_an_outage_of_discovery_keeps_the_last(
    served: ServedIam, secret_file: Path
) -> None:
    clock = HandClock(utc_now())
    site = Site(served, secret_file, validation="introspect")
    entry = issuer_rules(
        issuer=site.issuer, types=TYPES, ca_file=served.ca_file, client=ClientSettings("login-client", secret_file)
    )
    introspector = Introspector(entry, clock)
    token = AccessToken(site.mint())

    def ask() -> VerifiedToken:
        return introspector.introspect(token, parse_compact(token), audience=AUDIENCE, now=utc_now())

    ask()
    clock.now += timedelta(seconds=entry.refresh_s)
    site.iam.fault(FaultKind.SERVER_ERROR, path="/.well-known/openid-configuration")
    assert ask().subject.sub == site.iam.person("test").id
    site.iam.clear_faults()
    document = {"issuer": served.issuer, "jwks_uri": served.base_url + "/jwk"}
    site.iam.fault(FaultKind.REPLY, path="/.well-known/openid-configuration", value=json.dumps(document))
    with pytest.raises(TokenRefused, match="names no introspection endpoint") as caught:
        ask()
    assert caught.value.reason is Reason.INACTIVE
    introspector.close()


def test_a_first_discovery_that_fails_is_an_issuer_out_of_reach(site: Site) -> None:
    site.iam.fault(FaultKind.SERVER_ERROR, path="/.well-known/openid-configuration")
    assert site.refusal(site.mint()).reason is Reason.ISSUER_UNREACHABLE


# ---- the answer, read ------------------------------------------------------------------------------------------------

ANSWER: dict[str, Any] = {
    "active": True, "iss": ISSUER.url, "sub": MAKER.sub, "user_id": "ada", "client_id": "portal", "aud": "a b",
    "exp": MAKER.now + 60, "token_type": "Bearer",
}  # fmt: skip


def read(answer: dict[str, Any], **claims: Any) -> dict[str, Any]:
    parsed = parse_compact(AccessToken(MAKER.token(MAKER.claims(**claims))))
    kept = {name: value for name, value in answer.items() if value is not GONE}
    return claims_of_answer(kept, parsed, issuer_rules())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"active": False}, Reason.INACTIVE),
        ({"active": "true"}, Reason.INACTIVE),
        ({"active": 1}, Reason.INACTIVE),
        ({"active": GONE}, Reason.INACTIVE),
        ({"iss": "https://other.example.org/"}, Reason.UNTRUSTED_ISSUER),
        ({"iss": ISSUER.url + "/"}, Reason.UNTRUSTED_ISSUER),
        ({"iss": GONE}, Reason.UNTRUSTED_ISSUER),
        ({"user_id": GONE}, Reason.CLIENT_TOKEN),
        ({"user_id": ""}, Reason.CLIENT_TOKEN),
        ({"user_id": 7}, Reason.CLIENT_TOKEN),
        ({"sub": "somebody-else"}, Reason.BAD_CLAIMS),
        ({"sub": GONE}, Reason.BAD_CLAIMS),
        ({"token_type": "refresh_token"}, Reason.BAD_CLAIMS),
        ({"token_type": ["Bearer"]}, Reason.BAD_CLAIMS),
    ],
    ids=str,
)
def test_an_answer_that_is_no_plain_yes_is_refused(change: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(TokenRefused) as caught:
        read(ANSWER | change)
    assert caught.value.reason is reason


def test_the_answer_says_what_grants_and_the_token_only_what_refuses() -> None:
    claims = read(ANSWER, aud=[AUDIENCE[0]], groups=["admins"], scope="everything", nonce="n")
    assert claims["aud"] == ["a", "b"]
    assert "groups" not in claims
    assert "scope" not in claims
    assert (claims["nonce"], claims["jti"]) == ("n", "6a384bcd")
    assert read(ANSWER | {"user_id": GONE, "username": "ada", "aud": ["a b"]})["aud"] == ["a b"]


@pytest.mark.parametrize(
    ("answered", "signed", "counts"),
    [(50, 60, 50), (60, 50, 50), (60, None, None), (GONE, 60, None), ("60", 50, "60"), (60, True, True)],
    ids=str,
)
def test_the_earlier_end_counts_and_no_end_is_no_yes(answered: Any, signed: Any, counts: Any) -> None:
    assert read(ANSWER | {"exp": answered}, exp=signed)["exp"] == counts


# ---- the secret's file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_secret_is_read_without_its_line_break(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"a+b c=\r\n")
    path.chmod(mode)
    assert read_secret(path) == "a+b c="


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o620, 0o777])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret")
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"has mode {mode:04o}") as caught:
        read_secret(path)
    assert f"chmod 0640 {path}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\xfe", b"tab\there", b"x" * 5000])
def test_a_secret_that_is_no_line_of_text_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="one line of printable ASCII") as caught:
        read_secret(path)
    assert "lines" not in str(caught.value).replace("one line", "")


def test_a_secret_that_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path, words in ((pipe, "no plain file"), (tmp_path, "no plain file"), (tmp_path / "absent", "cannot be read")):
        with pytest.raises(SettingsError, match=words):
            read_secret(path)
