"""Members from a file, YAML or JSON, for sites without SCIM.

The file grants access, so it must be as safe as the settings: a plain file, of root or of whoever runs this, that its
owner alone can write. It is opened when the source is made (root may be needed for that) and understood when people
are asked for (which an unprivileged child does).
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from iam_bridge.errors import InvalidValue, SettingsError, SourceUnavailable
from iam_bridge.iam.strict_json import parse_json_object
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, parse_group_path
from iam_bridge.model.record import parse_attributes, parse_member, parse_text, show
from iam_bridge.model.rules import SourceRules
from iam_bridge.ports import Clock
from iam_bridge.strict_yaml import Node, load

BYTES_MAX = 64 * 1024 * 1024
PROBLEMS_SHOWN = 20
_FILE_KEYS = frozenset({"version", "count", "groups", "people"})
_PERSON_KEYS = frozenset({"sub", "username", "active", "created", "groups", "attributes"})
_PERSON_OPTIONAL = frozenset({"attributes"})


def read_people_file(path: Path) -> bytes:
    """Read the file whole.

    Raises SettingsError where others could write it, and SourceUnavailable where it is missing, unreadable or larger
    than 64 MiB.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check_safe(path, os.fstat(file.fileno()))
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise SourceUnavailable(f"the people file {path} cannot be read: {error.strerror}") from error
    if len(raw) > BYTES_MAX:
        raise SourceUnavailable(f"the people file {path} is larger than {BYTES_MAX} bytes")
    return raw


