"""The settings file: all problems at once with their lines, and no default that widens access."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iam_bridge.errors import InvalidValue, SettingsError
from iam_bridge.model.identity import Issuer
from iam_bridge.model.rules import Settings
from iam_bridge.settings import parse_settings, read_settings
from iam_bridge.strict_yaml import load

GOOD = """\
version: 1
site: {name: hpc.example.org}
issuers:
  - issuer: https://iam.example.org/
    algorithms: [RS256, ES256]
members:
  - issuer: https://iam.example.org/
    kind: file
    file: /etc/iam-bridge/people.yaml
    groups:
      - {iam: hpc/users, unix: hpcusers}
      - {iam: /hpc/gpu, unix: gpu, grants_account: false}
accounts:
  ids: {uid: [20000, 59999], gid: [20000, 59999]}
login:
  audience: [https://login.hpc.example.org]
  requires: [{issuer: https://iam.example.org/, group: /hpc/users}]
"""


def parse(text: str) -> Settings:
    return parse_settings(text, Path("test.yaml"))


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        parse(text)
    return refused.value.problems


def test_the_smallest_file_gives_careful_defaults() -> None:
    settings = parse(GOOD)
    rules = settings.issuers[Issuer.parse("https://iam.example.org/")]
    assert rules.types == {"at+jwt", "jwt"}
    assert (rules.validation, rules.down, rules.refresh_s, rules.usable_s) == ("offline", "deny", 21600, 172800)
    assert settings.login.peers == {0}
    assert (settings.login.rules.members_warn_s, settings.login.rules.members_deny_s) == (900, 86400)
    assert [group.iam for group in settings.sources[0].groups] == ["hpc/users", "hpc/gpu"]
    assert settings.login.rules.requires[0].group == "hpc/users"
    assert (settings.limits.locks.most, settings.limits.creates.most, settings.limits.shrink_percent) == (5, 50, 10)
    assert settings.accounts.home_mode == 0o700


BAD = [
    ("no version", ("version: 1\n", ""), 1, "version: is missing"),
    ("a version of the future", ("version: 1", "version: 2"), 1, "must be 1"),
    ("an unknown key", ("login:\n", "login:\n  pasword: x\n"), 16, "login.pasword: is no key"),
    ("an unknown section", ("login:\n", "logins: 1\nlogin:\n"), 15, "logins: is no key"),
    ("a duplicate key", ("site:", "version: 1\nsite:"), 2, "a second time"),
    ("a wrong type", ("audience: [https://login.hpc.example.org]", "audience: yes"), 16, "must be a list of texts"),
    ("an empty audience", ("audience: [https://login.hpc.example.org]", "audience: []"), 16, "permits nobody"),
    ("no audience", ("  audience: [https://login.hpc.example.org]\n", ""), 16, "login.audience: is missing"),
    ("a wildcard audience", ("https://login.hpc.example.org", "'*'"), 16, "names no single service"),
    ("an audience twice", ("[https://login.hpc.example.org]", "[a, a]"), 16, "names 'a' twice"),
    ("no requirement", ("requires: [{issuer: https://iam.example.org/, group: /hpc/users}]", "requires: []"), 17, "at least one"),
    ("a requirement of a stranger", ("requires: [{issuer: https://iam", "requires: [{issuer: https://x"), 17, "not one of `issuers`"),
    ("an issuer by http", ("- issuer: https://iam.example.org/\n    alg", "- issuer: http://iam.example.org/\n    alg"), 4, "no https URL"),
    ("a symmetric algorithm", ("RS256, ES256", "RS256, HS256"), 5, "'HS256' is none of"),
    ("no algorithm", ("[RS256, ES256]", "[]"), 5, "permits nobody"),
    ("an unknown type", ("algorithms:", "types: [dpop]\n    algorithms:"), 5, "at+jwt, JWT, absent"),
    ("introspection without a client", ("algorithms:", "validation: introspect\n    algorithms:"), 4, "client: is missing"),
    ("keys usable shorter than refreshed", ("algorithms:", "keys: {refresh: 2d, usable: 1h}\n    algorithms:"), 5, "not be shorter"),
    ("a duration without unit", ("algorithms:", "timeout: 5\n    algorithms:"), 5, "must be text"),
    ("a duration of nonsense", ("algorithms:", "timeout: 5y\n    algorithms:"), 5, "no duration"),
    ("an unknown kind", ("kind: file", "kind: ldap"), 8, "must be one of indigo-iam, file"),
    ("a file source without its file", ("    file: /etc/iam-bridge/people.yaml\n", ""), 7, "file: is missing"),
    ("a relative path", ("/etc/iam-bridge/people.yaml", "people.yaml"), 9, "absolute path"),
    ("a source of a stranger", ("members:\n  - issuer: https://iam", "members:\n  - issuer: https://x"), 7, "not one of `issuers`"),
    ("no group that grants", ("unix: hpcusers}", "unix: hpcusers, grants_account: false}"), 11, "no group grants"),
    ("a group that does nothing", ("unix: gpu, grants_account", "grants_account"), 12, "does nothing"),
    ("an IAM group twice", ("/hpc/gpu", "hpc/users"), 12, "is mapped already"),
    ("a unix group with a colon", ("unix: gpu", "unix: 'g:pu'"), 12, "no group name"),
    ("a flag that is text", ("grants_account: false", "grants_account: 'no'"), 12, "true or false"),
    ("a range below 1000", ("uid: [20000, 59999]", "uid: [500, 59999]"), 14, "leaves the blocks"),
    ("a range upside down", ("uid: [20000, 59999]", "uid: [59999, 20000]"), 14, "upside down"),
    ("a range of three", ("uid: [20000, 59999]", "uid: [1, 2, 3]"), 14, "two numbers"),
    ("a range of text", ("uid: [20000, 59999]", "uid: [a, b]"), 14, "whole numbers"),
    ("ranges that overlap in part", ("uid: [20000, 59999]", "uid: [20000, 30000]"), 14, "overlaps uid in part"),
    ("a home without name", ("accounts:\n", "accounts:\n  home: /home\n"), 14, "{name}"),
    ("a home that climbs", ("accounts:\n", "accounts:\n  home: /home/../{name}/x\n"), 14, "{name}"),
    ("a home mode that lets others write", ("accounts:\n", "accounts:\n  home_mode: '0777'\n"), 14, "no other write"),
    ("a shell with a colon", ("accounts:\n", "accounts:\n  shell: '/bin/a:b'\n"), 14, "colon"),
    ("names from nowhere", ("accounts:\n", "accounts:\n  names: {from: [email]}\n"), 14, "neither preferred_username"),
    ("a limit below zero", ("accounts:\n", "limits: {locks: {most: -1}}\naccounts:\n"), 13, "must be 0 to"),
    ("a limit that is text", ("accounts:\n", "limits: {locks: {most: '5'}}\naccounts:\n"), 13, "whole number"),
    ("a limit above all", ("accounts:\n", "limits: {locks: {percent: 101}}\naccounts:\n"), 13, "0 to 100"),
    ("the same audience at two doors", ("login:\n", "exchange: {audience: [https://login.hpc.example.org]}\nlogin:\n"), 15, "opens login too"),
    ("ageing after denial", ("login:\n", "login:\n  members: {warn: 2d}\n"), 16, "not be longer than deny"),
    ("nobody may ask", ("login:\n", "login:\n  peers: []\n"), 16, "nobody could ask"),
    ("a section that is text", ("site: {name: hpc.example.org}", "site: hpc"), 2, "must be a mapping"),
    ("an anchor", ("site: {name", "site: &x {name"), 2, "anchors"),
    ("a missing secret", ("kind: file", "kind: indigo-iam\n    client: {id: a, secret_file: /nonexistent/x}"), 9, "does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "line", "said"), BAD, ids=[row[0] for row in BAD])
def test_a_problem_is_named_with_its_line(sentence: str, change: tuple[str, str], line: int, said: str) -> None:
    assert change[0] in GOOD
    found = [p for p in problems_of(GOOD.replace(*change, 1)) if said in p]
    assert found, problems_of(GOOD.replace(*change, 1))
    assert found[0].startswith(f"line {line}:")


def test_all_problems_come_in_one_run_and_in_order() -> None:
    text = (
        GOOD.replace("version: 1", "version: 3")
        .replace("RS256, ES256", "none")
        .replace("[https://login.hpc.example.org]", "[]")
    )
    lines = [int(problem.split(":")[0].removeprefix("line ")) for problem in problems_of(text)]
    assert lines == sorted(lines)
    assert {1, 5, 16} <= set(lines)


def test_a_shared_audience_may_be_accepted_in_words() -> None:
    shared = "exchange: {audience: [https://login.hpc.example.org], shared: accepted}\nlogin:\n"
    assert parse(GOOD.replace("login:\n", shared)).login.rules.audience
    own = "gateway: {audience: [https://jobs.hpc.example.org]}\nlogin:\n"
    assert parse(GOOD.replace("login:\n", own)).login.rules.audience


def test_two_issuers_may_not_differ_by_a_slash() -> None:
    twin = "  - issuer: https://iam.example.org\n    algorithms: [RS256]\nmembers:\n"
    assert any("final slash" in problem for problem in problems_of(GOOD.replace("members:\n", twin, 1)))


def test_two_sources_may_not_claim_one_subject() -> None:
    source = GOOD[GOOD.index("  - issuer: https://iam.example.org/\n    kind") : GOOD.index("accounts:")]
    assert any("has a source already" in p for p in problems_of(GOOD.replace("accounts:", source + "accounts:")))


def test_a_secret_that_everybody_may_read_is_a_problem(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    for mode, refused in ((0o644, True), (0o640, False), (0o600, False)):
        secret.chmod(mode)
        text = GOOD.replace("kind: file", f"kind: indigo-iam\n    client: {{id: a, secret_file: {secret}}}")
        if refused:
            assert any("readable by everyone" in problem for problem in problems_of(text))
        else:
            assert parse(text).sources[0].client is not None


@pytest.mark.parametrize(("mode", "said"), [(0o666, "writable by others"), (0o620, "writable by others"), (0o640, "")])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int, said: str) -> None:
    path = tmp_path / "iam-bridge.yaml"
    path.write_text(GOOD)
    path.chmod(mode)
    if not said:
        assert read_settings(path).path == path
        return
    with pytest.raises(SettingsError, match=said):
        read_settings(path)


def test_what_is_no_settings_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="not a regular file"):
        read_settings(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\n\xff\xfe")
    with pytest.raises(SettingsError, match="line 2: not UTF-8"):
        read_settings(binary)
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(SettingsError, match="larger than"):
        read_settings(huge)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "iam-bridge.yaml"
    path.write_text(GOOD)
    os.chown(path, 65534, 65534)
    with pytest.raises(SettingsError, match="owned by uid 65534"):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("010", "010"), ("1:30", "1:30"), ("0x10", "0x10"), ("7", 7), ("-7", -7), ("true", True), ("True", "True"),
     ("null", None), ("~", None), ("'7'", "7"), ("1.5", "1.5"), ("1_000", "1_000"), ("2026-05-03", "2026-05-03")],
)  # fmt: skip
def test_yaml_reads_only_what_it_says(text: str, value: object) -> None:
    root = load(f"key: {text}")
    assert isinstance(root.value, dict)
    assert root.value["key"].value == value


@pytest.mark.parametrize(
    "text",
    ["", "a: 1\na: 2", "a: &b 1\nc: *b", "a: !!int 1", "? [1]\n: 2", "a: [", "\t- x", "a: {b: {b: 1, b: 2}}", "[" * 30 + "]" * 30,
     "[" * 100000, "--- 1\n--- 2", "a: \x00"],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_yaml_with_surprises_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=r"^line \d+"):
        load(text)
