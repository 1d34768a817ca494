"""People and groups in memory, with IAM's own rules for membership and IAM's own lack of order.

Rows come in the order of a checksum of their id: fixed, unrelated to name or age, and unchanged for
everybody else when one person comes or goes, as an unsorted table usually behaves.  Records are
frozen, so that a page can be encoded outside the lock.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from iam_bridge.demo.iam.records import DataSet, Group, Label, Person


class UnknownRecord(LookupError):
    """Nobody and nothing of this id or name is in the embedded IAM."""

    def __str__(self) -> str:
        """Say the sentence, not the repr that a LookupError shows."""
        return str(self.args[0])


def row_key(record_id: str) -> tuple[int, str]:
    """Say where a record stands in the unsorted table."""
    return crc32(record_id.encode()), record_id


class Directory:
    """The accounts and groups of one IAM.  Every method may be called from any thread."""

    def __init__(self, data: DataSet, *, clock: Callable[[], float] = time.time, seed: int | None = None) -> None:
        self.clock = clock
        self.rng = random.Random(seed)  # noqa: S311 ids that a test can repeat, nothing secret
        self.lock = threading.RLock()
        self._groups = {group.id: group for group in data.groups}
        self._paths = {group.path: group.id for group in data.groups}
        self._people = {person.id: person for person in data.people}
        self._members: dict[str, set[str]] = {group.id: set() for group in data.groups}
        for person in data.people:
            for group_id in person.groups:
                self._members[group_id].add(person.id)
        self._active = sum(person.active for person in data.people)
        self._rows = sorted(map(row_key, self._people))
        self._group_rows = sorted(map(row_key, self._groups))
        self._usernames: dict[str, list[str]] | None = None

    # ---- asking ------------------------------------------------------------------------------

    def person(self, reference: str) -> Person:
        """Find a person by id or by user name.

        Raises:
            UnknownRecord: nobody is called so, or several are.
        """
        with self.lock:
            if found := self._people.get(reference):
                return found
            if self._usernames is None:
                self._usernames = {}
                for person in self._people.values():
                    self._usernames.setdefault(person.username, []).append(person.id)
            ids = self._usernames.get(reference, [])
            if len(ids) != 1:
                sentence = f"no person {reference!r}" if not ids else f"{len(ids)} people are called {reference!r}"
                raise UnknownRecord(f"{sentence} in this IAM")
            return self._people[ids[0]]

    def find_person(self, person_id: str) -> Person | None:
        """Find a person by id alone."""
        return self._people.get(person_id)

    def group(self, reference: str) -> Group:
        """Find a group by id or by path.

        Raises:
            UnknownRecord: there is no such group.
        """
        with self.lock:
            found = self._groups.get(self._paths.get(reference, reference))
        if found is None:
            raise UnknownRecord(f"no group {reference!r} in this IAM")
        return found

    def groups_of(self, person: Person) -> tuple[Group, ...]:
        """List the groups of a person, in the order they were joined."""
        with self.lock:
            return tuple(self._groups[group_id] for group_id in person.groups)

    def members(self, group: str) -> tuple[Person, ...]:
        """List the members of a group, ordered by user name as `/scim/Groups/{id}/members` is."""
        with self.lock:
            people = [self._people[person_id] for person_id in self._members[self.group(group).id]]
        return tuple(sorted(people, key=lambda person: person.username))

    def subgroups(self, group: str) -> tuple[Group, ...]:
        """List the direct subgroups of a group, ordered by name."""
        with self.lock:
            parent = self.group(group).id
            found = [child for child in self._groups.values() if child.parent_id == parent]
        return tuple(sorted(found, key=lambda child: child.path))

    def people_page(self, start: int, count: int, *, shift: int = 0) -> tuple[int, list[Person]]:
        """Give the number of all people and rows `start`.. (from 0), the table rotated left by `shift`."""
        with self.lock:
            rows = _cut(self._rows, start, count, shift)
            return len(self._rows), [self._people[person_id] for _, person_id in rows]

    def groups_page(self, start: int, count: int, *, shift: int = 0) -> tuple[int, list[Group]]:
        """Give the number of all groups and rows `start`.. (from 0), the table rotated left by `shift`."""
        with self.lock:
            rows = _cut(self._group_rows, start, count, shift)
            return len(self._group_rows), [self._groups[group_id] for _, group_id in rows]

    def stats(self) -> tuple[int, int]:
        """Count all people and the active ones."""
        with self.lock:
            return len(self._people), self._active

    # ---- changing ----------------------------------------------------------------------------

    def add_person(
        self,
        username: str,
        *,
        groups: Iterable[str] = (),
        given_name: str | None = None,
        family_name: str = "Example",
        email: str | None = None,
        id: str | None = None,  # noqa: A002 the field's name in SCIM
        created_ms: int | None = None,
        **fields: Any,
    ) -> Person:
        """Add a person to the IAM and to `groups` (paths or ids) with their parents.

        `fields` are the remaining ones of `Person`.  No rule of names is applied, so that hostile
        records can be served; a user name may even occur twice.
        """
        with self.lock:
            now_ms = self._now_ms() if created_ms is None else created_ms
            person = Person(
                id=id or self.new_id(),
                username=username,
                given_name=username.capitalize() if given_name is None else given_name,
                family_name=family_name,
                email=f"{username}@iam.example" if email is None else email,
                created_ms=now_ms,
                modified_ms=now_ms,
                **fields,
            )
            if person.id in self._people:
                raise ValueError(f"a person with id {person.id} is in this IAM already")
            joined = [self.group(reference).id for reference in groups]
            self._people[person.id] = person
            self._usernames = None
            self._active += person.active
            insort(self._rows, row_key(person.id))
            for group_id in joined:
                self._join(person.id, group_id, moved_ms=now_ms)
            return self._people[person.id]

    def remove(self, person: str) -> None:
        """Delete a person.  IAM revokes the tokens of a deleted account, and of no other."""
        with self.lock:
            gone = self.person(person)
            for group_id in gone.groups:
                self._members[group_id].discard(gone.id)
            del self._people[gone.id]
            self._usernames = None
            self._active -= gone.active
            del self._rows[bisect_left(self._rows, row_key(gone.id))]

    def suspend(self, person: str) -> Person:
        """Suspend a person (SCIM `active` false).  Their access tokens live on, as in IAM."""
        return self._set_active(person, active=False)

    def restore(self, person: str) -> Person:
        """Lift a suspension."""
        return self._set_active(person, active=True)

    def rename(self, person: str, username: str) -> Person:
        """Change a user name; the id stays."""
        return self.change(person, username=username)

    def change(self, person: str, **fields: Any) -> Person:
        """Change fields of a person other than `id`, `active` and `groups`, and touch `lastModified`."""
        if taken := {"id", "active", "groups"} & fields.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: use the method made for it")
        with self.lock:
            changed = replace(self.person(person), **{"modified_ms": self._now_ms(), **fields})
            self._people[changed.id] = changed
            self._usernames = None
            return changed

    def create_group(
        self,
        path: str,
        *,
        id: str | None = None,  # noqa: A002 the field's name in SCIM
        description: str = "",
        labels: Sequence[Label] = (),
    ) -> Group:
        """Create a group, and the parents of its path that do not exist yet."""
        with self.lock:
            if path in self._paths:
                raise ValueError(f"a group {path!r} is in this IAM already")
            parent_path = path.rpartition("/")[0]
            parent = None
            if parent_path:
                known = self._paths.get(parent_path)
                parent = known or self.create_group(parent_path).id
            now_ms = self._now_ms()
            group = Group(
                id=id or self.new_id(),
                path=path,
                created_ms=now_ms,
                modified_ms=now_ms,
                parent_id=parent,
                description=description,
                labels=tuple(labels),
            )
            self._groups[group.id] = group
            self._paths[path] = group.id
            self._members[group.id] = set()
            insort(self._group_rows, row_key(group.id))
            return group

    def remove_group(self, group: str) -> None:
        """Delete a group without subgroups; its members leave it."""
        with self.lock:
            gone = self.group(group)
            if self.subgroups(gone.id):
                raise ValueError(f"group {gone.path!r} has subgroups: remove them first")
            for person_id in self._members.pop(gone.id):
                self._leave(person_id, gone.id)
            del self._groups[gone.id], self._paths[gone.path]
            del self._group_rows[bisect_left(self._group_rows, row_key(gone.id))]

    def add_to_group(self, person: str, group: str) -> Person:
        """Add a person to a group and to every parent of it (IAM since 1.7)."""
        with self.lock:
            found = self.person(person)
            self._join(found.id, self.group(group).id, moved_ms=self._now_ms())
            return self._people[found.id]

    def remove_from_group(self, person: str, group: str) -> Person:
        """Remove a person from a group and from everything below it (IAM since 1.7)."""
        with self.lock:
            found, top = self.person(person), self.group(group)
            for group_id in found.groups:
                path = self._groups[group_id].path
                if group_id == top.id or path.startswith(f"{top.path}/"):
                    self._members[group_id].discard(found.id)
                    self._leave(found.id, group_id)
                    self._touch_group(group_id, self._now_ms())
            return self._people[found.id]

    def new_id(self) -> str:
        """Make a UUID from this directory's own source of randomness."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    # ---- inside the lock ---------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self.clock() * 1000)

    def _set_active(self, reference: str, *, active: bool) -> Person:
        with self.lock:
            before = self.person(reference)
            after = replace(before, active=active, modified_ms=self._now_ms())
            self._people[after.id] = after
            self._active += after.active - before.active
            return after

    def _join(self, person_id: str, group_id: str, *, moved_ms: int) -> None:
        wanted: str | None = group_id
        while wanted is not None:
            person = self._people[person_id]
            if wanted not in person.groups:
                groups = (*person.groups, wanted)
                self._people[person_id] = replace(person, groups=groups, modified_ms=moved_ms)
                self._members[wanted].add(person_id)
                self._touch_group(wanted, moved_ms)
            wanted = self._groups[wanted].parent_id

    def _leave(self, person_id: str, group_id: str) -> None:
        person = self._people[person_id]
        left = tuple(kept for kept in person.groups if kept != group_id)
        self._people[person_id] = replace(person, groups=left, modified_ms=self._now_ms())

    def _touch_group(self, group_id: str, moved_ms: int) -> None:
        self._groups[group_id] = replace(self._groups[group_id], modified_ms=moved_ms)


def _cut(rows: Sequence[tuple[int, str]], start: int, count: int, shift: int) -> Sequence[tuple[int, str]]:
    stop = min(start + count, len(rows))
    if not shift:
        return rows[start:stop]
    return [rows[(index + shift) % len(rows)] for index in range(start, stop)]
