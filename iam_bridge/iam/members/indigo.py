"""The members of an INDIGO IAM by SCIM: one full pull, and the proof that it is full.

U people and G groups cost at most ceil(U/100) + ceil(G/100) + 2 requests per pass (tokens and discovery apart): groups
first, so that people can be resolved as they come; then people; then the closing count; then /stats, IAM's own count,
where the budget leaves room for it. What people coming and going can explain is pulled again, up to three times; a
record that cannot be used or a mapped group that is missing is not, since it will not mend itself in a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from iam_bridge.errors import InvalidValue, SourceUnavailable
from iam_bridge.iam.discovery import fetch_metadata
from iam_bridge.iam.http import Session
from iam_bridge.iam.members.listing import PAGE, Findings, Listing, parse_total
from iam_bridge.iam.members.scim_client import ScimClient
from iam_bridge.iam.members.scim_records import INDIGO_USER, GroupTable, PeopleTable
from iam_bridge.iam.members.tokens import ClientCredentials
from iam_bridge.model.identity import Issuer, MemberSnapshot
from iam_bridge.model.record import show
from iam_bridge.model.rules import SourceRules
from iam_bridge.ports import Clock

PASSES = 1 + 3
SCOPE = "scim:read"
_PERSON_FIELDS = "userName,active,groups,meta"


@dataclass(slots=True)
class _Pass:
    """What one pass over the listings gave. `drift` may be gone in the next pass; `flaws` and `broken` will not."""

    issuer: Issuer
    trusted: frozenset[str]
    drift: Findings = field(default_factory=Findings)
    flaws: Findings = field(default_factory=Findings)
    broken: str = ""
    groups: GroupTable = field(init=False)
    people: PeopleTable = field(init=False)

    def __post_init__(self) -> None:
        self.groups = GroupTable(Listing("/scim/Groups", self.drift), self.flaws)
        listing = Listing("/scim/Users", self.drift)
        self.people = PeopleTable(self.issuer, self.groups, self.trusted, listing, self.flaws)

    def reason(self) -> str:
        """Say why this is not everything; empty where it is."""
        return self.broken or self.drift.sentence() or self.flaws.sentence()


class IndigoMembers:
    """A MemberSource over one IAM. Everything that needs a file is read when it is made."""

    def __init__(
        self,
        rules: SourceRules,
        *,
        secret: str,
        session: Session,
        clock: Clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rules = rules
        self._secret = secret
        self._session = session
        self._clock = clock
        self._sleep = sleep

    @property
    def issuer(self) -> Issuer:
        """Give the issuer whose people this source lists."""
        return self._rules.issuer

    def fetch_members(self) -> MemberSnapshot:
        """Pull everybody; raise SourceUnavailable where not even a first page can be had."""
        taken_at = self._clock()
        with self._session:
            client = self._connect()
            for _ in range(PASSES):
                found = self._pass(client)
                if found.broken or not found.drift:
                    break
        members, reason = found.people.members(), found.reason()
        if not members and not reason:
            reason = "the IAM lists no people at all, which is never taken for the truth"
        return MemberSnapshot(self.issuer, members, found.groups.paths(), taken_at, not reason, reason, client.requests)

    def _connect(self) -> ScimClient:
        rules = self._rules
        metadata = fetch_metadata(self._session, self.issuer, timeout_s=rules.timeout_s)
        if not metadata.token_endpoint:
            raise SourceUnavailable(f"the discovery document of {self.issuer} names no token endpoint")
        assert rules.client is not None
        credentials = ClientCredentials(
            metadata.token_endpoint, rules.client.client_id, self._secret, SCOPE, rules.timeout_s
        )
        base = (metadata.scim_endpoint or self.issuer.url.rstrip("/") + "/scim").rstrip("/")
        return ScimClient(self._session, base, credentials, timeout_s=rules.timeout_s, sleep=self._sleep)

    def _pass(self, client: ScimClient) -> _Pass:
        found = _Pass(self.issuer, self._rules.trusted_attributes)
        for records in _pages(client, "/Groups", found.groups.listing, "displayName"):
            _each(records, found.groups.take)
        found.groups.close()
        self._check_mapped(found)
        try:
            for records in _pages(client, "/Users", found.people.listing, self._person_fields()):
                _each(records, found.people.take)
            found.people.listing.close()
            if not found.drift and found.people.listing.total:
                self._count_again(client, found)
        except SourceUnavailable as error:
            if found.people.listing.total is None:
                raise
            found.broken = f"the pull broke off after {len(found.people.by_id)} people: {error}"
        return found

    def _person_fields(self) -> str:
        return f"{_PERSON_FIELDS},{INDIGO_USER}" if self._rules.trusted_attributes else _PERSON_FIELDS

    def _check_mapped(self, found: _Pass) -> None:
        listed = found.groups.paths()
        for rule in self._rules.groups:
            if rule.iam not in listed:
                found.flaws.note(
                    f"the group {show(rule.iam)} of the settings is not among the {len(listed)} groups of /scim/Groups"
                )

    def _count_again(self, client: ScimClient, found: _Pass) -> None:
        """Hold the listing against a second count, and against /stats where one page of groups was not spent."""
        listing = found.people.listing
        body = client.fetch("/Users", {"startIndex": 1, "count": 0})
        try:
            listing.check_count(parse_total(body), "the closing count")
        except InvalidValue as error:
            raise SourceUnavailable(f"the closing count of {listing.path} is no SCIM list: {error.message}") from error
        if found.groups.listing.received:
            counted = client.fetch_stats(self.issuer)
            if counted is not None:
                listing.check_count(counted, "/stats")


def _each(records: Iterable[object], take: Callable[[object], None]) -> None:
    for record in records:
        take(record)


def _pages(client: ScimClient, path: str, listing: Listing, fields: str) -> Iterator[list[object]]:
    """Walk a listing page by page; raise SourceUnavailable where a page is no SCIM list."""
    start: int | None = 1
    while start is not None:
        body = client.fetch(path, {"startIndex": start, "count": PAGE, "attributes": fields})
        try:
            records = listing.take_page(start, body)
        except InvalidValue as error:
            raise SourceUnavailable(
                f"the page of {listing.path} from {start} is no SCIM list: {error.message}"
            ) from error
        yield records
        start = listing.next_start(start, records)
