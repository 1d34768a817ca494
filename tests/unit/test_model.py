"""Values that cannot be wrong: what they refuse to be built from, and what they refuse to show."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import BridgeError, Exit, InvalidValue, Reason, SettingsError, TokenRefused
from iam_bridge.model.account import GroupName, IdRange, LockReason, UserName, lock_words
from iam_bridge.model.change import Cause, CreateGroup, JoinGroup, LeaveGroup, Plan, count_kinds, in_order, key_of
from iam_bridge.model.identity import Issuer, Subject, parse_group_path
from iam_bridge.model.token import AccessToken
from tests.unit.build import GPU, ISSUER, USERS, account, subject

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
CAUSE = Cause("a rule", "a record")


@pytest.mark.parametrize(
    "text",
    [
        None, 5, "", "http://iam.example.org/", "file:///etc/passwd", "https://", "https:///path", "HTTPS //x", "https://iam example.org/",
        "https://iam.example.org/?a=b", "https://iam.example.org/#x", "https://user@iam.example.org/", "https://iam.example.org/?",
        "https://iam.example.org:0/", "https://iam.example.org:99999/", "https://[::1/", "https://iam.example.org/\n", "https://іam.example.org/",
        "https://x/" + "a" * 300,
    ],
)  # fmt: skip
def test_what_is_no_issuer(text: object) -> None:
    with pytest.raises(InvalidValue):
        Issuer.parse(text)


@pytest.mark.parametrize(
    ("configured", "written", "same"),
    [
        ("https://iam.example.org/", "https://iam.example.org/", True),
        ("https://iam.example.org/", "https://iam.example.org", True),
        ("https://iam.example.org", "https://iam.example.org/", True),
        ("https://iam.example.org/", "https://iam.example.org//", False),
        ("https://iam.example.org", "https://iam.example.org//", False),
        ("https://iam.example.org/", "https://IAM.example.org/", False),
        ("https://iam.example.org/", "https://iam.example.org:443/", False),
        ("https://iam.example.org/", "https://iam.example.org/x", False),
        ("https://iam.example.org/", "", False),
        ("https://iam.example.org/", None, False),
        ("https://iam.example.org/", ["https://iam.example.org/"], False),
    ],
)
def test_an_issuer_differs_by_one_final_slash_at_most(configured: str, written: object, same: bool) -> None:
    assert Issuer.parse(configured).matches(written) is same
    assert str(Issuer.parse(configured)) == configured


@pytest.mark.parametrize("sub", [None, 5, "", "a" * 256, "a b", "a\nb", "é", "\x00"])
def test_what_is_no_subject(sub: object) -> None:
    with pytest.raises(InvalidValue):
        Subject.parse(ISSUER, sub)


def test_a_subject_is_written_and_read_back() -> None:
    for sub in ("s-ada", "a@b", "x" * 255):
        assert Subject.parse_text(str(subject(sub))) == subject(sub)
    for text in ("ada", "ada@http://iam.example.org/", "@https://iam.example.org/", "ada@https://"):
        with pytest.raises(InvalidValue):
            Subject.parse_text(text)


@pytest.mark.parametrize("text", [None, 5, "", "/", "//a", "a//b", "a/ /b", "a\nb", "x" * 513])
def test_what_is_no_group_path(text: object) -> None:
    with pytest.raises(InvalidValue):
        parse_group_path(text)


def test_a_group_path_has_no_leading_slash() -> None:
    assert parse_group_path("/A/B") == parse_group_path("A/B") == "A/B"


@given(st.text(max_size=40) | st.integers())
def test_names_are_what_the_pattern_says_or_refused(text: object) -> None:
    for kind in (UserName, GroupName):
        try:
            name = kind.parse(text)
        except InvalidValue:
            continue
        assert str(name) == text
        assert str(name)[0].islower()
        assert str(name).isascii()


@pytest.mark.parametrize(
    ("low", "high"),
    [(1000, 999), (0, 10), (999, 2000), (1000, 60000), (60000, 64999), (65534, 65534), (524288, 600000), (20000, 2**32), (True, 5), ("1000", 2000), (1000, None)],
)  # fmt: skip
def test_what_is_no_id_range(low: object, high: object) -> None:
    with pytest.raises(InvalidValue):
        IdRange.parse(low, high)


def test_an_id_range_holds_both_ends() -> None:
    ids = IdRange.parse(20000, 20009)
    assert 20000 in ids
    assert 20009 in ids
    assert 20010 not in ids
    assert "20000" not in ids
    assert ids.overlaps(IdRange.parse(20009, 20010))
    assert not ids.overlaps(IdRange.parse(20010, 20011))


def test_a_token_shows_its_fingerprint_only() -> None:
    token = AccessToken(TOKEN)
    for shown in (str(token), repr(token), f"{token}", f"{token:>80}", f"{[token]}", "%s" % token):  # noqa: UP031 that form too
        assert "eyJ" not in shown
        assert token.fingerprint in shown
    assert token.reveal() == TOKEN
    assert len(token) == len(TOKEN)
    assert token == AccessToken(TOKEN)
    assert token != TOKEN
    assert hash(token) == hash(AccessToken(TOKEN))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(token)


def test_a_token_of_any_bytes_has_a_fingerprint() -> None:
    assert len(AccessToken("\udcff\x00").fingerprint) == 16


def test_an_account_is_open_while_no_lock_holds() -> None:
    assert account().is_open
    assert not account(locks=(LockReason.IDLE,)).is_open
    assert lock_words({LockReason.LEFT, LockReason.ADMIN}) == "admin,left"


def test_changes_are_ordered_named_and_counted() -> None:
    person = (subject(), UserName.parse("ada"), 20000)
    group, join, leave = (
        CreateGroup(USERS, 30000, CAUSE),
        JoinGroup(*person, USERS, CAUSE),
        LeaveGroup(*person, GPU, CAUSE),
    )
    assert in_order([leave, join, group]) == (group, join, leave)
    assert key_of(group) == ("group:hpcusers", "create-group", "")
    assert key_of(join) == ("20000", "join", "hpcusers")
    assert count_kinds([join, group, join]) == {"create-group": 1, "join": 2}
    assert Plan((group,))
    assert not Plan(())


def test_every_error_says_what_to_do_and_how_to_exit() -> None:
    error = BridgeError("it broke", hint="mend it")
    assert (str(error), error.exit_status) == ("it broke; mend it", Exit.FAILED)
    assert str(BridgeError("it broke")) == "it broke"
    assert SettingsError("bad", problems=("a", "b")).exit_status is Exit.USAGE
    refused = TokenRefused(Reason.EXPIRED, "5 s ago")
    assert (str(refused), refused.exit_status) == ("token refused: expired (5 s ago)", Exit.REFUSED)
