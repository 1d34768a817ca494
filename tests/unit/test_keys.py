"""The key cache: what it answers without a network, what a refresh may change, and what it reads from disk."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from iam_bridge.demo.iam import EmbeddedIam, FaultKind, ServedIam, indigo_fixture, running_iam
from iam_bridge.errors import InvalidValue, Reason, SourceUnavailable, TokenRefused
from iam_bridge.iam.jwks import KeySet, parse_key_set
from iam_bridge.iam.keys import COOL_DOWN, KeyCache, KeysNeeded
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import IssuerRules
from tests.unit.build import ISSUER, NOW, issuer_rules
from tests.unit.tokens import MAKER, HandClock, Publisher, key_cache, utc_now
from tests.vectors.bad_tokens import b64url, public_jwk, throw_away_ec, throw_away_rsa

ALGORITHMS = ("RS256", "ES256", "EdDSA")
DOWN = SourceUnavailable("https://iam.example.org/jwk did not answer within 5 s")
RSA = public_jwk(throw_away_rsa("trusted"), "rsa1")
OTHER = public_jwk(throw_away_rsa("other"), "rsa2")


def published(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


def refusal(keys: KeyCache, kid: str | None, clock: HandClock) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        keys.find(ISSUER, kid, clock())
    return caught.value


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


# ---- what a key set may hold ------------------------------------------------------------------------------------


def test_keys_of_each_kind_are_kept() -> None:
    okp = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    keys = parse_key_set(
        published(RSA | {"use": "sig", "alg": "RS256", "x5u": "https://evil.example.org/"},
                  public_jwk(throw_away_ec("trusted"), "ec1", key_ops=["verify"]),
                  {"kty": "OKP", "crv": "Ed25519", "x": b64url(okp), "kid": "ed1"}),
        algorithms=ALGORITHMS, fetched_at=NOW,
    )  # fmt: skip
    assert sorted(keys.keys) == ["ec1", "ed1", "rsa1"]
    assert keys.left_out == ()
    assert set(keys.to_jwks()["keys"][0]) == {"kty", "n", "e", "kid", "alg"}
    assert parse_key_set(keys.to_jwks(), algorithms=ALGORITHMS, fetched_at=NOW).keys.keys() == keys.keys.keys()


def _small_rsa() -> dict[str, Any]:
    return public_jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "x")


LEFT_OUT: dict[str, Callable[[], Any]] = {
    "symmetric": lambda: {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
    "private": lambda: OTHER | {"d": "AQAB"},
    "for encryption": lambda: OTHER | {"use": "enc"},
    "use is a list": lambda: OTHER | {"use": ["sig"]},
    "key_ops without verify": lambda: OTHER | {"key_ops": ["encrypt"]},
    "key_ops is text": lambda: OTHER | {"key_ops": "verify"},
    "alg that is not allowed": lambda: OTHER | {"alg": "PS256"},
    "alg HS256 on an RSA key": lambda: OTHER | {"alg": "HS256"},
    "alg of another kind": lambda: OTHER | {"alg": "ES256"},
    "alg is null": lambda: OTHER | {"alg": None},
    "RSA of 1024 bits": _small_rsa,
    "RSA of 16384 bits": lambda: OTHER | {"n": b64url(b"\xff" * 2048)},
    "RSA without n": lambda: {name: value for name, value in OTHER.items() if name != "n"},
    "RSA with an even exponent": lambda: OTHER | {"e": "Ag"},
    "RSA with n as a number": lambda: OTHER | {"n": 65537},
    "RSA with n that is no base64": lambda: OTHER | {"n": "%%%"},
    "EC on a curve that no algorithm here has": lambda: public_jwk(ec.generate_private_key(ec.SECP384R1()), "x"),
    "EC on a curve of Bitcoin": lambda: public_jwk(throw_away_ec("other"), "x") | {"crv": "secp256k1"},
    "EC with a point beside the curve": lambda: public_jwk(throw_away_ec("other"), "x") | {"y": b64url(b"\1" * 32)},
    "X25519": lambda: {"kty": "OKP", "crv": "X25519", "kid": "x",
                       "x": b64url(x25519.X25519PrivateKey.generate().public_key().public_bytes_raw())},
    "kid is a number": lambda: OTHER | {"kid": 7},
    "kid is empty": lambda: OTHER | {"kid": ""},
    "kid with a line break": lambda: OTHER | {"kid": "a\nb"},
    "kty is a list": lambda: OTHER | {"kty": ["RSA"]},
    "text in place of a key": lambda: "rsa2",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Key size should be")
@pytest.mark.parametrize("sentence", LEFT_OUT)
def test_unusable_key_is_left_out_and_the_others_stay(sentence: str) -> None:
    entry = LEFT_OUT[sentence]()
    keys = parse_key_set(published(RSA, entry), algorithms=ALGORITHMS, fetched_at=NOW)
    assert list(keys.keys) == ["rsa1"]
    assert len(keys.left_out) == 1
    with pytest.raises(InvalidValue, match="no usable key"):
        parse_key_set(published(entry), algorithms=ALGORITHMS, fetched_at=NOW)


def test_two_keys_of_one_kid_are_both_left_out() -> None:
    keys = parse_key_set(published(RSA, OTHER, OTHER | {"n": RSA["n"]}), algorithms=ALGORITHMS, fetched_at=NOW)
    assert list(keys.keys) == ["rsa1"]
    third = parse_key_set(published(RSA, OTHER, OTHER | {"n": RSA["n"]}, OTHER), algorithms=ALGORITHMS, fetched_at=NOW)
    assert list(third.keys) == ["rsa1"]


def test_one_key_listed_twice_is_one_key() -> None:
    assert list(parse_key_set(published(RSA, RSA), algorithms=ALGORITHMS, fetched_at=NOW).keys) == ["rsa1"]


def test_a_key_without_kid_serves_only_alone_and_only_tokens_without() -> None:
    bare = public_jwk(throw_away_rsa("trusted"), None)
    alone = parse_key_set(published(bare), algorithms=ALGORITHMS, fetched_at=NOW)
    assert alone.find(None) is not None
    assert alone.find("rsa1") is None
    beside = parse_key_set(published(bare, OTHER), algorithms=ALGORITHMS, fetched_at=NOW)
    assert beside.find(None) is None
    assert beside.find("rsa2") is not None
    assert parse_key_set(published(RSA), algorithms=ALGORITHMS, fetched_at=NOW).find(None) is None


@pytest.mark.parametrize(
    "body",
    [{}, {"keys": []}, {"keys": {}}, {"keys": None}, {"keys": [RSA] * 101}],
    ids=["no keys", "empty", "object", "null", "101"],
)
def test_a_set_that_is_none_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        parse_key_set(body, algorithms=ALGORITHMS, fetched_at=NOW)


# ---- finding and refreshing --------------------------------------------------------------------------------------


def test_without_keys_a_refresh_is_asked_for_and_then_the_key_is_there(clock: HandClock) -> None:
    publisher = Publisher(MAKER.jwks())
    keys = key_cache(publisher, clock=clock)
    with pytest.raises(KeysNeeded) as needed:
        keys.find(ISSUER, "rsa1", clock())
    assert needed.value.issuer == ISSUER
    keys.refresh(ISSUER)
    assert keys.find(ISSUER, "rsa1", clock()).kid == "rsa1"
    assert publisher.asked == 1


def test_unknown_kid_refreshes_once_and_then_cools_down(clock: HandClock) -> None:
    publisher = Publisher(published(RSA))
    keys = key_cache(publisher, clock=clock)
    keys.refresh(ISSUER)
    clock.now += COOL_DOWN
    with pytest.raises(KeysNeeded):
        keys.find(ISSUER, "rsa2", clock())
    keys.refresh(ISSUER)
    assert refusal(keys, "rsa2", clock).reason is Reason.UNKNOWN_KEY
    keys.refresh(ISSUER)  # within the pause: the outcome stands
    clock.now += COOL_DOWN - timedelta(seconds=1)
    assert refusal(keys, "rsa2", clock).reason is Reason.UNKNOWN_KEY
    assert publisher.asked == 2
    clock.now += timedelta(seconds=1)
    with pytest.raises(KeysNeeded):
        keys.find(ISSUER, "rsa2", clock())


def test_the_pause_is_lengthened_at_random(clock: HandClock) -> None:
    keys = KeyCache({ISSUER: issuer_rules()}, None, clock, fetch=Publisher(published(RSA)), spread=lambda: 1.0)
    keys.refresh(ISSUER)
    clock.now += COOL_DOWN * 1.2
    assert refusal(keys, "rsa2", clock).reason is Reason.UNKNOWN_KEY
    clock.now += COOL_DOWN * 0.05
    with pytest.raises(KeysNeeded):
        keys.find(ISSUER, "rsa2", clock())


def test_a_pause_does_not_outlast_a_clock_that_is_set_back(clock: HandClock) -> None:
    publisher = Publisher(DOWN)
    keys = key_cache(publisher, clock=clock)
    with pytest.raises(SourceUnavailable):
        keys.refresh(ISSUER)
    clock.now -= timedelta(days=300)
    with pytest.raises(KeysNeeded):
        keys.find(ISSUER, "rsa1", clock())


def test_a_key_missing_from_a_good_refresh_dies_at_once(clock: HandClock) -> None:
    publisher = Publisher(published(RSA, OTHER))
    keys = key_cache(publisher, clock=clock)
    keys.refresh(ISSUER)
    publisher.jwks = published(OTHER)
    clock.now += COOL_DOWN
    keys.refresh(ISSUER)
    assert refusal(keys, "rsa1", clock).reason is Reason.UNKNOWN_KEY
    assert keys.find(ISSUER, "rsa2", clock()).kid == "rsa2"


@pytest.mark.filterwarnings("ignore:Key size should be")
@pytest.mark.parametrize(
    "answer",
    [DOWN, published(), {}, published(_small_rsa()), RuntimeError("a bug")],
    ids=["down", "empty", "no keys", "unusable", "a bug of ours"],
)
def test_a_failed_refresh_leaves_the_last_good_keys(clock: HandClock, answer: Any) -> None:
    publisher = Publisher(published(RSA))
    keys = key_cache(publisher, clock=clock)
    keys.refresh(ISSUER)
    publisher.jwks = answer
    clock.now += timedelta(days=1)
    with pytest.raises(SourceUnavailable):
        keys.refresh(ISSUER)
    assert keys.find(ISSUER, "rsa1", clock()).kid == "rsa1"
    assert keys.status(clock())[0].failure


def test_the_last_good_keys_count_until_usable_and_then_no_more(clock: HandClock) -> None:
    publisher = Publisher(published(RSA))
    keys = key_cache(publisher, clock=clock, usable_s=3600)
    keys.refresh(ISSUER)
    publisher.jwks = DOWN
    clock.now += timedelta(seconds=3599)
    with pytest.raises(SourceUnavailable):
        keys.refresh(ISSUER)
    assert keys.find(ISSUER, "rsa1", clock())
    clock.now += timedelta(seconds=1)
    refused = refusal(keys, "rsa1", clock)  # the pause after the failure still holds
    assert refused.reason is Reason.NO_KEYS
    assert "did not answer" in refused.detail
    clock.now += COOL_DOWN
    with pytest.raises(KeysNeeded):
        keys.find(ISSUER, "rsa1", clock())
    publisher.jwks = published(RSA)
    keys.refresh(ISSUER)
    assert keys.find(ISSUER, "rsa1", clock())


def test_due_names_issuers_whose_keys_are_old_or_missing(clock: HandClock) -> None:
    keys = key_cache(Publisher(published(RSA)), clock=clock, refresh_s=3600)
    assert keys.due(clock()) == (ISSUER,)
    keys.refresh(ISSUER)
    assert keys.due(clock() + timedelta(seconds=3599)) == ()
    assert keys.due(clock() + timedelta(seconds=3600)) == (ISSUER,)
    assert keys.due(clock() - timedelta(days=1)) == (ISSUER,)  # fetched in the future: the clock was set right since


def test_an_issuer_that_just_failed_is_not_due(clock: HandClock) -> None:
    keys = key_cache(Publisher(DOWN), clock=clock)
    with pytest.raises(SourceUnavailable):
        keys.refresh(ISSUER)
    assert keys.due(clock()) == ()
    assert keys.due(clock() + COOL_DOWN) == (ISSUER,)


def test_callers_at_the_same_time_share_one_fetch_and_its_outcome(clock: HandClock) -> None:
    asked, go, asking = [], threading.Event(), threading.Event()

    def fetch(_rules: IssuerRules) -> dict[str, Any]:
        asked.append(1)
        asking.set()
        assert go.wait(10)
        raise DOWN

    keys = key_cache(fetch, clock=clock)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(keys.refresh, ISSUER)
        assert asking.wait(10)
        with pytest.raises(KeysNeeded):  # a token that comes now may join the flight, whatever the pause says
            keys.find(ISSUER, "rsa1", clock())
        joined = [pool.submit(keys.refresh, ISSUER) for _ in range(19)]
        while sum(future.running() for future in joined) < 19:
            pass
        go.set()
        outcomes = [future.exception(10) for future in (first, *joined)]
    assert len(asked) == 1
    assert outcomes[0] is DOWN
    assert {outcome for outcome in outcomes if outcome is not None} == {DOWN}  # a latecomer finds the pause: None


# ---- on disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def kept(folder: Path, clock: HandClock) -> Path:
    """Give the file of a good refresh."""
    key_cache(Publisher(MAKER.jwks()), clock=clock, folder=folder).refresh(ISSUER)
    (file,) = folder.iterdir()
    return file


def start_again(folder: Path, clock: HandClock) -> KeyCache:
    return key_cache(Publisher(DOWN), clock=clock, folder=folder)


def is_warm(keys: KeyCache, clock: HandClock) -> bool:
    try:
        return keys.find(ISSUER, "rsa1", clock()).kid == "rsa1"
    except KeysNeeded:
        return False


def test_a_restart_needs_no_network(kept: Path, clock: HandClock) -> None:
    keys = start_again(kept.parent, clock)
    assert is_warm(keys, clock)
    status = keys.status(clock())[0]
    assert (status.kids, status.fetched_at, status.usable) == (("ec1", "rsa1"), NOW, True)


def test_the_file_holds_public_keys_and_only_the_owner_may_write_it(kept: Path) -> None:
    assert kept.stat().st_mode & 0o777 == 0o644
    record = json.loads(kept.read_text())
    assert record["issuer"] == ISSUER.url
    assert {name for key in record["keys"] for name in key} == {"kty", "kid", "n", "e", "crv", "x", "y"}
    assert [entry.name for entry in kept.parent.iterdir()] == [kept.name]


def test_keys_from_disk_age_from_their_fetch_not_from_the_start(kept: Path, clock: HandClock) -> None:
    clock.now += timedelta(days=3)
    assert not is_warm(start_again(kept.parent, clock), clock)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def instead(path: Path) -> Path:
    path.unlink()
    return path


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:200]),
    "no JSON": lambda path: path.write_bytes(b"\x00\xff" * 50),
    "of another issuer": lambda path: edit(path, issuer="https://other.example.org/"),
    "of another version": lambda path: edit(path, version=2),
    "from the future": lambda path: edit(path, fetched_at=NOW.timestamp() + 3600),
    "from no time": lambda path: edit(path, fetched_at="yesterday"),
    "from a time that is true": lambda path: edit(path, fetched_at=True),
    "from beyond all time": lambda path: edit(path, fetched_at=1e30),
    "without keys": lambda path: edit(path, keys=[]),
    "with a symmetric key": lambda path: edit(path, keys=[{"kty": "oct", "k": "eA", "kid": "rsa1"}]),
    "writable for all": lambda path: path.chmod(0o646),
    "writable for its group": lambda path: path.chmod(0o664),
    "in a folder that all may write": lambda path: path.parent.chmod(0o777),
    "a link": lambda path: path.symlink_to(path.rename(path.parent.parent / "x")),
    "a folder": lambda path: instead(path).mkdir(),
    "a pipe": lambda path: os.mkfifo(instead(path), 0o600),
    "too large": lambda path: path.write_text(path.read_text() + " " * 600_000),
}


@pytest.mark.parametrize("sentence", DAMAGE)
def test_a_file_that_cannot_be_believed_is_ignored_with_a_log_line(
    sentence: str, kept: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGE[sentence](kept)
    assert not is_warm(start_again(kept.parent, clock), clock)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(kept) in caplog.text
    assert "ignored" in caplog.text
    assert ("no plain file" in caplog.text) is (sentence in {"a folder", "a pipe"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_a_stranger_is_ignored(kept: Path, clock: HandClock) -> None:
    os.chown(kept, 65534, -1)
    assert not is_warm(start_again(kept.parent, clock), clock)
    os.chown(kept.parent, 65534, -1)  # in the service's own folder it is the service's own file
    assert is_warm(start_again(kept.parent, clock), clock)


def test_a_folder_that_is_a_link_is_not_used(tmp_path: Path, kept: Path, clock: HandClock) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept.parent)
    assert not is_warm(start_again(link, clock), clock)


def test_no_file_yet_is_no_reason_to_complain(folder: Path, clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    start_again(folder, clock)
    assert caplog.records == []


def test_a_disk_that_cannot_be_written_does_not_stop_a_refresh(
    tmp_path: Path, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    keys = key_cache(Publisher(MAKER.jwks()), clock=clock, folder=tmp_path / "file" / "keys")
    keys.refresh(ISSUER)
    assert is_warm(keys, clock)
    assert "not written" in caplog.text


def test_a_write_that_breaks_leaves_the_old_file_and_no_other(
    kept: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    clock.now += timedelta(hours=1)
    keys = key_cache(Publisher(published(RSA)), clock=clock, folder=kept.parent)
    keys.refresh(ISSUER)
    assert [(entry.name, entry.read_bytes()) for entry in kept.parent.iterdir()] == [(kept.name, before)]


def test_reload_takes_over_what_another_process_fetched_later(kept: Path, clock: HandClock) -> None:
    running = start_again(kept.parent, clock)
    assert running.reload() == ()
    clock.now += timedelta(minutes=1)
    key_cache(Publisher(published(OTHER)), clock=clock, folder=kept.parent).refresh(ISSUER)
    assert is_warm(running, clock)
    assert running.reload() == (ISSUER,)
    with pytest.raises(KeysNeeded):
        running.find(ISSUER, "rsa1", clock())
    assert running.find(ISSUER, "rsa2", clock()).kid == "rsa2"
    edit(kept, fetched_at=(NOW - timedelta(days=1)).timestamp())
    assert running.reload() == ()  # an older file, put back from a backup, revives no key


# ---- against the embedded IAM ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedIam]:
    with running_iam(EmbeddedIam(indigo_fixture(), key_pool="keys"), tmp_path_factory.mktemp("iam")) as iam:
        yield iam


def real_cache(served: ServedIam, clock: HandClock, **rules: Any) -> tuple[Issuer, KeyCache]:
    issuer = Issuer.parse(served.issuer)
    return issuer, KeyCache({issuer: issuer_rules(issuer=issuer, ca_file=served.ca_file, **rules)}, None, clock)


def test_rotation_is_followed_and_a_dropped_key_dies(served: ServedIam) -> None:
    clock = HandClock(utc_now())
    issuer, keys = real_cache(served, clock)
    keys.refresh(issuer)
    old = served.iam.keys.current.kid
    assert keys.find(issuer, old, clock())
    new = served.iam.rotate_keys(keep_old=False).kid
    clock.now += COOL_DOWN * 2
    with pytest.raises(KeysNeeded):
        keys.find(issuer, new, clock())
    keys.refresh(issuer)
    assert keys.find(issuer, new, clock())
    with pytest.raises(TokenRefused):
        keys.find(issuer, old, clock())


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_KEYS, FaultKind.WRONG_ISSUER, FaultKind.GARBAGE, FaultKind.HUGE_BODY,
                                  FaultKind.SERVER_ERROR, FaultKind.HANG, FaultKind.REDIRECT])  # fmt: skip
def test_no_fault_of_the_issuer_loses_the_last_good_keys(served: ServedIam, kind: FaultKind) -> None:
    clock = HandClock(utc_now())
    issuer, keys = real_cache(served, clock, timeout_s=0.5)
    keys.refresh(issuer)
    clock.now += COOL_DOWN * 2
    served.iam.fault(kind)
    try:
        with pytest.raises(SourceUnavailable):
            keys.refresh(issuer)
    finally:
        served.iam.clear_faults()
    assert keys.find(issuer, served.iam.keys.current.kid, clock())


def test_a_key_set_is_described_without_its_keys(clock: HandClock) -> None:
    keys = key_cache(Publisher(MAKER.jwks()), clock=clock)
    assert keys.status(clock())[0].usable is False
    keys.refresh(ISSUER)
    assert RSA["n"] not in repr(keys.status(clock()))
    assert isinstance(parse_key_set(MAKER.jwks(), algorithms=ALGORITHMS, fetched_at=NOW), KeySet)
