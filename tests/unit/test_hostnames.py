"""Names and numbers that must not be given."""

from __future__ import annotations

import grp
import os
import pwd
import re
from pathlib import Path

import pytest

from iam_bridge.errors import StoreError
from iam_bridge.model.account import NAME_PATTERN
from iam_bridge.model.rules import AccountRules
from provisioner.hostnames import HostPaths, find_busy_name, is_busy_number, read_host_names, read_reserved_names
from tests.contract.people import rules_for


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    for name in ("etc", "home", "mail", "cron"):
        (tmp_path / name).mkdir()
    return HostPaths(mail=tmp_path / "mail", crontabs=tmp_path / "cron")


@pytest.fixture
def rules(paths: HostPaths, tmp_path: Path) -> AccountRules:
    return rules_for(tmp_path / "etc", subids=tmp_path / "etc", home=f"{tmp_path}/home/{{name}}")


def test_the_list_holds_the_systems_of_this_family() -> None:
    names = read_reserved_names()
    assert len(names) >= 150
    assert all(NAME_PATTERN.match(name) for name in names)
    assert {
        "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data",
        "backup", "list", "irc", "gnats", "nobody", "nogroup", "sshd", "postgres", "mysql", "munge", "slurm", "slurmdbd",
        "nslcd", "sssd", "ntp", "chrony", "polkitd", "dbus", "messagebus", "tss", "clevis", "cockpit-ws", "halt",
        "shutdown", "operator", "adm", "ftp", "wheel", "sudo", "docker", "disk", "kvm", "tape", "shadow", "utmp",
    } <= names  # fmt: skip


def test_the_list_holds_what_debian_gives_every_host() -> None:
    master = Path("/usr/share/base-passwd")
    if not master.is_dir():
        pytest.skip("base-passwd is Debian's")
    text = (master / "passwd.master").read_text() + (master / "group.master").read_text()
    names = {line.split(":")[0] for line in text.splitlines()}
    assert {name for name in names if not name.startswith("_")} <= read_reserved_names()


def test_every_account_and_group_of_the_host_is_busy(rules: AccountRules, paths: HostPaths) -> None:
    found = read_host_names(rules, paths)
    assert {user.pw_name for user in pwd.getpwall()} <= set(found.busy_names)
    assert {group.gr_name for group in grp.getgrall()} <= set(found.busy_names)
    assert {user.pw_uid for user in pwd.getpwall()} <= found.busy_numbers
    assert {group.gr_gid for group in grp.getgrall()} <= found.busy_numbers
    assert found.busy_names["slurm"] == "'slurm' is a system name"


@pytest.mark.parametrize(
    ("kind", "row", "name", "says", "numbers"),
    [
        ("passwd", "ann:x:31001:31002::/:/bin/sh", "ann", "stands in {etc}/passwd", {31001, 31002}),
        ("passwd", "ann:broken", "ann", "stands in {etc}/passwd", set()),
        ("passwd", "Ann:x:31001:31002::/:/bin/sh", "ann", "stands in {etc}/passwd", {31001, 31002}),
        ("group", "project:x:31003:", "project", "stands in {etc}/group", {31003}),
        ("shadow", "gone:*:1::::::", "gone", "stands in {etc}/shadow", set()),
        ("gshadow", "gone:!::", "gone", "stands in {etc}/gshadow", set()),
        ("subuid", "gone:100000:65536", "gone", "stands in {etc}/subuid", set()),
        ("subgid", "31004:100000:65536", "nobody-named-so", "", {31004}),
    ],
    ids=["passwd", "broken line", "capitals", "group", "shadow alone", "gshadow alone", "subuid", "subgid by number"],
)
def test_the_files_of_the_store_count(
    rules: AccountRules, paths: HostPaths, tmp_path: Path, kind: str, row: str, name: str, says: str, numbers: set[int]
) -> None:
    (tmp_path / "etc" / kind).write_text(row + "\n")
    found = read_host_names(rules, paths)
    assert found.busy_names.get(name, "") == (f"{name!r} {says.format(etc=tmp_path / 'etc')}" if says else "")
    assert numbers <= found.busy_numbers


@pytest.mark.parametrize(
    ("folder", "says"), [("home", "has a home in"), ("mail", "has mail in"), ("cron", "has a crontab in")]
)
def test_what_people_left_behind_counts(
    rules: AccountRules, paths: HostPaths, tmp_path: Path, folder: str, says: str
) -> None:
    (tmp_path / folder / "gone").mkdir()
    (tmp_path / folder / "hidden-link").symlink_to("/none")
    found = read_host_names(rules, paths)
    assert found.busy_names["gone"] == f"'gone' {says} {tmp_path / folder}"
    assert "hidden-link" in found.busy_names


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_the_owner_of_a_leftover_home_keeps_the_number(rules: AccountRules, paths: HostPaths, tmp_path: Path) -> None:
    (tmp_path / "home/gone").mkdir()
    os.chown(tmp_path / "home/gone", 31009, 31009)
    assert 31009 in read_host_names(rules, paths).busy_numbers


def test_a_name_in_the_middle_of_the_path_is_found(paths: HostPaths, tmp_path: Path) -> None:
    (tmp_path / "home/u-gone").mkdir()
    rules = rules_for(tmp_path / "etc", home=f"{tmp_path}/home/{{name}}/files")
    assert "u-gone" in read_host_names(rules, paths).busy_names


def test_missing_folders_are_empty_ones(rules: AccountRules, tmp_path: Path) -> None:
    found = read_host_names(rules, HostPaths(mail=tmp_path / "none", crontabs=tmp_path / "none"))
    assert "root" in found.busy_names


def test_a_source_that_cannot_be_read_is_not_taken_for_empty(
    rules: AccountRules, paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(StoreError, match=r"cannot list .*: Permission denied"):
        read_host_names(rules, paths)


def test_without_root_a_closed_folder_is_passed_over(
    rules: AccountRules, paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in read_host_names(rules, paths).busy_names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("root", "is a system name"),
        ("slurm", "is a system name"),
        ("systemd-anything", "is a system name"),
        ("nobody-has-this-name", ""),
        ("", ""),
        ("a" * 300, ""),
        ("../../etc", ""),
    ],
)
def test_asking_for_one_name(name: str, says: str) -> None:
    assert find_busy_name(name) == (f"{name!r} {says}" if says else "")


def test_asking_the_host_for_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that answers by name and does not enumerate."""
    from types import SimpleNamespace

    def getpwnam(name: str) -> object:
        return SimpleNamespace(pw_uid=31001) if name == "ann" else pwd.getpwuid(2**31 - 7)

    monkeypatch.setattr("provisioner.hostnames.pwd", SimpleNamespace(getpwnam=getpwnam))
    assert find_busy_name("ann") == "'ann' is the account with uid 31001 on this host"
    group = next(entry for entry in grp.getgrall() if entry.gr_name not in read_reserved_names())
    if not re.match("systemd-", group.gr_name):
        assert find_busy_name(group.gr_name) == f"{group.gr_name!r} is the group with gid {group.gr_gid} on this host"


def test_a_host_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def getpwnam(name: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    with pytest.raises(StoreError, match="cannot look up the name 'ann': Input/output error"):
        find_busy_name("ann")


def test_asking_for_one_number() -> None:
    assert is_busy_number(0)
    assert not is_busy_number(2**31 - 77)
