"""The full pull from an IAM over real TLS: what it costs, what proves it complete, and what every fault makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.demo.iam import EmbeddedIam, ServedIam, indigo_fixture, running_iam
from iam_bridge.errors import SourceUnavailable
from iam_bridge.iam.http import Session
from iam_bridge.iam.members.indigo import PASSES, IndigoMembers
from iam_bridge.iam.members.tokens import ClientCredentials
from iam_bridge.model.identity import Issuer, MemberSnapshot
from iam_bridge.model.rules import SourceRules
from tests.unit.iam_sources import NOW, SYNC_SECRET, make_rules, people_and_groups, served_rules, stand_still

FIXTURE_PEOPLE = 255
ONE_PASS = ceil(FIXTURE_PEOPLE / 100) + 1 + 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedIam]:
    with running_iam(EmbeddedIam(indigo_fixture()), tmp_path_factory.mktemp("iam")) as running:
        yield running


@pytest.fixture
def iam(served: ServedIam) -> Iterator[EmbeddedIam]:
    """The fixture's IAM, whole again after each test."""
    served.iam.reset_counters()
    yield served.iam
    served.iam.clear_faults()


class Naps:
    """Stands in for sleep and keeps the seconds that were asked for."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


def fetch(rules: SourceRules, *, secret: str = SYNC_SECRET, naps: Naps | None = None) -> MemberSnapshot:
    session = Session(ca_file=rules.ca_file)
    source = IndigoMembers(rules, secret=secret, session=session, clock=stand_still, sleep=naps or Naps())
    return source.fetch_members()


def spent(iam: EmbeddedIam) -> int:
    return iam.count("/scim/*") + iam.count("/stats")


@pytest.mark.parametrize("groups", [0, 1, 100, 101])
@pytest.mark.parametrize("people", [0, 1, 100, 101, 255, 1000])
def test_a_pull_stays_within_its_requests(tmp_path: Path, people: int, groups: int) -> None:
    iam = EmbeddedIam(people_and_groups(people, groups))
    with running_iam(iam, tmp_path) as served:
        snapshot = fetch(served_rules(served, tmp_path, "hpc"))
    assert spent(iam) <= ceil(people / 100) + ceil(groups / 100) + 2
    assert snapshot.requests == spent(iam)
    assert iam.count("/token") == 1
    assert len(snapshot.members) == people
    assert len(snapshot.groups) == groups
    assert snapshot.complete == (people > 0 and groups > 0)


def test_a_complete_pull_says_what_the_iam_knows(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    snapshot = fetch(served_rules(served, tmp_path, "Analysis", "Production"))
    assert (snapshot.complete, snapshot.reason, snapshot.taken_at) == (True, "", NOW)
    assert snapshot.issuer == Issuer(served.issuer)
    for member in snapshot.members:
        person = iam.person(member.subject.sub)
        assert member.subject.issuer == snapshot.issuer
        assert (member.username, member.active) == (person.username, person.active)
        assert member.groups == {group.path for group in iam.groups_of(person)}
        assert int(member.created.timestamp() * 1000) == person.created_ms
    assert len({member.subject for member in snapshot.members}) == FIXTURE_PEOPLE


def test_only_needed_fields_are_asked_for(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    fetch(served_rules(served, tmp_path, "Analysis"))
    asked = [
        request.query for request in iam.requests if request.path == "/scim/Users" and "count=100" in request.query
    ]
    assert asked
    assert all(query.endswith("attributes=userName%2Cactive%2Cgroups%2Cmeta") for query in asked)


def test_attributes_come_only_where_the_source_is_trusted_with_them(tmp_path: Path) -> None:
    iam = EmbeddedIam(people_and_groups(1, 1))
    iam.add_person("ada", groups=["hpc"], attributes=(("posix_username", "ada1"), ("uid", "0")))
    with running_iam(iam, tmp_path) as served:
        plain = fetch(served_rules(served, tmp_path, "hpc"))
        trusting = fetch(served_rules(served, tmp_path, "hpc", trusted=("posix_username",)))
    assert plain.complete
    assert trusting.complete
    assert all(not member.attributes for member in plain.members)
    assert {m.username: m.attributes for m in trusting.members}["ada"] == {"posix_username": "ada1"}


def test_hostile_user_names_are_carried_and_never_bent(tmp_path: Path) -> None:
    names = ["root", "../../etc", "-x", "a:b", "two\nlines", "with space", "аda", "n" * 300, "1234", "\x1b[2J"]
    iam = EmbeddedIam(people_and_groups(0, 1))
    for name in names:
        iam.add_person(name, groups=["hpc"])
    with running_iam(iam, tmp_path) as served:
        snapshot = fetch(served_rules(served, tmp_path, "hpc"))
    assert snapshot.complete
    assert {member.username for member in snapshot.members} == set(names)


def test_an_issuer_may_be_configured_without_its_slash(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("slashless-issuer")
    rules = make_rules(served.base_url, "Analysis", ca_file=served.ca_file)
    snapshot = fetch(rules)
    assert snapshot.complete
    assert {member.subject.issuer.url for member in snapshot.members} == {served.base_url}


@dataclass(frozen=True)
class Case:
    """A fault, and what one clear sentence must say about it."""

    sentence: str
    fault: dict[str, Any]
    reason: str
    passes: int = 1
    people: int | None = None


INCOMPLETE = (
    Case("rows drift between pages in every pass", {"kind": "page-drift"}, "were promised,", passes=PASSES),
    Case(
        "a page repeats a record", {"kind": "duplicate-id"}, "255 records were promised, 252 different", passes=PASSES
    ),
    Case(
        "a page is short",
        {"kind": "short-page", "value": 3},
        "the page from 1 holds 97 records where 100 were due",
        passes=PASSES,
    ),
    Case("a page is empty", {"kind": "short-page", "value": 100, "nth": 2}, "", passes=2, people=FIXTURE_PEOPLE),
    Case(
        "more people are promised than come",
        {"kind": "lying-total", "value": 1},
        "the page from 201 holds 55 records where 56 were due",
        passes=PASSES,
    ),
    Case(
        "fewer people are promised than /stats counts",
        {"kind": "lying-total", "value": -155},
        "/scim/Users lists 100 records and /stats says 255",
        passes=PASSES,
        people=100,
    ),
    Case(
        "the total changes between pages and stays changed",
        {"kind": "lying-total", "value": 1, "first": 3},
        "/scim/Users: the page from 201 holds 55 records where 56 were due",
        passes=PASSES,
    ),
    Case(
        "the second page is 200 and nothing",
        {"kind": "empty-body", "path": "/scim/Users", "nth": 2},
        r"the pull broke off after 100 people: .*/scim/Users answered 200 with an empty body",
        people=100,
    ),
    Case(
        "the second page is cut",
        {"kind": "cut-body", "path": "/scim/Users", "nth": 2},
        "broke off after 100 people: .* broke the connection",
        people=100,
    ),
    Case(
        "the second page is garbage",
        {"kind": "garbage", "path": "/scim/Users", "nth": 2},
        "broke off after 100 people: .* answered 200 with what cannot be read",
        people=100,
    ),
    Case(
        "the second page nests without end",
        {"kind": "deep-json", "path": "/scim/Users", "nth": 2},
        "broke off after 100 people: .* nested",
        people=100,
    ),
    Case(
        "the second page has no end",
        {"kind": "huge-body", "path": "/scim/Users", "nth": 2},
        "broke off after 100 people: .* sent more than 16777216 bytes",
        people=100,
    ),
    Case(
        "the third page is an internal error",
        {"kind": "server-error", "path": "/scim/Users", "nth": 3},
        "broke off after 200 people: .*/scim/Users answered 500",
        people=200,
    ),
    Case(
        "the second page is a redirect",
        {"kind": "redirect", "path": "/scim/Users", "nth": 2},
        r"broke off after 100 people: .* redirect \(30\d\), which is never followed",
        people=100,
    ),
    Case(
        "the second page never comes",
        {"kind": "hang", "path": "/scim/Users", "nth": 2},
        "broke off after 100 people: .* did not answer within 0.7 s",
        people=100,
    ),
    Case(
        "the second page is no SCIM list",
        {"kind": "reply", "path": "/scim/Users", "value": '{"Resources": []}', "nth": 2},
        "the page of /scim/Users from 101 is no SCIM list: `totalResults` is missing",
        people=100,
    ),
    Case(
        "the closing count disagrees",
        {"kind": "reply", "path": "/scim/Users", "value": '{"totalResults": 256}', "nth": 4},
        "",
        passes=2,
        people=FIXTURE_PEOPLE,
    ),
    Case(
        "the closing count is no SCIM list",
        {"kind": "reply", "path": "/scim/Users", "value": '{"totalResults": true}', "nth": 4},
        "the closing count of /scim/Users is no SCIM list",
        people=FIXTURE_PEOPLE,
    ),
    Case(
        "/stats disagrees in every pass",
        {"kind": "reply", "path": "/stats", "value": '{"numberOfUsers": 7}'},
        "/scim/Users lists 255 records and /stats says 7",
        passes=PASSES,
        people=FIXTURE_PEOPLE,
    ),
)


@pytest.mark.parametrize("case", INCOMPLETE, ids=lambda case: case.sentence)
def test_a_pull_with_a_fault_is_not_complete(served: ServedIam, iam: EmbeddedIam, tmp_path: Path, case: Case) -> None:
    """A case without a reason is one that the next pass mends."""
    iam.fault(**case.fault)
    snapshot = fetch(served_rules(served, tmp_path, "Analysis", timeout_s=0.7 if "never" in case.sentence else 5.0))
    assert snapshot.complete is not bool(case.reason)
    assert bool(snapshot.reason) is bool(case.reason)
    if case.reason:
        assert re.search(case.reason, snapshot.reason), snapshot.reason
    assert iam.count("/scim/Groups") == case.passes
    assert spent(iam) <= ONE_PASS * case.passes
    assert iam.count("/token") == 1
    if case.people is not None:
        assert len(snapshot.members) == case.people


UNAVAILABLE = (
    ("the first page is 200 and nothing", {"kind": "empty-body", "path": "/scim/Users"}, "empty body"),
    ("groups are an internal error", {"kind": "server-error", "path": "/scim/Groups"}, "/scim/Groups answered 500"),
    ("groups are no list", {"kind": "reply", "path": "/scim/Groups"}, "/scim/Groups from 1 is no SCIM list"),
    ("discovery hangs", {"kind": "hang", "path": "/.well-known/*"}, "did not answer within 0.7 s"),
    ("discovery is another's", {"kind": "wrong-issuer"}, "speaks for another issuer"),
    ("discovery redirects", {"kind": "redirect", "path": "/.well-known/*"}, "redirect"),
    ("the token is garbage", {"kind": "garbage", "path": "/token"}, "/token answered 200 with what cannot be read"),
    ("no token is given", {"kind": "reply", "path": "/token"}, "without a usable access token"),
    (
        "the number of people is absurd",
        {"kind": "reply", "path": "/scim/Users", "value": '{"totalResults": 1000000000000}'},
        "more than 1000000 are not accepted",
    ),
)


@pytest.mark.parametrize(("sentence", "fault", "reason"), UNAVAILABLE, ids=[case[0] for case in UNAVAILABLE])
def test_nothing_usable_is_an_error_and_no_snapshot(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path, sentence: str, fault: dict[str, Any], reason: str
) -> None:
    iam.fault(**fault)
    with pytest.raises(SourceUnavailable, match=reason):
        fetch(served_rules(served, tmp_path, "Analysis", timeout_s=0.7))
    assert spent(iam) <= ONE_PASS


def test_drift_that_ends_is_mended_by_the_next_pass(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("page-drift", last=3)
    snapshot = fetch(served_rules(served, tmp_path, "Analysis"))
    assert (snapshot.complete, snapshot.reason) == (True, "")
    assert len(snapshot.members) == FIXTURE_PEOPLE
    assert iam.count("/scim/Groups") == 2


def test_slow_pages_are_waited_for(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("slow", path="/scim/*", value=0.05)
    assert fetch(served_rules(served, tmp_path, "Analysis")).complete


def test_a_token_that_dies_on_the_way_is_renewed(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("token-dies", value=2)
    snapshot = fetch(served_rules(served, tmp_path, "Analysis"))
    assert snapshot.complete
    renewals = iam.count("/token") - 1
    assert renewals == 2
    assert snapshot.requests == ONE_PASS + renewals


def test_a_fresh_token_that_is_refused_too_ends_the_pull(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("server-error", path="/scim/Users", value=401, first=2)
    snapshot = fetch(served_rules(served, tmp_path, "Analysis"))
    assert not snapshot.complete
    assert "a fresh token was refused too" in snapshot.reason
    assert iam.count("/token") == 2
    assert iam.count("/scim/Users") == 3


def test_a_missing_scope_is_explained(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("server-error", path="/scim/Groups", value=403)
    with pytest.raises(SourceUnavailable, match="can give the client sync-client the scope scim:read"):
        fetch(served_rules(served, tmp_path, "Analysis"))


def test_a_server_that_asks_to_wait_is_given_time(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    iam.fault("rate-limit", path="/scim/Users", value=7, nth=2)
    naps = Naps()
    assert fetch(served_rules(served, tmp_path, "Analysis"), naps=naps).complete
    assert naps.taken == [7.0]


@dataclass
class Wait:
    sentence: str
    value: float
    naps: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    "case",
    [Wait("for ever, in small steps", 5, [5.0, 5.0, 5.0]), Wait("longer than we would", 61)],
    ids=lambda case: case.sentence,
)
def test_a_server_that_asks_too_much_time_ends_the_pull(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path, case: Wait
) -> None:
    iam.fault("rate-limit", path="/scim/Users", value=case.value)
    naps = Naps()
    with pytest.raises(SourceUnavailable, match="/scim/Users answered 429"):
        fetch(served_rules(served, tmp_path, "Analysis"), naps=naps)
    assert naps.taken == case.naps


def test_a_mapped_group_that_is_missing_makes_the_pull_incomplete(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path
) -> None:
    snapshot = fetch(served_rules(served, tmp_path, "Analysis", "analysis"))
    assert not snapshot.complete
    assert snapshot.reason == "the group analysis of the settings is not among the 22 groups of /scim/Groups"
    assert len(snapshot.members) == FIXTURE_PEOPLE
    assert spent(iam) == ONE_PASS, "another pass would not mend it"


def test_nobody_at_all_is_never_complete(tmp_path: Path) -> None:
    with running_iam(EmbeddedIam(people_and_groups(0, 1)), tmp_path) as served:
        snapshot = fetch(served_rules(served, tmp_path, "hpc"))
    assert not snapshot.complete
    assert snapshot.reason == "the IAM lists no people at all, which is never taken for the truth"


def test_stats_that_an_older_iam_does_not_have_are_not_missed(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path
) -> None:
    iam.fault("server-error", path="/stats", value=404)
    assert fetch(served_rules(served, tmp_path, "Analysis")).complete


def test_one_record_that_cannot_be_used_leaves_the_others(tmp_path: Path) -> None:
    iam = EmbeddedIam(people_and_groups(3, 1))
    iam.add_person("ada", groups=["hpc"], id="bad id")
    with running_iam(iam, tmp_path) as served:
        snapshot = fetch(served_rules(served, tmp_path, "hpc"))
    assert not snapshot.complete
    assert snapshot.reason.startswith("the record of bad id in /scim/Users cannot be used: the subject")
    assert len(snapshot.members) == 3
    assert iam.count("/scim/Groups") == 1, "another pass would not mend it"


@pytest.mark.parametrize(
    ("client_id", "secret", "reason"),
    [
        (
            "sync-client",
            "wrong",
            "the client sync-client gets no token: .*invalid_client.*check the client's id and secret",
        ),
        ("nobody-knows", SYNC_SECRET, "the client nobody-knows gets no token"),
        ("login-client", "login-secret", "the client login-client gets no token: .*invalid_scope"),
    ],
    ids=["a wrong secret", "an unknown client", "a client without the scope"],
)
def test_a_client_that_gets_no_token_is_told_why(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path, client_id: str, secret: str, reason: str
) -> None:
    with pytest.raises(SourceUnavailable, match=reason) as caught:
        fetch(served_rules(served, tmp_path, "Analysis", client_id=client_id), secret=secret)
    assert secret not in str(caught.value)
    assert spent(iam) == 0


TOKEN_ANSWERS = (
    ("a token of another kind", '{"access_token": "abc", "token_type": "mac"}', "no bearer token"),
    (
        "a token with less scope",
        '{"access_token": "abc", "token_type": "Bearer", "scope": "openid"}',
        "lacks the scope scim:read",
    ),
    ("an empty token", '{"access_token": "", "token_type": "Bearer"}', "without a usable access token"),
    ("a token as a number", '{"access_token": 5, "token_type": "Bearer"}', "without a usable access token"),
    ("a token with a line break", '{"access_token": "a\\nb", "token_type": "Bearer"}', "no header may carry"),
)


@pytest.mark.parametrize(("sentence", "answer", "reason"), TOKEN_ANSWERS, ids=[case[0] for case in TOKEN_ANSWERS])
def test_a_token_answer_that_is_none_is_refused(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path, sentence: str, answer: str, reason: str
) -> None:
    iam.fault("reply", path="/token", value=answer)
    with pytest.raises(SourceUnavailable, match=reason):
        fetch(served_rules(served, tmp_path, "Analysis"))
    assert spent(iam) <= 1


def test_a_token_endpoint_in_trouble_is_no_matter_of_the_client(
    served: ServedIam, iam: EmbeddedIam, tmp_path: Path
) -> None:
    iam.fault("server-error", path="/token", value=502)
    with pytest.raises(SourceUnavailable, match=r"/token answered 502$"):
        fetch(served_rules(served, tmp_path, "Analysis"))


def test_an_issuer_without_a_token_endpoint_is_told(served: ServedIam, iam: EmbeddedIam, tmp_path: Path) -> None:
    metadata = json.dumps({"issuer": served.issuer, "jwks_uri": served.base_url + "/jwk"})
    iam.fault("reply", path="/.well-known/*", value=metadata)
    with pytest.raises(SourceUnavailable, match="names no token endpoint"):
        fetch(served_rules(served, tmp_path, "Analysis"))


def test_a_client_does_not_show_its_secret() -> None:
    client = ClientCredentials("https://iam.example.org/token", "sync-client", SYNC_SECRET, "scim:read", 5.0)
    assert repr(client) == "<client sync-client>"
