"""client.yaml: strict, and believed only where nobody else could write it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from iam_bridge.errors import SettingsError
from iam_bridge.model.identity import Issuer
from pam_module.client.iam_ssh import USAGE
from pam_module.client.settings import (
    ClientSettings,
    HostSettings,
    parse_client_settings,
    read_client_settings,
    settings_path,
)

ROOT = Path(__file__).parents[2]
UID = os.getuid()
WHOLE = """\
version: 1
default: {issuer: https://iam.example.org/}
hosts:
  login.hpc.example.org:
    audience: https://login.hpc.example.org
  login2.example.org: {audience: two, account: demo}
"""


def test_a_host_is_filled_up_from_the_default_and_its_audience_never() -> None:
    settings = parse_client_settings(WHOLE)
    issuer = Issuer("https://iam.example.org/")
    assert settings.find_host("Login.HPC.example.org") == HostSettings("https://login.hpc.example.org", issuer, None)
    assert settings.find_host("login2.example.org") == HostSettings("two", None, "demo")
    assert settings.find_host("elsewhere") == HostSettings(None, issuer, None)


BAD = {
    "an unknown key": ("version: 1\nhost: {}\n", "line 2: host: is no key that we know"),
    "an unknown key of a host": ("version: 1\nhosts: {h: {audience: a, aud: b}}\n", "hosts.h.aud: is no key"),
    "a host without an audience": ("version: 1\nhosts: {h: {account: a}}\n", "hosts.h.audience: is missing"),
    "an audience in the default": ("version: 1\ndefault: {audience: a}\n", "default.audience: is no key"),
    "a key twice": ("version: 1\nhosts: {h: {audience: a}, h: {audience: b}}\n", "a second time"),
    "no version": ("hosts: {}\n", "version: is missing"),
    "another version": ("version: 2\n", "version: must be 1"),
    "hosts as a list": ("version: 1\nhosts: [h]\n", "hosts: must be a mapping"),
    "a host with a user": ("version: 1\nhosts: {tess@h: {audience: a}}\n", "is no host name"),
    "a host in capitals": ("version: 1\nhosts: {LOGIN: {audience: a}}\n", "is no host name"),
    "an issuer without TLS": ("version: 1\nhosts: {h: {audience: a, issuer: 'http://x/'}}\n", "hosts.h.issuer"),
    "an audience with a newline": ('version: 1\nhosts: {h: {audience: "a\\nb"}}\n', "control character"),
    "an empty file": ("", "the file is empty"),
    "no YAML": ("{", "no YAML"),
    "a list": ("- 1\n", "must be a mapping"),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_what_could_be_misread_is_a_problem_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_client_settings(text)
    assert problem in str(caught.value)
    assert "line" in str(caught.value)
    assert caught.value.exit_status == 2


def test_all_problems_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_client_settings("version: 3\nx: 1\nhosts: {h: {}}\n")
    assert len(caught.value.problems) == 3


def test_without_a_file_nothing_is_known_of_any_host(tmp_path: Path) -> None:
    assert read_client_settings(tmp_path / "none", uid=UID) == ClientSettings()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_could_change_is_not_believed(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "client.yaml"
    file.write_text(WHOLE)
    file.chmod(mode)
    with pytest.raises(SettingsError, match="could be changed by others; run: chmod go-w"):
        read_client_settings(file, uid=UID)


def test_a_file_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "client.yaml").write_text(WHOLE)
    if UID == 0:
        os.chown(tmp_path / "client.yaml", 47123, 47123)
        with pytest.raises(SettingsError, match="could be changed by others"):
            read_client_settings(tmp_path / "client.yaml", uid=0)
    else:
        with pytest.raises(SettingsError, match="could be changed by others"):
            read_client_settings(tmp_path / "client.yaml", uid=UID + 1)


@pytest.mark.parametrize("what", ["folder", "pipe", "not UTF-8", "huge"])
def test_a_file_that_is_none_is_told(tmp_path: Path, what: str) -> None:
    file = tmp_path / "client.yaml"
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"\xff" if what == "not UTF-8" else b"#" * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match=r"no regular file|no UTF-8|larger than|cannot be read"):
        read_client_settings(file, uid=UID)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/tess"}, "/home/tess/.config"),
        ({"HOME": "/home/tess", "XDG_CONFIG_HOME": "/c"}, "/c"),
        ({"HOME": "/home/tess", "XDG_CONFIG_HOME": "relative"}, "/home/tess/.config"),
    ],
)
def test_the_file_is_where_xdg_says(environ: dict[str, str], folder: str) -> None:
    assert settings_path(environ) == Path(folder) / "iam-bridge/client.yaml"


@pytest.mark.parametrize("page", ["docs/how-to/log-in-with-a-token.md", "packaging/man/iam-ssh.1"])
def test_the_settings_that_the_pages_show_are_accepted(page: str) -> None:
    rows = (ROOT / page).read_text().splitlines()
    start = next(at for at, row in enumerate(rows) if row.strip() == "version: 1")
    indent = len(rows[start]) - len(rows[start].lstrip())
    shown = [row[indent:] for row in rows[start : start + 6] if not row.strip().startswith(("`", "."))]
    assert parse_client_settings("\n".join(shown)).hosts["login.hpc.example.org"].account == "myaccount"


def test_the_man_page_names_every_option_of_the_help() -> None:
    page = (ROOT / "packaging/man/iam-ssh.1").read_text().replace("\\-", "-")
    options = set(re.findall(r"--[a-z-]+", USAGE)) - {"--aud"}
    assert {option for option in options if option not in page} == set()
    assert "--token-file" in options
