"""SCIM records as values, and the books that say whether a listing is whole; no network."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iam_bridge.errors import InvalidValue
from iam_bridge.iam.members.listing import PAGE, Findings, Listing
from iam_bridge.iam.members.scim_records import INDIGO_USER, GroupTable, PeopleTable
from iam_bridge.model.identity import Issuer

ISSUER = Issuer("https://iam.example.org/")


def make_user(**changes: Any) -> dict[str, Any]:
    record = {
        "id": "s1",
        "meta": {"created": "2026-01-21T15:30:36.508+01:00"},
        "userName": "ada",
        "active": True,
        "groups": [{"display": "a lie", "value": "g1"}],
        **changes,
    }
    return {name: value for name, value in record.items() if value is not None}


def make_group(group_id: object = "g1", name: object = "hpc/users") -> dict[str, Any]:
    return {"id": group_id, "displayName": name}


def page(total: object, *records: object, **more: object) -> dict[str, object]:
    return {"totalResults": total, "Resources": list(records), **more}


def make_groups(*records: object) -> GroupTable:
    table = GroupTable(Listing("/scim/Groups", Findings()), Findings())
    table.listing.take_page(1, page(len(records), *records))
    for record in records:
        table.take(record)
    table.close()
    return table


def make_people(*records: object, trusted: tuple[str, ...] = (), groups: GroupTable | None = None) -> PeopleTable:
    table = PeopleTable(
        ISSUER, groups or make_groups(make_group()), frozenset(trusted), Listing("/scim/Users", Findings()), Findings()
    )
    table.listing.take_page(1, page(len(records), *records))
    for record in records:
        table.take(record)
    table.listing.close()
    return table


def test_a_group_is_named_by_the_groups_listing_and_never_by_the_person() -> None:
    (member,) = make_people(make_user()).members()
    assert member.groups == {"hpc/users"}


def test_a_person_without_groups_has_none() -> None:
    for groups in (None, []):
        (member,) = make_people(make_user(groups=groups)).members()
        assert member.groups == frozenset()


BAD_USERS: tuple[tuple[str, object, str], ...] = (
    ("no object", "ada", "the record of NoneType in /scim/Users cannot be used: it is no object"),
    ("no id", make_user(id=None), "the record of NoneType in /scim/Users cannot be used: the subject"),
    ("an id with control bytes", make_user(id="a\x1b]0;x"), r"the record of a\?\]0;x in"),
    ("an id that is a number", make_user(id=7), "the record of int in"),
    ("no meta", make_user(meta=None), "`meta` is missing"),
    ("meta that is text", make_user(meta="x"), "`meta` is missing"),
    ("no creation time", make_user(meta={}), "the creation time is missing"),
    ("no user name", make_user(userName=None), "the user name is missing"),
    ("a user name that is a list", make_user(userName=["root"]), "the user name is missing or no text"),
    ("no active", make_user(active=None), "`active` is neither"),
    ("active in words", make_user(active="false"), "`active` is neither"),
    ("groups that are text", make_user(groups="g1"), "`groups` is no list of groups"),
    ("groups that are false", make_user(groups=False), "`groups` is no list of groups"),
    ("groups that are texts", make_user(groups=["g1"]), "`groups` is no list of groups"),
    ("a group without an id", make_user(groups=[{"display": "hpc"}]), "a group of it has no id"),
    ("an extension that is a list", make_user(**{INDIGO_USER: []}), "attributes are no list"),
    ("attributes that are text", make_user(**{INDIGO_USER: {"attributes": "uid"}}), "attributes are no list"),
    ("an attribute that is text", make_user(**{INDIGO_USER: {"attributes": ["uid"]}}), "is no object"),
    (
        "an attribute twice",
        make_user(**{INDIGO_USER: {"attributes": [{"name": "uid", "value": "1"}, {"name": "uid", "value": "2"}]}}),
        "the attribute uid comes twice",
    ),
)


@pytest.mark.parametrize(("sentence", "record", "why"), BAD_USERS, ids=[case[0] for case in BAD_USERS])
def test_a_record_without_use_is_told_and_the_others_stay(sentence: str, record: object, why: str) -> None:
    people = make_people(record, make_user(id="s2"), trusted=("uid",))
    assert [member.subject.sub for member in people.members()] == ["s2"]
    assert people.flaws.count == 1
    assert re.search(why, people.flaws.sentence()), people.flaws.sentence()
    assert not people.listing.drift


def test_trusted_attributes_are_read_and_empty_ones_are_not_there() -> None:
    listed = [{"name": "uid", "value": "20001"}, {"name": "gid"}, {"name": "x", "value": "y"}]
    (member,) = make_people(make_user(**{INDIGO_USER: {"attributes": listed}}), trusted=("uid", "gid")).members()
    assert member.attributes == {"uid": "20001"}


def test_the_same_record_twice_is_one_person_and_a_wrong_count() -> None:
    people = make_people(make_user(), make_user())
    assert len(people.members()) == 1
    assert people.listing.drift.sentence() == "/scim/Users: 2 records were promised, 1 different ones came"


def test_whoever_comes_twice_with_different_content_is_left_out() -> None:
    people = make_people(make_user(), make_user(active=False))
    assert people.members() == ()
    assert "s1 came twice in /scim/Users with different content" in people.listing.drift.sentence()


def test_a_group_made_during_the_pull_is_drift() -> None:
    people = make_people(make_user(groups=[{"value": "g1"}, {"value": "g9"}]))
    assert people.listing.drift.sentence() == "s1 is in the group g9, which /scim/Groups did not list"
    assert people.members()[0].groups == {"hpc/users"}


def test_groups_with_one_name_admit_nobody() -> None:
    groups = make_groups(make_group("g1"), make_group("g2"), make_group("g3"), make_group("g4", "other"))
    assert groups.paths() == {"other"}
    assert groups.flaws.sentence() == "two groups in /scim/Groups are called hpc/users (and 2 more of this kind)"
    (member,) = make_people(make_user(), groups=groups).members()
    assert member.groups == frozenset()


def test_a_group_that_changes_its_name_between_pages_is_drift() -> None:
    groups = make_groups(make_group("g1", "a"), make_group("g1", "b"))
    assert groups.paths() == frozenset()
    assert groups.listing.drift.sentence() == "the group g1 came twice in /scim/Groups with different names"


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"displayName": "a"},
        make_group(5),
        make_group("g1", None),
        make_group("g1", "a\nb"),
        make_group("g1", "a//b"),
    ],
)
def test_a_group_without_use_is_told_and_admits_nobody(record: object) -> None:
    groups = make_groups(record, make_group("g2", "other"))
    assert groups.paths() == {"other"}
    assert "in /scim/Groups cannot be used" in groups.flaws.sentence()
    assert not groups.listing.drift


@pytest.mark.parametrize("total", [None, "5", 5.0, True, -1, 1_000_001])
def test_a_total_that_is_none_is_no_list(total: object) -> None:
    with pytest.raises(InvalidValue, match="`totalResults`"):
        Listing("/scim/Users", Findings()).take_page(1, {"totalResults": total, "Resources": []})


def test_resources_that_are_no_list_are_no_list() -> None:
    with pytest.raises(InvalidValue, match="`Resources` is no list"):
        Listing("/scim/Users", Findings()).take_page(1, {"totalResults": 1, "Resources": {}})


def test_a_page_that_claims_another_place_is_drift() -> None:
    listing = Listing("/scim/Users", Findings())
    listing.take_page(1, page(PAGE + 1, *range(PAGE), startIndex=1))
    listing.take_page(PAGE + 1, page(PAGE + 1, 1, startIndex=1))
    assert listing.drift.sentence() == "/scim/Users: the page from 101 says that it is another one"


def test_a_total_that_moves_is_drift() -> None:
    listing = Listing("/scim/Users", Findings())
    listing.take_page(1, page(PAGE + 1, *range(PAGE)))
    listing.take_page(PAGE + 1, page(PAGE, 1))
    assert listing.drift.sentence() == "/scim/Users: 101 records at first, 100 at the page from 101"


def test_a_page_with_more_than_was_due_is_drift() -> None:
    listing = Listing("/scim/Users", Findings())
    listing.take_page(1, page(1, 1, 2))
    assert listing.drift.sentence() == "/scim/Users: the page from 1 holds 2 records where 1 were due"


def test_a_listing_that_ran_dry_is_not_asked_further() -> None:
    listing = Listing("/scim/Users", Findings())
    assert listing.next_start(1, listing.take_page(1, page(1000))) is None
