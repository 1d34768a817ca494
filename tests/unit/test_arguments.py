"""What people type: who, when and why, read strictly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from iam_bridge.cli.arguments import Who, parse_end, parse_moment, parse_past, parse_reason, parse_who
from iam_bridge.errors import InvalidValue
from tests.unit.build import NOW, subject

GOOD = [
    ("a name", "ada", Who(name="ada")),
    ("a number", "uid:20017", Who(uid=20017)),
    ("root's number", "uid:0", Who(uid=0)),
    ("a subject", "s-ada@https://iam.example.org/", Who(subject=subject())),
]


@pytest.mark.parametrize(("text", "who"), [g[1:] for g in GOOD], ids=[g[0] for g in GOOD])
def test_the_three_forms(text: str, who: Who) -> None:
    assert parse_who(text) == who
    assert str(who) == text


BAD = ["", " ", "20017", "uid:", "uid:-1", "uid: 1", "uid:1_0", "uid:4294967295", "uid:99999999999", "Ada", "a b", "a:b", "../x",
       "s@", "@https://iam.example.org/", "s@http://iam.example.org/", "s@https://iam.example.org/?q", "x\x00", "\u202eada"]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        parse_who(text)
    assert refused.value.hint or refused.value.message


MOMENTS = [
    ("a day is its end", "2026-05-03", datetime(2026, 5, 4, tzinfo=UTC)),
    ("a time of UTC", "2026-05-03T12:00Z", datetime(2026, 5, 3, 12, tzinfo=UTC)),
    ("with seconds", "2026-05-03T12:00:05Z", datetime(2026, 5, 3, 12, 0, 5, tzinfo=UTC)),
    ("with an offset", "2026-05-03 12:00+02:00", datetime(2026, 5, 3, 10, tzinfo=UTC)),
]


@pytest.mark.parametrize(("text", "moment"), [m[1:] for m in MOMENTS], ids=[m[0] for m in MOMENTS])
def test_moments(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment


NO_MOMENTS = ["", "now", "2026-5-3", "20260503", "2026-02-30", "2026-W18-7", "2026-05-03T12", "2026-05-03T12:00", "2026-05-03T25:00Z",
              "2026-05-03T12:00:00.5Z", "9999-12-31", "0000-01-01", "2026-05-03\n", "\u0662026-05-03"]  # fmt: skip


@pytest.mark.parametrize("text", NO_MOMENTS)
def test_what_could_be_misread_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_moment(text)


def test_an_end_is_a_date_or_a_duration_and_lies_ahead() -> None:
    assert parse_end("2h", NOW) == NOW + timedelta(hours=2)
    assert parse_end("7d", NOW) == NOW + timedelta(days=7)
    assert parse_end("2026-05-03", NOW) == datetime(2026, 5, 4, tzinfo=UTC)
    for text in ("0s", "2026-05-02", "2026-05-03T12:00Z", "999999999d", "7", "", "-1d"):
        with pytest.raises(InvalidValue):
            parse_end(text, NOW)


def test_a_past_moment_is_not_ahead_but_today_counts() -> None:
    assert parse_past(None, NOW) == NOW
    assert parse_past("2026-05-03", NOW) == NOW
    assert parse_past("2026-05-02", NOW) == datetime(2026, 5, 3, tzinfo=UTC)
    for text in ("2026-05-04", "2026-05-03T12:01Z"):
        with pytest.raises(InvalidValue):
            parse_past(text, NOW)


def test_a_reason_is_one_short_line() -> None:
    assert parse_reason("  key found ") == "key found"
    for text in ("a\nb", "\x1b[2J", "x" * 201, "\u202e"):
        with pytest.raises(InvalidValue):
            parse_reason(text)
