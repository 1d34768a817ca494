"""A member snapshot as lines of JSON, for the pipe between the unprivileged pull and root; pure in both directions.

One line each: a head, the groups, the members (their groups as places in that list), an end that counts the members.
No object and no deeper nesting than two lists occurs, no line is longer than 1 MiB, every line is checked before the
next is looked at: what a hostile writer can make the reader hold is bounded by what the reader lets through the pipe.
The issuer of a subject is not written at all: a writer cannot speak about another issuer's people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, parse_group_path
from iam_bridge.model.record import parse_attributes, parse_member, parse_text, show

FORMAT = "iam-bridge-members/1"
LINE_MAX = 1 << 20
DEPTH_MAX = 2
REASON_MAX = 500

_encode = json.JSONEncoder(separators=(",", ":")).encode
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_GROUPS: frozenset[str] = frozenset()


def _line(value: list[object]) -> bytes:
    text = _encode(value)
    if len(text) >= LINE_MAX:
        raise InvalidValue("a member's record is longer than a snapshot can carry")
    return text.encode("ascii") + b"\n"


def _pairs(member: Member) -> list[str]:
    return [text for pair in member.attributes.items() for text in pair]


def write_lines(snapshot: MemberSnapshot) -> Iterator[bytes]:
    """Write a snapshot; raise InvalidValue where a member is another issuer's or a group is not in the listing."""
    places = {path: place for place, path in enumerate(sorted(snapshot.groups))}
    known: dict[frozenset[str], list[int]] = {}
    yield _line([FORMAT, snapshot.issuer.url, len(places)])
    for path in places:
        yield _line([path])
    for member in snapshot.members:
        if member.subject.issuer != snapshot.issuer:
            raise InvalidValue(f"the source of {snapshot.issuer} lists a subject of {member.subject.issuer}")
        if member.groups not in known:
            if missing := sorted(member.groups - snapshot.groups):
                raise InvalidValue(f"a member is in the group {show(missing[0])}, which the source does not list")
            known[member.groups] = sorted(places[path] for path in member.groups)
        yield _line(
            [
                member.subject.sub,
                member.username,
                member.active,
                member.created.isoformat(),
                known[member.groups],
                _pairs(member),
            ]
        )
    reason = show(snapshot.reason, REASON_MAX)
    yield _line(["end", len(snapshot.members), snapshot.complete, reason, snapshot.requests])


def _depth_of(text: str) -> int:
    """Count how deep brackets nest outside strings."""
    depth = deepest = 0
    for char in _STRING.sub("", text):
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def _values(line: bytes) -> list[object]:
    """Read one line as a list; the cheap count first, since a normal line has three brackets and no braces."""
    if len(line) > LINE_MAX or not line.endswith(b"\n"):
        raise InvalidValue("a line of the snapshot is too long or cut off")
    try:
        text = line.decode("ascii")
        if (text.count("[") > 3 or "{" in text) and _depth_of(text) > DEPTH_MAX:
            raise InvalidValue("a line of the snapshot nests too deep")
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue("a line of the snapshot is no JSON") from error
    if not isinstance(values, list):
        raise InvalidValue("a line of the snapshot is no list")
    return values


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidValue("a number in the snapshot is none")
    return value


class _Reader:
    """Reads members against the groups of the head; equal memberships share one set."""

    def __init__(self, issuer: Issuer, groups: list[str], trusted: frozenset[str]) -> None:
        self._issuer = issuer
        self._groups = groups
        self._trusted = trusted
        self._sets: dict[tuple[object, ...], frozenset[str]] = {(): _NO_GROUPS}
        self._seen: set[str] = set()

    def _membership(self, places: object) -> frozenset[str]:
        if not isinstance(places, list):
            raise InvalidValue("the groups of a member are no list")
        if any(type(place) is not int for place in places):  # a bool or a float would be equal to an int as a key
            raise InvalidValue("a group of a member is no place in the list")
        key = tuple(places)
        if key not in self._sets:
            if not all(0 <= place < len(self._groups) for place in places):
                raise InvalidValue("a member is in a group that is not listed")
            self._sets[key] = frozenset(self._groups[place] for place in places)
        return self._sets[key]

    def read(self, values: list[object]) -> Member:
        """Read one member's line."""
        if len(values) != 6:
            raise InvalidValue("a member's line has the wrong number of fields")
        sub, username, active, created, places, pairs = values
        if not isinstance(pairs, list) or len(pairs) % 2:
            raise InvalidValue("the attributes of a member are no pairs")
        member = parse_member(
            self._issuer,
            sub=sub,
            username=username,
            active=active,
            created=created,
            groups=self._membership(places),
            attributes=parse_attributes(zip(pairs[::2], pairs[1::2], strict=True), self._trusted),
        )
        if member.subject.sub in self._seen:
            raise InvalidValue(f"the subject {show(member.subject.sub)} comes twice")
        self._seen.add(member.subject.sub)
        return member


def _parse_groups(lines: Iterator[bytes], count: int) -> list[str]:
    groups: list[str] = []
    for _ in range(count):
        values = _next(lines)
        if len(values) != 1:
            raise InvalidValue("a group's line has the wrong number of fields")
        groups.append(parse_group_path(parse_text(values[0], "a group")))
    if len(set(groups)) != len(groups):
        raise InvalidValue("a group is listed twice")
    return groups


def _next(lines: Iterator[bytes]) -> list[object]:
    line = next(lines, None)
    if line is None:
        raise InvalidValue("the snapshot ends in the middle")
    return _values(line)


def parse_lines(
    lines: Iterable[bytes], *, issuer: Issuer, trusted: frozenset[str], taken_at: datetime
) -> MemberSnapshot:
    """Read a snapshot of exactly this issuer; raise InvalidValue for anything else, and for anything after its end.

    `taken_at` is the reader's own time, since a writer could claim one that never grows old.
    """
    rest = iter(lines)
    head = _next(rest)
    if len(head) != 3 or head[0] != FORMAT:
        raise InvalidValue("this is no member snapshot of this version")
    if head[1] != issuer.url:
        raise InvalidValue(f"the snapshot is of {show(head[1])}, not of {issuer}")
    groups = _parse_groups(rest, _count(head[2]))
    reader = _Reader(issuer, groups, trusted)
    members: list[Member] = []
    while (values := _next(rest))[:1] != ["end"] or len(values) != 5:
        members.append(reader.read(values))
    _, count, complete, reason, requests = values
    if _count(count) != len(members):
        raise InvalidValue(f"the snapshot says {count} members and holds {len(members)}")
    if not isinstance(complete, bool) or not isinstance(reason, str) or complete == bool(reason):
        raise InvalidValue("the snapshot is complete with a reason against it, or incomplete without one")
    if complete and not members:
        raise InvalidValue("the snapshot calls an empty list complete")
    if next(rest, None) is not None:
        raise InvalidValue("something follows the end of the snapshot")
    shown = show(reason, REASON_MAX)
    return MemberSnapshot(issuer, tuple(members), frozenset(groups), taken_at, complete, shown, _count(requests))
