"""Members from a people file: what is read, and every way in which a file is not believed."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.errors import SettingsError, SourceUnavailable
from iam_bridge.iam.members import file as people_file
from iam_bridge.iam.members import source_of
from iam_bridge.model.identity import MemberSnapshot
from tests.unit.iam_sources import NOW, make_rules, stand_still

ISSUER = "https://iam.example.org/"
WHOLE = """\
version: 1
count: 2
groups: [hpc, hpc/users]
people:
  - sub: 80e5fb8d-b7c8-451a-89ba-346ae278a66f
    username: ada
    active: true
    created: 2026-01-21T15:30:36+01:00
    groups: [hpc/users]
    attributes: {uid: "20001", shoe: "42"}
  - {sub: s2, username: grace, active: false, created: "2026-01-22T00:00:00Z", groups: []}
"""
ONE = "  - {sub: s1, username: ada, active: true, created: '2026-01-21T15:30:36Z', groups: [hpc/users]}\n"
HEAD = "version: 1\ngroups: [hpc, hpc/users]\npeople:\n"


def write(folder: Path, text: str | bytes, name: str = "people.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o644)
    return path


def fetch(path: Path, *groups: str) -> MemberSnapshot:
    rules = make_rules(ISSUER, *groups, kind="file", file=path, trusted=("uid",))
    return source_of(rules, clock=stand_still).fetch_members()


def check_whole(snapshot: MemberSnapshot) -> None:
    assert (snapshot.complete, snapshot.reason, snapshot.taken_at, snapshot.requests) == (True, "", NOW, 0)
    assert snapshot.groups == {"hpc", "hpc/users"}
    ada, grace = snapshot.members
    assert (ada.subject.issuer.url, ada.subject.sub) == (ISSUER, "80e5fb8d-b7c8-451a-89ba-346ae278a66f")
    assert (ada.username, ada.active, ada.groups) == ("ada", True, {"hpc/users"})
    assert ada.created == datetime(2026, 1, 21, 14, 30, 36, tzinfo=UTC)
    assert ada.attributes == {"uid": "20001"}
    assert (grace.username, grace.active, grace.groups, grace.attributes) == ("grace", False, frozenset(), {})


def test_a_yaml_file_gives_its_people(tmp_path: Path) -> None:
    check_whole(fetch(write(tmp_path, WHOLE)))


def make_json(**changes: Any) -> dict[str, Any]:
    ada = {
        "sub": "80e5fb8d-b7c8-451a-89ba-346ae278a66f",
        "username": "ada",
        "active": True,
        "created": "2026-01-21T15:30:36+01:00",
        "groups": ["hpc/users"],
        "attributes": {"uid": "20001", "shoe": "42"},
    }
    grace = {"sub": "s2", "username": "grace", "active": False, "created": "2026-01-22T00:00:00Z", "groups": []}
    return {"version": 1, "groups": ["hpc", "hpc/users"], "people": [ada, grace], **changes}


def test_a_json_file_gives_its_people(tmp_path: Path) -> None:
    check_whole(fetch(write(tmp_path, json.dumps(make_json(count=2)), "people.json")))


def test_a_file_without_a_count_is_believed(tmp_path: Path) -> None:
    assert fetch(write(tmp_path, HEAD + ONE)).complete


def test_a_mapped_group_that_the_file_does_not_list_makes_it_incomplete(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    snapshot = fetch(path, "hpc/users", "hpc/gpu")
    assert not snapshot.complete
    assert snapshot.reason == f"the group hpc/gpu of the settings is not among the 2 groups of {path}"
    assert len(snapshot.members) == 2


def test_nobody_in_the_file_is_never_complete(tmp_path: Path) -> None:
    snapshot = fetch(write(tmp_path, "version: 1\ngroups: [hpc/users]\npeople: []\n"))
    assert not snapshot.complete
    assert "lists no people at all" in snapshot.reason


BAD_YAML: tuple[tuple[str, str | bytes, str], ...] = (
    ("an empty file", "", "a whole file ends with a newline"),
    ("comments alone", "# nobody\n", "line 1: the file is empty"),
    ("a cut last line", HEAD + ONE[:-12], "a whole file ends with a newline"),
    ("no UTF-8", HEAD.encode() + b"  - \xff\xfe\n", "no UTF-8 text"),
    ("a list", "[1, 2]\n", "must be a mapping"),
    ("no YAML", "version: [1\n", "line 2: no YAML"),
    ("a key twice", "version: 1\nversion: 1\n", "line 2: the key 'version' stands here a second time"),
    ("an alias", "version: &a 1\ncount: *a\n", "anchors and aliases"),
    ("a tag", "version: !!int 1\n", "tags"),
    ("an unknown key", HEAD + ONE + "peoples: []\n", "peoples is no key that we know here"),
    ("no version", "groups: []\npeople: []\n", "version is missing"),
    ("another version", "version: 2\ngroups: []\npeople: []\n", "version: must be 1"),
    ("a version of truth", "version: true\ngroups: []\npeople: []\n", "version: must be 1"),
    ("people that are text", "version: 1\ngroups: []\npeople: ada\n", "people: must be a list"),
    ("groups that are text", "version: 1\ngroups: hpc\npeople: []\n", "groups: must be a list"),
    (
        "a group that is a number",
        "version: 1\ngroups: [5]\npeople: []\n",
        r"groups\[0\]: the group is missing or no text",
    ),
    ("a group twice", "version: 1\ngroups: [hpc, /hpc]\npeople: []\n", r"groups\[1\]: hpc is listed twice"),
    ("a count of another number", HEAD + ONE + "count: 2\n", "count: says 2, and 1 people are listed"),
    ("a count of truth", HEAD + ONE + "count: true\n", "count: says True, and 1 people are listed"),
    ("a person that is text", HEAD + "  - ada\n", r"line 4: people\[0\]: must be a mapping"),
    ("a person with an unknown key", HEAD + ONE.replace("{", "{uid: 0, "), r"line 4: people\[0\]: uid is no key"),
    ("a person without active", HEAD + ONE.replace("active: true, ", ""), r"line 4: people\[0\]: active is missing"),
    ("yes for true", HEAD + ONE.replace("true", "yes"), r"line 4: people\[0\]: `active` is neither"),
    ("a sub that is a number", HEAD + ONE.replace("s1", "17"), r"line 4: people\[0\]: the subject"),
    ("a sub with a space", HEAD + ONE.replace("s1", "s 1"), r"line 4: people\[0\]: the subject"),
    ("a user name that is a number", HEAD + ONE.replace("ada", "1234"), r"line 4: people\[0\]: the user name"),
    ("a time without an offset", HEAD + ONE.replace("36Z", "36"), r"line 4: people\[0\]: .*no offset"),
    (
        "groups of a person as text",
        HEAD + ONE.replace("[hpc/users]", "hpc/users"),
        r"people\[0\]: groups must be a list",
    ),
    (
        "a group from nowhere",
        HEAD + ONE.replace("[hpc/users]", "[hpc/gpu]"),
        "the group hpc/gpu is not in the file's own",
    ),
    ("attributes as a list", HEAD + ONE.replace("}", ", attributes: []}"), "attributes must be a mapping"),
    (
        "an attribute as a number",
        HEAD + ONE.replace("}", ", attributes: {uid: 5}}"),
        "the attribute uid is missing or no text",
    ),
    ("a subject twice", HEAD + ONE + ONE, r"line 5: people\[1\]: the subject s1 is that of people\[0\] too"),
)


@pytest.mark.parametrize(("sentence", "text", "why"), BAD_YAML, ids=[case[0] for case in BAD_YAML])
def test_a_yaml_file_that_is_wrong_is_not_believed(tmp_path: Path, sentence: str, text: str | bytes, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        fetch(write(tmp_path, text))


BAD_JSON: tuple[tuple[str, str, str], ...] = (
    ("an empty file", "", "line 1: "),
    ("a cut file", json.dumps(make_json())[:-20], "line 1: "),
    ("an error in line 3", '{\n"version": 1,\n"groups" []}', "line 3: "),
    ("a key twice", '{"version": 1, "version": 1}', "a name twice"),
    ("NaN", '{"version": NaN}', "NaN"),
    ("brackets without end", "[" * 100_000, "nested too deep"),
    (
        "a number for text",
        json.dumps(make_json(people=[{**make_json()["people"][0], "sub": 5}])),
        r"people\[0\]: the subject",
    ),
    ("a list", "[]", "no object"),
)


@pytest.mark.parametrize(("sentence", "text", "why"), BAD_JSON, ids=[case[0] for case in BAD_JSON])
def test_a_json_file_that_is_wrong_is_not_believed(tmp_path: Path, sentence: str, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        fetch(write(tmp_path, text, "people.json"))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    bad = "".join(ONE.replace("s1", f"s{place}").replace("true", "maybe") for place in range(30))
    with pytest.raises(SettingsError) as caught:
        fetch(write(tmp_path, HEAD.replace("version: 1", "version: 3") + bad))
    assert len(caught.value.problems) == 31
    assert caught.value.problems[0] == "version: must be 1"
    assert "and 11 more" in caught.value.message


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, WHOLE)
    path.chmod(mode)
    with pytest.raises(SettingsError, match="can be written by others; chmod go-w"):
        fetch(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    os.chown(path, 4242, 0)
    with pytest.raises(SettingsError, match="belongs to uid 4242"):
        fetch(path)


def test_a_file_that_is_no_file_is_not_believed(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(SettingsError, match="no plain file"):
        fetch(fifo)
    with pytest.raises(SourceUnavailable, match="Is a directory"):
        fetch(tmp_path)


def test_a_file_that_is_missing_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"people\.yaml cannot be read: No such file"):
        fetch(tmp_path / "people.yaml")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_file, "BYTES_MAX", 100)
    with pytest.raises(SourceUnavailable, match="larger than 100 bytes"):
        fetch(write(tmp_path, WHOLE))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "file"}, "is a file, and none is named"),
        ({"kind": "keycloak"}, "keycloak is no kind of source"),
        ({"kind": "indigo-iam"}, "names no client with a secret"),
    ],
)
def test_a_source_that_the_settings_leave_open_is_not_made(changes: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        source_of(make_rules(ISSUER, **changes), clock=stand_still)
