"""`token show`: what a token says of itself, labelled unverified, and what the site says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.command_line import call, spawn
from tests.functional.logind_process import AUDIENCE, Site, site
from tests.vectors.bad_tokens import BAD_TOKENS, BadToken, TokenMaker

Capsys = pytest.CaptureFixture[str]
MAKER = TokenMaker("https://iam.example.org/", AUDIENCE, 1_777_000_000)


def written(folder: Path, token: str) -> Path:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_bytes(token.encode("utf-8", "surrogateescape") + b"\n")
    return path


def show(node: Site, capsys: Capsys, token: str, *more: str) -> tuple[int, str]:
    path = written(node.folder, token)
    ran = call(capsys, "token", "show", "--config", node.folder / "iam-bridge.yaml", "--token-file", path, *more)
    assert not any(len(part) > 20 and part in ran.all for part in token.split(".")), "no part of the token is printed"
    return ran.status, ran.out


def test_a_good_token_is_shown_and_verified(node: Site, capsys: Capsys) -> None:
    status, out = show(node, capsys, node.token("ada", profile="wlcg"))
    assert status == 0
    assert out.startswith("UNVERIFIED: ")
    assert "header alg" in out
    assert "claim aud" in out
    assert f"VERIFIED for a login here: {node.iam.person('ada').id}@{node.served.issuer} until " in out


def test_a_refused_token_is_shown_with_the_reason(node: Site, capsys: Capsys) -> None:
    status, out = show(node, capsys, node.token("ada", audience="https://jobs.hpc.example.org"))
    assert status == 3
    assert "https://jobs.hpc.example.org" in out
    assert "REFUSED for a login here: wrong-audience: " in out


def test_times_are_told_for_people(node: Site, capsys: Capsys) -> None:
    _, out = show(node, capsys, node.token("ada", lifetime_s=600))
    line = next(line for line in out.splitlines() if line.startswith("claim exp"))
    assert "Z, in 9m" in line or "Z, in 10m" in line
    _, out = show(node, capsys, node.token("ada", claims={"exp": 1_000_000_000}))
    assert "2001-09-09 01:46:40Z, " in out
    assert " ago" in out


def test_as_json(node: Site, capsys: Capsys) -> None:
    path = written(node.folder, node.token("ada"))
    said = call(
        capsys, "token", "show", "--config", node.folder / "iam-bridge.yaml", "--token-file", path, "--json"
    ).json()
    assert said["verified"] is True
    assert said["unverified_claims"]["iss"] == node.served.issuer
    assert set(said) == {"fingerprint", "unverified_header", "unverified_claims", "verified", "reason", "detail"}


def test_hostile_claims_cannot_steer_the_terminal(node: Site, capsys: Capsys) -> None:
    hostile = {"name\n\x1b[31m": "a\x1b]0;title\x07\u202eb", "x" * 500: "y" * 5000, "exp ": "\r\x9b2J"}
    status, out = show(node, capsys, node.token("ada", claims=hostile, headers={"kid": "k\x1b[2J"}))
    assert status == 3
    assert all(char.isprintable() or char == "\n" for char in out)
    assert max(map(len, out.splitlines())) < 600


@pytest.mark.parametrize("case", BAD_TOKENS, ids=lambda case: case.sentence)
def test_no_bad_token_breaks_it(case: BadToken, node_of_table: Site, capsys: Capsys) -> None:
    token = case.build(MAKER)
    status, out = show(node_of_table, capsys, token)
    assert status == 3
    assert out.startswith("UNVERIFIED: ")
    assert "REFUSED for a login here: " in out


@pytest.fixture(scope="module")
def node_of_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("table")) as node:
        yield node


def test_on_a_laptop_without_settings_it_is_only_shown(tmp_path: Path) -> None:
    if Path("/etc/iam-bridge/iam-bridge.yaml").exists():
        pytest.skip("this host has settings")
    ran = spawn("token", "show", "--token-file", "-", stdin=MAKER.token())
    assert ran.status == 0
    assert "not verified: there are no settings on this host" in ran.out
    assert ran.out.startswith("UNVERIFIED: ")


def test_settings_that_are_named_must_be_good(tmp_path: Path) -> None:
    ran = spawn("token", "show", "--token-file", "-", "--config", tmp_path / "none.yaml", stdin="x")
    assert (ran.status, "No such file" in ran.err) == (2, True)


def test_a_token_must_be_given_by_file(capsys: Capsys) -> None:
    ran = call(capsys, "token", "show")
    assert (ran.status, "--token-file FILE" in ran.err) == (2, True)
