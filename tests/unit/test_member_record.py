"""Fields of a person's record: what becomes a value and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import Issuer
from iam_bridge.model.record import parse_attributes, parse_created, parse_member, parse_text, show

ISSUER = Issuer("https://iam.example.org/")
MOMENT = datetime(2026, 1, 21, 14, 30, 36, 508000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-21T15:30:36.508+01:00",
        "2026-01-21T14:30:36.508Z",
        "2026-01-21T14:30:36.508+0000",
        "2026-01-21T20:00:36.508+05:30",
        "2026-01-21T14:30:36.508000123Z",
        "2026-01-21T14:30:36.508000+00:00",
    ],
)
def test_a_creation_time_is_read_in_every_form_that_java_writes(text: str) -> None:
    assert parse_created(text) == MOMENT
    assert parse_created(text).tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        1737470000,
        True,
        "2026-01-21",
        "2026-01-21T14:30:36",
        "yesterday",
        "0001-01-01T00:00:00+01:00",
        "2" * 41,
    ],
)
def test_a_creation_time_without_meaning_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match="the creation time"):
        parse_created(value)


@pytest.mark.parametrize("value", ["a", "é", "😀", "n" * 1024, "two\nlines"])
def test_text_that_can_be_stored_is_kept_as_it_is(value: str) -> None:
    assert parse_text(value, "it") == value


@pytest.mark.parametrize("value", [None, "", 5, [], "n" * 1025, "\ud800", "a\udcffb"])
def test_text_that_cannot_be_stored_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"^it "):
        parse_text(value, "it")


def test_no_attribute_is_kept_that_is_not_trusted() -> None:
    assert parse_attributes([("uid", "0"), ("gid", {})], frozenset()) == {}
    assert parse_attributes([("uid", "0"), ("gid", {})], frozenset({"uid"})) == {"uid": "0"}


@pytest.mark.parametrize("pairs", [[("uid", "1"), ("uid", "1")], [(None, "1")], [("uid", None)], [("uid", "")]])
def test_attributes_without_meaning_are_refused(pairs: list[tuple[object, object]]) -> None:
    with pytest.raises(InvalidValue):
        parse_attributes(pairs, frozenset({"uid"}))


@pytest.mark.parametrize("active", [None, 1, 0, "true", []])
def test_active_is_a_truth_value_or_the_record_is_refused(active: object) -> None:
    with pytest.raises(InvalidValue, match="`active`"):
        parse_member(
            ISSUER,
            sub="s1",
            username="ada",
            active=active,
            created="2026-01-21T14:30:36Z",
            groups=frozenset(),
            attributes={},
        )


@pytest.mark.parametrize(
    ("value", "shown"),
    [("plain", "plain"), ("a\nb\x1b[2J", "a?b?[2J"), ("é", "?"), (None, "NoneType"), ("n" * 100, "n" * 80 + "...")],
)
def test_hostile_text_is_shown_on_one_line(value: object, shown: str) -> None:
    assert show(value) == shown
