"""The text that crosses from the unprivileged pull to root: whole in both directions, and deaf to hostile writers."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from iam_bridge.model.snapshot_text import DEPTH_MAX, FORMAT, LINE_MAX, parse_lines, write_lines

ISSUER = Issuer("https://iam.example.org/")
OTHER = Issuer("https://other.example.org/")
NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
CREATED = "2026-01-21T14:30:36.508000+00:00"
TRUSTED = frozenset({"uid"})
GROUPS = frozenset({"hpc", "hpc/users"})


def make_member(sub: str = "s1", **fields: Any) -> Member:
    given_fields: dict[str, Any] = {
        "subject": Subject(ISSUER, sub),
        "username": "ada",
        "active": True,
        "created": datetime.fromisoformat(CREATED),
        "groups": GROUPS,
        "attributes": {},
        **fields,
    }
    return Member(**given_fields)


def make_snapshot(*members: Member, **fields: Any) -> MemberSnapshot:
    return replace(MemberSnapshot(ISSUER, members, GROUPS, NOW, True, "", 7), **fields)


def parse(lines: list[bytes], trusted: frozenset[str] = TRUSTED) -> MemberSnapshot:
    return parse_lines(lines, issuer=ISSUER, trusted=trusted, taken_at=NOW)


def written(*lines: Any) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


HEAD = [FORMAT, ISSUER.url, 1]
ROW = ["s1", "ada", True, CREATED, [0], []]
END = ["end", 1, True, "", 7]


def test_a_snapshot_comes_back_as_it_was() -> None:
    snapshot = make_snapshot(
        make_member("s1", attributes={"uid": "20001"}),
        make_member("s2", active=False, groups=frozenset(), username="two\nlines: é [{"),
        make_member("end", groups=frozenset({"hpc"})),
    )
    assert parse(list(write_lines(snapshot))) == snapshot


def test_an_incomplete_snapshot_keeps_its_reason() -> None:
    snapshot = make_snapshot(complete=False, reason="the pull broke off", members=(), groups=frozenset())
    assert parse(list(write_lines(snapshot))) == snapshot


texts = st.text(min_size=1, max_size=20).filter(
    lambda text: text.isascii() or text.encode("utf-8", "ignore").decode() == text
)
people = st.builds(
    make_member,
    sub=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    username=texts,
    active=st.booleans(),
    created=st.datetimes(timezones=st.just(UTC)),
    groups=st.frozensets(st.sampled_from(sorted(GROUPS))),
    attributes=st.dictionaries(st.sampled_from(sorted(TRUSTED)), texts),
)


@given(st.lists(people, min_size=1, max_size=5, unique_by=lambda member: member.subject))
def test_every_snapshot_comes_back_as_it_was(members: list[Member]) -> None:
    snapshot = make_snapshot(*members)
    assert parse(list(write_lines(snapshot))) == snapshot


def test_the_smallest_text_is_read() -> None:
    assert parse(written(HEAD, ["hpc"], ROW, END)).members == (make_member(groups=frozenset({"hpc"})),)


def test_attributes_that_are_not_trusted_do_not_cross() -> None:
    text = written(HEAD, ["hpc"], [*ROW[:5], ["uid", "0"]], END)
    assert parse(text).members[0].attributes == {"uid": "0"}
    assert parse(text, trusted=frozenset()).members[0].attributes == {}


def row(**changes: Any) -> list[Any]:
    fields = dict(zip(("sub", "username", "active", "created", "groups", "attributes"), ROW, strict=True))
    return list({**fields, **changes}.values())


DEEP = b"[" * 100_000 + b"]" * 100_000 + b"\n"
HOSTILE: tuple[tuple[str, list[bytes], str], ...] = (
    ("nothing at all", [], "ends in the middle"),
    ("no end", written(HEAD, ["hpc"], ROW), "ends in the middle"),
    ("fewer groups than promised", written([FORMAT, ISSUER.url, 2], ["hpc"]), "ends in the middle"),
    ("another version", written(["iam-bridge-members/2", ISSUER.url, 0], END), "no member snapshot of this version"),
    ("a short head", written([FORMAT, ISSUER.url], END), "no member snapshot of this version"),
    ("another issuer", written([FORMAT, OTHER.url, 0], END), "is of https://other.example.org/, not of"),
    ("an issuer without its slash", written([FORMAT, ISSUER.url[:-1], 0], END), "not of"),
    ("an issuer that is no text", written([FORMAT, [], 0], END), "is of list, not of"),
    ("groups counted in text", written([FORMAT, ISSUER.url, "1"]), "a number in the snapshot is none"),
    ("groups counted below none", written([FORMAT, ISSUER.url, -1]), "a number in the snapshot is none"),
    ("groups counted by a truth", written([FORMAT, ISSUER.url, True]), "a number in the snapshot is none"),
    ("a group twice", written([FORMAT, ISSUER.url, 2], ["hpc"], ["hpc"]), "a group is listed twice"),
    ("a group's line with more", written(HEAD, ["hpc", "x"]), "wrong number of fields"),
    ("a group with a line break", written(HEAD, ["h\npc"]), "group path"),
    ("a group that is no text", written(HEAD, [5]), "a group is missing or no text"),
    ("a row with more fields", written(HEAD, ["hpc"], [*ROW, 1]), "wrong number of fields"),
    ("an empty row", written(HEAD, ["hpc"], []), "wrong number of fields"),
    ("a subject with a space", written(HEAD, ["hpc"], row(sub="a b")), "the subject"),
    ("a subject that is a number", written(HEAD, ["hpc"], row(sub=5)), "the subject"),
    ("the same subject twice", written(HEAD, ["hpc"], ROW, ROW, ["end", 2, True, "", 1]), "the subject s1 comes twice"),
    ("a user name that is a list", written(HEAD, ["hpc"], row(username=["a"])), "the user name"),
    ("a user name of half a character", written(HEAD, ["hpc"], row(username="\ud800")), "no Unicode text"),
    ("a user name without end", written(HEAD, ["hpc"], row(username="n" * 1025)), "longer than 1024"),
    ("active as a number", written(HEAD, ["hpc"], row(active=1)), "`active` is neither"),
    ("created without an offset", written(HEAD, ["hpc"], row(created="2026-01-21T14:30:36")), "no offset"),
    ("created as a number", written(HEAD, ["hpc"], row(created=5)), "creation time"),
    ("created as a song", written(HEAD, ["hpc"], row(created="la la")), "is no time"),
    ("groups as text", written(HEAD, ["hpc"], row(groups="0")), "no list"),
    ("a group out of the list", written(HEAD, ["hpc"], row(groups=[1])), "not listed"),
    ("a group before the list", written(HEAD, ["hpc"], row(groups=[-1])), "not listed"),
    ("a group as a truth", written(HEAD, ["hpc"], row(groups=[False])), "no place in the list"),
    ("a group as a list", written(HEAD, ["hpc"], row(groups=[[0]])), "nests too deep"),
    ("attributes as text", written(HEAD, ["hpc"], row(attributes="ab")), "no pairs"),
    ("attributes that are odd", written(HEAD, ["hpc"], row(attributes=["uid"])), "no pairs"),
    ("an attribute twice", written(HEAD, ["hpc"], row(attributes=["uid", "1", "uid", "2"])), "comes twice"),
    ("an attribute without a name", written(HEAD, ["hpc"], row(attributes=[5, "1"])), "name of an attribute"),
    ("an attribute as an object", written(HEAD, ["hpc"], row(attributes=["uid", {}])), "nests too deep"),
    (
        "a count of members that is wrong",
        written(HEAD, ["hpc"], ROW, ["end", 2, True, "", 7]),
        "says 2 members and holds 1",
    ),
    ("complete with a reason", written(HEAD, ["hpc"], ROW, ["end", 1, True, "but", 7]), "complete with a reason"),
    ("incomplete without one", written(HEAD, ["hpc"], ROW, ["end", 1, False, "", 7]), "incomplete without one"),
    ("complete as a number", written(HEAD, ["hpc"], ROW, ["end", 1, 1, "", 7]), "complete with a reason"),
    ("a reason as a number", written(HEAD, ["hpc"], ROW, ["end", 1, False, 5, 7]), "complete with a reason"),
    ("requests as text", written(HEAD, ["hpc"], ROW, ["end", 1, True, "", "7"]), "a number in the snapshot is none"),
    ("nobody, and complete", written([FORMAT, ISSUER.url, 0], ["end", 0, True, "", 7]), "calls an empty list complete"),
    ("something after the end", written(HEAD, ["hpc"], ROW, END, ROW), "something follows the end"),
    ("a line that is cut off", [*written(HEAD, ["hpc"]), b'["s1","ada"'], "too long or cut off"),
    ("a line that is too long", [b"[" + b" " * LINE_MAX + b"]\n"], "too long or cut off"),
    ("a line that is no JSON", [b"[1\n"], "no JSON"),
    ("a line that is no ASCII", ['["é"]\n'.encode()], "no JSON"),
    ("a line that is an object", [b"{}\n"], "no list"),
    ("a line that is a number", [b"5\n"], "no list"),
    ("a number without end", [b"[" + b"9" * 5000 + b"]\n"], "no JSON"),
    ("lists in lists in lists", [b"[[[[]]]]\n"], "nests too deep"),
    ("objects in lists in lists", [b'[[{"a":1}]]\n'], "nests too deep"),
    ("brackets without end", [DEEP], "nests too deep"),
)


@pytest.mark.parametrize(("sentence", "lines", "why"), HOSTILE, ids=[case[0] for case in HOSTILE])
def test_a_hostile_text_is_refused(sentence: str, lines: list[bytes], why: str) -> None:
    with pytest.raises(InvalidValue, match=why):
        parse(lines)


@given(st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"") + b"\n"), max_size=5))
def test_no_bytes_bring_the_reader_down(lines: list[bytes]) -> None:
    with pytest.raises(InvalidValue):
        parse(lines)


def test_brackets_inside_text_do_not_count_as_depth() -> None:
    name = '[[[[{{{{"\\' * 5
    assert parse(written(HEAD, ["hpc"], row(username=name), END)).members[0].username == name
    assert DEPTH_MAX == 2


def test_a_subject_of_another_issuer_is_not_written() -> None:
    stranger = make_member(subject=Subject(OTHER, "s1"))
    with pytest.raises(InvalidValue, match=r"lists a subject of https://other\.example\.org/"):
        list(write_lines(make_snapshot(stranger)))


def test_a_group_that_the_source_does_not_list_is_not_written() -> None:
    with pytest.raises(InvalidValue, match="is in the group hpc/gpu, which the source does not list"):
        list(write_lines(make_snapshot(make_member(groups=frozenset({"hpc/gpu"})))))


def test_a_record_too_long_for_a_line_is_not_written() -> None:
    with pytest.raises(InvalidValue, match="longer than a snapshot can carry"):
        list(write_lines(make_snapshot(make_member(username="n" * LINE_MAX))))