def _check_safe(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"the people file {path} is no plain file")
    if found.st_uid not in (0, os.geteuid()):
        raise SettingsError(f"the people file {path} belongs to uid {found.st_uid}", hint=f"chown root {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError(f"the people file {path} can be written by others", hint=f"chmod go-w {path}")


class FileMembers:
    """A MemberSource over the text of one people file."""

    def __init__(self, rules: SourceRules, *, raw: bytes, clock: Clock) -> None:
        self._rules = rules
        self._raw = raw
        self._clock = clock

    @property
    def issuer(self) -> Issuer:
        """Give the issuer whose subjects the file lists."""
        return self._rules.issuer

    def fetch_members(self) -> MemberSnapshot:
        """Read everybody; raise SettingsError with every problem of the file and its place."""
        name = str(self._rules.file)
        people = _PeopleFile(self._rules, *_parse(name, self._raw))
        members, groups = people.read()
        if people.problems:
            shown = tuple(people.problems[:PROBLEMS_SHOWN])
            more = len(people.problems) - len(shown)
            raise SettingsError(
                f"the people file {name} cannot be believed: {'; '.join(shown)}"
                + (f"; and {more} more" if more else ""),
                problems=tuple(people.problems),
            )
        missing = sorted(rule.iam for rule in self._rules.groups if rule.iam not in groups)
        reason = ""
        if not members:
            reason = f"the people file {name} lists no people at all, which is never taken for the truth"
        elif missing:
            reason = f"the group {show(missing[0])} of the settings is not among the {len(groups)} groups of {name}"
        return MemberSnapshot(self.issuer, members, groups, self._clock(), not reason, reason)


def _parse(name: str, raw: bytes) -> tuple[object, dict[int, int]]:
    """Read JSON or YAML as plain values, and the lines of YAML values by identity of the value's place.

    A YAML list that was cut off between two lines is a YAML list: the last line must at least be whole.
    """
    try:
        if name.endswith(".json"):
            return parse_json_object(raw), {}
        if not raw.endswith(b"\n"):
            raise InvalidValue("the last line is cut off: a whole file ends with a newline")
        root = load(raw.decode())
    except UnicodeDecodeError as error:
        raise SettingsError(f"the people file {name} is no UTF-8 text") from error
    except InvalidValue as error:
        where = _line_of_json(raw) if name.endswith(".json") else ""
        raise SettingsError(f"the people file {name} cannot be read: {where}{error.message}") from error
    lines: dict[int, int] = {}
    listed = root.value.get("people") if isinstance(root.value, dict) else None
    if listed is not None and isinstance(listed.value, list):
        lines = {place: node.line for place, node in enumerate(listed.value)}
    return _plain(root), lines


def _line_of_json(raw: bytes) -> str:
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: "
    except (ValueError, RecursionError):
        pass
    return ""


def _plain(node: Node) -> object:
    value = node.value
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value


@dataclass(slots=True)
class _PeopleFile:
    """Reads the parsed file against its schema and collects what is wrong; `lines` are those of people, where known."""

    rules: SourceRules
    root: object
    lines: dict[int, int]
    problems: list[str] = field(default_factory=list)
    _sets: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def read(self) -> tuple[tuple[Member, ...], frozenset[str]]:
        """Read members and groups; what is found to be wrong is in `problems` afterwards."""
        if not isinstance(self.root, dict):
            self.problems.append("the file must be a mapping with version, groups and people")
            return (), frozenset()
        root = self.root
        self._check_keys(root, "", _FILE_KEYS, optional=frozenset({"count"}))
        if "version" in root and (root["version"] != 1 or isinstance(root["version"], bool)):
            self.problems.append("version: must be 1")
        groups = self._groups(root.get("groups", []))
        people = root.get("people", [])
        if not isinstance(people, list):
            self.problems.append("people: must be a list")
            return (), groups
        count = root.get("count", len(people))
        if count != len(people) or isinstance(count, bool):
            self.problems.append(f"count: says {show(str(count), 20)}, and {len(people)} people are listed")
        members = [self._person(place, entry, groups) for place, entry in enumerate(people)]
        return tuple(member for member in members if member is not None), groups

    def _check_keys(
        self, found: dict[str, object], where: str, known: frozenset[str], optional: frozenset[str]
    ) -> bool:
        wrong = [f"{where}{show(key)} is no key that we know here" for key in found if key not in known]
        wrong += [f"{where}{key} is missing" for key in sorted(known - optional - found.keys())]
        self.problems += wrong
        return not wrong

    def _groups(self, listed: object) -> frozenset[str]:
        if not isinstance(listed, list):
            self.problems.append("groups: must be a list of group paths")
            return frozenset()
        paths: set[str] = set()
        for place, text in enumerate(listed):
            try:
                path = parse_group_path(parse_text(text, "the group"))
                if path in paths:
                    raise InvalidValue(f"{show(path)} is listed twice")
                paths.add(path)
            except InvalidValue as error:
                self.problems.append(f"groups[{place}]: {error.message}")
        return frozenset(paths)

    def _at(self, place: int) -> str:
        return f"line {self.lines[place]}: people[{place}]" if place in self.lines else f"people[{place}]"

    def _person(self, place: int, entry: object, groups: frozenset[str]) -> Member | None:
        if not isinstance(entry, dict):
            self.problems.append(f"{self._at(place)}: must be a mapping")
            return None
        if not self._check_keys(entry, f"{self._at(place)}: ", _PERSON_KEYS, _PERSON_OPTIONAL):
            return None
        try:
            member = parse_member(
                self.rules.issuer,
                sub=entry["sub"],
                username=entry["username"],
                active=entry["active"],
                created=entry["created"],
                groups=self._membership(entry["groups"], groups),
                attributes=self._attributes(entry.get("attributes", {})),
            )
            first = self._seen.setdefault(member.subject.sub, place)
            if first != place:
                raise InvalidValue(f"the subject {show(member.subject.sub)} is that of people[{first}] too")
        except InvalidValue as error:
            self.problems.append(f"{self._at(place)}: {error.message}")
            return None
        return member

    def _membership(self, listed: object, groups: frozenset[str]) -> frozenset[str]:
        if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
            raise InvalidValue("groups must be a list of group paths")
        key = tuple(listed)
        if key not in self._sets:
            paths = frozenset(parse_group_path(text) for text in key)
            if unknown := sorted(paths - groups):
                raise InvalidValue(f"the group {show(unknown[0])} is not in the file's own list of groups")
            self._sets[key] = paths
        return self._sets[key]

    def _attributes(self, found: object) -> dict[str, str]:
        if not isinstance(found, dict):
            raise InvalidValue("attributes must be a mapping of texts")
        return parse_attributes(found.items(), self.rules.trusted_attributes)
