"""Offline verification: the whole table of bad tokens, and the good ones that must pass beside them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import InvalidValue, Reason, TokenRefused
from iam_bridge.iam.jws import check_signature, is_junk_from_sshd, parse_compact
from iam_bridge.iam.keys import KeyCache, KeysNeeded
from iam_bridge.iam.strict_json import parse_json_object
from iam_bridge.iam.verify import Verifier
from iam_bridge.model.token import AccessToken, VerifiedToken
from tests.unit.build import AUDIENCE, ISSUER, NOW, issuer_rules
from tests.unit.tokens import MAKER, Publisher, key_cache, utc_now, validator
from tests.vectors.bad_tokens import BAD_TOKENS, GONE, BadToken, TokenMaker, as_bytes

VALIDATOR = validator()


def check(text: str) -> VerifiedToken:
    return VALIDATOR.validate(AccessToken(text), audience=AUDIENCE, now=NOW)


def refusal(text: str) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        check(text)
    return caught.value


@pytest.fixture(scope="module")
def stranger() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def maker(stranger: socket.socket) -> TokenMaker:
    return replace(MAKER, stranger=f"https://127.0.0.1:{stranger.getsockname()[1]}/")


@pytest.mark.parametrize("case", BAD_TOKENS, ids=lambda case: case.sentence)
def test_bad_token_is_refused_at_once_and_for_its_reason(
    case: BadToken, maker: TokenMaker, stranger: socket.socket
) -> None:
    text = case.build(maker)
    start = time.perf_counter()
    refused = refusal(text)
    took = time.perf_counter() - start
    assert refused.reason in case.reasons
    assert took < 1.0
    shown = f"{refused} {refused.detail}"
    assert not [piece for piece in pieces(text) if piece in shown], "a refusal quotes the token"
    with pytest.raises(BlockingIOError):  # nobody knocked at the stranger's door
        stranger.accept()


def pieces(text: str, size: int = 12) -> set[str]:
    return {text[place : place + size] for place in range(0, min(len(text), 4000) - size, 4)}


def test_the_table_has_no_sentence_twice_and_knows_every_reason_of_a_token() -> None:
    sentences = [case.sentence for case in BAD_TOKENS]
    assert len(set(sentences)) == len(sentences)
    elsewhere = {Reason.NO_KEYS, Reason.INACTIVE, Reason.ISSUER_UNREACHABLE}  # test_keys, test_introspect
    wanted = set(list(Reason)[: list(Reason).index(Reason.BANNED)]) - elsewhere
    assert {reason for case in BAD_TOKENS if len(case.reasons) == 1 for reason in case.reasons} == wanted


GOOD: dict[str, Callable[[], str]] = {
    "RS256": MAKER.token,
    "ES256": MAKER.ec_token,
    "iss without its final slash": lambda: MAKER.token(MAKER.claims(iss=ISSUER.url.rstrip("/"))),
    "typ at+jwt": lambda: MAKER.token(header=MAKER.header(typ="at+jwt")),
    "no typ": lambda: MAKER.token(header=MAKER.header(typ=GONE)),
    "a header name that nobody knows": lambda: MAKER.token(header=MAKER.header(x5t="c2hhMQ")),
    "a header written with blanks": lambda: MAKER.token(header=b'{ "alg": "RS256",\n "kid": "rsa1" }'),
    "claims written with escapes": lambda: MAKER.token(as_bytes(MAKER.claims(name="Z\u00fcrich \U0001f600"))),
    "nbf and iat within the leeway": lambda: MAKER.token(MAKER.claims(nbf=MAKER.now + 25, iat=MAKER.now + 25)),
    "nearly 20 000 characters": lambda: MAKER.token(MAKER.claims(filler="x" * 14_200)),
    "nested as deep as is allowed": lambda: MAKER.token(MAKER.claims(x=[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]])),
}


@pytest.mark.parametrize("sentence", GOOD)
def test_good_token_is_accepted(sentence: str) -> None:
    token = check(GOOD[sentence]())
    assert token.subject.issuer == ISSUER
    assert token.subject.sub == MAKER.sub


def test_the_verified_token_names_the_secret_by_its_fingerprint_only() -> None:
    secret = AccessToken(MAKER.token())
    verified = VALIDATOR.validate(secret, audience=AUDIENCE, now=NOW)
    assert verified.fingerprint == secret.fingerprint
    parsed = parse_compact(secret)
    assert not [piece for piece in pieces(secret.reveal()) if piece in repr(parsed) + repr(verified)]
    assert MAKER.sub not in repr(parsed)


def test_a_signature_shorter_than_its_key_was_cut() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    maker = replace(MAKER, rsa_key=key)
    text = maker.token(key=key)
    trusting = validator(maker)
    assert trusting.validate(AccessToken(text), audience=AUDIENCE, now=NOW)
    for length, reason in ((len(text) - 4, Reason.TRUNCATED), (len(text) - 160, Reason.TRUNCATED)):
        with pytest.raises(TokenRefused) as caught:
            trusting.validate(AccessToken(text[:length]), audience=AUDIENCE, now=NOW)
        assert caught.value.reason is reason
        assert f"after {length} characters" in caught.value.detail


def test_an_empty_audience_accepts_nothing() -> None:
    with pytest.raises(TokenRefused) as caught:
        VALIDATOR.validate(AccessToken(MAKER.token()), audience=(), now=NOW)
    assert caught.value.reason is Reason.WRONG_AUDIENCE


def test_the_verifier_looks_with_the_keys_at_hand_and_says_when_there_are_none() -> None:
    keys = key_cache(Publisher(MAKER.jwks()))
    verifier = Verifier({ISSUER: issuer_rules()}, keys)
    token = AccessToken(MAKER.token())
    with pytest.raises(KeysNeeded):
        verifier.verify(token, audience=AUDIENCE, now=NOW)
    keys.refresh(ISSUER)
    assert verifier.verify(token, audience=AUDIENCE, now=NOW).subject.sub == MAKER.sub


def test_a_key_that_says_its_alg_serves_no_other() -> None:
    jwks = MAKER.jwks()
    jwks["keys"][0]["alg"] = "PS256"
    keys = key_cache(Publisher(jwks), algorithms=("RS256", "PS256", "ES256"))
    keys.refresh(ISSUER)
    with pytest.raises(TokenRefused) as caught:
        check_signature(parse_compact(AccessToken(MAKER.token())), keys.find(ISSUER, "rsa1", NOW))
    assert caught.value.reason is Reason.ALGORITHM


@pytest.mark.parametrize(
    ("text", "junk"),
    [
        (("\b\n\r\x7fINCORRECT" * 3)[:20], True),
        ("\b\n\r\x7fINCORRECT\b\n\r\x7f" + "\b\n\r\x7fINC", True),
        ("\b", True),
        ("INCORRECT", False),
        ("\b\n\r\x7fINCORRECT!", False),
        ("", False),
    ],
)
def test_junk_from_sshd_is_known_by_its_alphabet(text: str, junk: bool) -> None:
    assert is_junk_from_sshd(text) is junk


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "NaN"),
        (b'{"a": 1e400}', "without bounds"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": "\xff"}', "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b'{"a": 1} x', "no JSON"),
        (b"[1]", "no object"),
        (b"", "no JSON"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32"),
        (b'{"a": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "deep"),
    ],
)
def test_json_is_read_strictly(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        parse_json_object(raw)


def test_json_keeps_what_is_right() -> None:
    assert parse_json_object(b'{"a": "\\ud83d\\ude00 \\u00fc", "b": [1.5, -2, null, true]}') == {
        "a": "\U0001f600 \u00fc",
        "b": [1.5, -2, None, True],
    }
    assert parse_json_object(b'{"a": ' + b"[" * 31 + b"]" * 31 + b"}")


@given(st.dictionaries(st.text(max_size=5), st.recursive(st.integers() | st.text(max_size=5), st.lists), max_size=5))
def test_what_json_writes_is_read_back(value: dict[str, object]) -> None:
    assert parse_json_object(as_bytes(value)) == value


WARM = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from iam_bridge.iam.keys import KeyCache
from iam_bridge.iam.validate import TokenValidator
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from iam_bridge.model.token import AccessToken
issuer = Issuer.parse(sys.argv[1])
rules = {issuer: IssuerRules(issuer, ("RS256", "ES256"), frozenset({"jwt"}), "offline", None, None, 21600, 172800, 5, "deny")}
clock = lambda: datetime.now(UTC)
keys = KeyCache(rules, Path(sys.argv[2]), clock)
verified = TokenValidator(rules, keys, clock).validate_cached(
    AccessToken(sys.stdin.read()), audience=(sys.argv[3],), now=clock())
print(verified.subject.sub)
print(*sorted(sys.modules))
"""


def test_a_warm_login_path_imports_no_network_library_and_no_cli(tmp_path: Path) -> None:
    maker = replace(MAKER, now=int(utc_now().timestamp()))
    folder = tmp_path / "keys"
    KeyCache({ISSUER: issuer_rules()}, folder, utc_now, fetch=lambda _: maker.jwks()).refresh(ISSUER)
    done = subprocess.run(
        [sys.executable, "-c", WARM, ISSUER.url, str(folder), AUDIENCE[0]],
        input=maker.token(), capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    sub, modules = done.stdout.splitlines()
    assert sub == maker.sub
    assert not {"requests", "urllib3", "typer", "rich", "ldap3", "yaml", "pydantic"} & set(modules.split())
