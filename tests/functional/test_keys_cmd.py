"""`keys`: what is kept for the login daemon, fetched from a real issuer."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from iam_bridge.demo.iam import FaultKind
from tests.functional.command_line import as_nobody, call, spawn
from tests.functional.logind_process import Site

Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def settings(node: Site) -> Path:
    """Settings whose login.user is on this host."""
    path = node.folder / "iam-bridge.yaml"
    path.write_text(path.read_text().replace("  socket:", "  user: nobody\n  socket:"))
    return path


def test_refresh_keeps_the_keys_and_show_lists_them(node: Site, settings: Path, capsys: Capsys) -> None:
    ran = call(capsys, "keys", "refresh", "--config", settings)
    assert (ran.status, ran.out) == (0, f"{node.served.issuer}: ec1, rsa1\n")
    ran = call(capsys, "keys", "show", "--config", settings)
    assert ran.status == 0
    assert [line.split()[1:5] for line in ran.out.splitlines()[1:]] == [
        ["ec1", "P-256", "ES256", "0s"], ["rsa1", "RSA", "2048", "RS256"],
    ]  # fmt: skip


def test_show_as_json_says_how_long_they_count(node: Site, settings: Path, capsys: Capsys) -> None:
    call(capsys, "keys", "refresh", "--config", settings)
    said = call(capsys, "keys", "show", "--config", settings, "--json").json()
    assert said["without"] == []
    key = said["keys"][0]
    until, fetched = (datetime.fromisoformat(key[name]) for name in ("usable_until", "fetched_at"))
    assert until - fetched == timedelta(days=2)
    assert abs(datetime.now(UTC) - fetched) < timedelta(minutes=1)
    assert (key["kid"], key["usable"], key["issuer"]) == ("ec1", True, node.served.issuer)


def test_show_asks_nobody_and_says_where_there_is_none(node: Site, settings: Path, capsys: Capsys) -> None:
    ran = call(capsys, "keys", "show", "--config", settings)
    assert ran.status == 1
    assert ran.out.startswith(f"{node.served.issuer}: no key to use; ")
    assert node.served.connections == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_folder_that_root_makes_belongs_to_the_daemon(node: Site, settings: Path, capsys: Capsys) -> None:
    call(capsys, "keys", "refresh", "--config", settings)
    for folder in (node.folder / "state", node.folder / "state/keys"):
        assert folder.stat().st_uid == 65534
    assert (node.folder / "state").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes folders for others")
def test_without_the_daemons_account_nothing_is_made(node: Site, capsys: Capsys) -> None:
    settings = node.folder / "iam-bridge.yaml"
    settings.write_text(settings.read_text().replace("  socket:", "  user: no-such-user\n  socket:"))
    ran = call(capsys, "keys", "refresh", "--config", settings)
    assert (ran.status, "no account 'no-such-user'" in ran.err) == (2, True)
    assert not (node.folder / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming nobody needs root")
def test_keys_that_cannot_be_kept_are_not_called_refreshed(node: Site, settings: Path) -> None:
    (node.folder / "state/keys").mkdir(parents=True)
    ran = spawn("keys", "refresh", "--config", settings, within=as_nobody())
    assert (ran.status, "cannot be kept" in ran.err, ran.out) == (1, True, "")


FAULTS = [
    ("a server error", "server-error", None, "answered 500"),
    ("no keys", "empty-keys", None, "the key set is empty"),
    ("metadata of somebody else", "wrong-issuer", None, "speaks for another issuer"),
    ("no JSON", "garbage", None, "cannot be read"),
    ("a redirect", "redirect", None, "redirect"),
    ("no answer", "hang", None, "did not answer within 1 s"),
    ("an answer without end", "huge-body", "/jwk", "sent more than 262144 bytes"),
]


@pytest.mark.parametrize(("sentence", "fault", "path", "said"), FAULTS, ids=[row[0] for row in FAULTS])
def test_a_bad_answer_keeps_the_good_keys(
    node: Site, settings: Path, capsys: Capsys, sentence: str, fault: str, path: str | None, said: str
) -> None:
    call(capsys, "keys", "refresh", "--config", settings)
    before = [file.read_bytes() for file in (node.folder / "state/keys").iterdir()]
    node.iam.fault(FaultKind(fault), path=path)
    ran = call(capsys, "keys", "refresh", "--config", settings)
    assert ran.status == 75
    assert said in ran.err, ran.err
    assert ran.err.startswith("iam-bridge: ")
    assert ran.err.count(said) == 1, "said once"
    assert [file.read_bytes() for file in (node.folder / "state/keys").iterdir()] == before
    assert call(capsys, "keys", "show", "--config", settings).status == 0


def test_keys_that_are_left_out_are_pointed_out(node: Site, settings: Path, capsys: Capsys) -> None:
    hostile = {"kty": "RSA", "kid": "a\x1b[31m", "n": "x", "e": "AQAB"}
    body = json.dumps({"keys": [node.iam.keys.jwks()["keys"][0], hostile]})
    node.iam.fault(FaultKind("reply"), path="/jwk", value=body)
    ran = call(capsys, "keys", "refresh", "--config", settings)
    assert ran.status == 0
    assert "left out: key 2" in ran.err


def test_an_issuer_can_be_chosen_with_or_without_its_slash(node: Site, settings: Path, capsys: Capsys) -> None:
    assert call(capsys, "keys", "refresh", node.served.issuer.rstrip("/"), "--config", settings).status == 0
    ran = call(capsys, "keys", "refresh", "https://stranger.example.org/", "--config", settings)
    assert (ran.status, f"there are: {node.served.issuer}" in ran.err) == (2, True)
    assert call(capsys, "keys", "show", "x\x1b[31m", "--config", settings).status == 2


def test_keys_that_are_too_old_no_longer_count(node: Site, settings: Path, capsys: Capsys) -> None:
    settings.write_text(settings.read_text().replace("refresh: 6h, usable: 2d", "refresh: 0s, usable: 0s"))
    call(capsys, "keys", "refresh", "--config", settings)
    ran = call(capsys, "keys", "show", "--config", settings)
    assert (ran.status, "no more" in ran.out) == (1, True)
