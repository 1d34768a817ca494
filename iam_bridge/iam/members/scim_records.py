"""SCIM records of INDIGO IAM as values: groups by id, and people with their groups resolved.

A group's name is taken from /scim/Groups alone: `display` inside a user record is text that nobody promised to keep
equal. Records that cannot be used are reported and left out; they make the snapshot incomplete, never the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from iam_bridge.errors import InvalidValue
from iam_bridge.iam.members.listing import Findings, Listing
from iam_bridge.model.identity import Issuer, Member, parse_group_path
from iam_bridge.model.record import parse_attributes, parse_member, parse_text, show

INDIGO_USER = "urn:indigo-dc:scim:schemas:IndigoUser"
_NO_GROUPS: frozenset[str] = frozenset()


@dataclass(slots=True)
class GroupTable:
    """The groups of a listing. After `close`, `by_id` gives each id its path, None where the group cannot be used."""

    listing: Listing
    flaws: Findings
    by_id: dict[str, str | None] = field(default_factory=dict)
    _names: dict[str, set[str | None]] = field(default_factory=dict)

    def take(self, record: object) -> None:
        """Enter one record of /scim/Groups."""
        group_id = record.get("id") if isinstance(record, dict) else None
        self.listing.take_id(group_id)
        path = None
        try:
            if not isinstance(record, dict) or not isinstance(group_id, str):
                raise InvalidValue("it has no id")
            path = parse_group_path(parse_text(record.get("displayName"), "`displayName`"))
        except InvalidValue as error:
            self.flaws.note(f"the group {show(group_id)} in {self.listing.path} cannot be used: {error.message}")
        if isinstance(group_id, str):
            self._names.setdefault(group_id, set()).add(path)

    def close(self) -> None:
        """Settle which id has which path. Nobody is admitted by a name that two groups have."""
        holders = Counter(path for names in self._names.values() for path in names)
        for group_id, names in self._names.items():
            path = next(iter(names)) if len(names) == 1 else None
            if len(names) > 1:
                self.listing.drift.note(
                    f"the group {show(group_id)} came twice in {self.listing.path} with different names"
                )
            elif path is not None and holders[path] > 1:
                self.flaws.note(f"two groups in {self.listing.path} are called {show(path)}")
                path = None
            self.by_id[group_id] = path
        self.listing.close()

    def paths(self) -> frozenset[str]:
        """Give the paths of all usable groups."""
        return frozenset(path for path in self.by_id.values() if path is not None)


@dataclass(slots=True)
class PeopleTable:
    """The people of a listing by id. Whoever came twice with different content is left out."""

    issuer: Issuer
    groups: GroupTable
    trusted: frozenset[str]
    listing: Listing
    flaws: Findings
    by_id: dict[str, Member] = field(default_factory=dict)
    _torn: set[str] = field(default_factory=set)
    _memberships: dict[tuple[object, ...], frozenset[str]] = field(default_factory=dict)

    def take(self, record: object) -> None:
        """Enter one record of /scim/Users."""
        sub = record.get("id") if isinstance(record, dict) else None
        new = self.listing.take_id(sub)
        try:
            if not isinstance(record, dict):
                raise InvalidValue("it is no object")
            member = self._parse(record)
        except InvalidValue as error:
            self.flaws.note(f"the record of {show(sub)} in {self.listing.path} cannot be used: {error.message}")
            return
        if new:
            self.by_id[member.subject.sub] = member
        elif self.by_id.get(member.subject.sub) != member:
            self.listing.drift.note(
                f"the record of {show(sub)} came twice in {self.listing.path} with different content"
            )
            self._torn.add(member.subject.sub)

    def members(self) -> tuple[Member, ...]:
        """Give everybody whose record can be used."""
        return tuple(member for sub, member in self.by_id.items() if sub not in self._torn)

    def _parse(self, record: dict[str, object]) -> Member:
        meta = record.get("meta")
        if not isinstance(meta, dict):
            raise InvalidValue("`meta` is missing")
        return parse_member(
            self.issuer,
            sub=record.get("id"),
            username=record.get("userName"),
            active=record.get("active"),
            created=meta.get("created"),
            groups=self._membership(record),
            attributes=parse_attributes(_attributes(record), self.trusted),
        )

    def _membership(self, record: dict[str, object]) -> frozenset[str]:
        listed = record.get("groups")
        if not listed and listed in (None, []):  # IAM leaves empty lists out
            return _NO_GROUPS
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise InvalidValue("`groups` is no list of groups")
        ids = tuple([item.get("value") for item in listed])
        if not all(isinstance(group_id, str) for group_id in ids):
            raise InvalidValue("a group of it has no id")
        if ids not in self._memberships:
            self._memberships[ids] = self._resolve(ids, record)
        return self._memberships[ids]

    def _resolve(self, ids: tuple[str, ...], record: dict[str, object]) -> frozenset[str]:
        known = self.groups.by_id
        for group_id in ids:
            if group_id not in known:
                who, where = show(record.get("id")), self.groups.listing.path
                self.listing.drift.note(f"{who} is in the group {show(group_id)}, which {where} did not list")
        return frozenset(path for group_id in ids if (path := known.get(group_id)) is not None)


def _attributes(record: dict[str, object]) -> Iterator[tuple[object, object]]:
    """Walk the account attributes of a record; raise InvalidValue where they have another shape."""
    extension = record.get(INDIGO_USER)
    if extension is None:
        return
    listed = extension.get("attributes", []) if isinstance(extension, dict) else None
    if not isinstance(listed, list):
        raise InvalidValue("its IndigoUser attributes are no list")
    for item in listed:
        if not isinstance(item, dict):
            raise InvalidValue("one of its attributes is no object")
        if item.get("value") not in (None, ""):
            yield item.get("name"), item["value"]
