"""The main job, from end to end: stock ssh against a real sshd with our module, accounts by real runs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.e2e.conftest import Node

pytestmark = pytest.mark.root


@pytest.mark.parametrize("size", [900, 1000, 1001, 1023, 1024, 2046, 4000, 16_384])
def test_a_token_of_any_length_opens_its_account(node: Node, size: int) -> None:
    token = node.mint("ada", pad_to=size)
    assert len(token) == size
    ran = node.by_token("ada", token, "id")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"uid=(\d+)\(ada\) gid=\1\(ada\) groups=.*\(hpcusers\).*\(hpcgpu\)\n", ran.stdout)


def test_the_token_is_nowhere_in_the_session(node: Node) -> None:
    token = node.mint("ada")
    ran = node.by_token("ada", token, "env; cat /proc/self/cmdline")
    assert ran.returncode == 0
    assert token[:40] not in ran.stdout
    assert "IAM_BRIDGE" not in ran.stdout


@pytest.mark.parametrize(
    ("sentence", "name", "options", "told"),
    [
        (
            "made for another service",
            "ada",
            {"audience": "https://jobs.example.org"},
            "oidc-token --aud https://login.demo.example.org",
        ),
        ("without audience", "ada", {"without": ["aud"]}, "not for this site"),
        ("expired", "ada", {"lifetime_s": -1}, "has expired"),
        ("under another person's name", "grace", {}, "log in as ada"),
        ("signed by a foreign key", "ada", {"key": "foreign-rsa"}, ""),
        ("signed by nobody", "ada", {"key": "none"}, ""),
        ("signed with the public key", "ada", {"key": "hmac-public"}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_token_that_is_refused(node: Node, sentence: str, name: str, options: dict[str, object], told: str) -> None:
    ran = node.by_token(name, node.mint("ada", **options))
    assert ran.returncode == 255
    assert told in ran.stderr
    assert not ran.stdout


@pytest.mark.parametrize("person", ["mallory", "oscar"])
def test_who_is_suspended_or_outside_has_no_account(node: Node, person: str) -> None:
    assert node.cluster.run(["getent", "passwd", person]).returncode == 2
    assert node.by_token(person, node.mint(person)).returncode == 255
    assert "reason=junk-from-sshd" in node.daemon_log


def test_root_stays_roots_own(node: Node) -> None:
    ran = node.by_token("root", node.mint("root"))
    assert ran.returncode == 255
    assert "u2" in node.cluster.run(["getent", "passwd"]).stdout
    assert node.cluster.bridge("map", "show", "root").returncode != 0


def test_of_two_kims_the_first_has_the_name(node: Node) -> None:
    assert node.by_token("kim", node.mint("kim")).stdout == "kim\n"
    ran = node.by_token("kim", node.mint("kim.sun"))
    assert ran.returncode == 255
    own = re.search(r"log in as (u\d+)\.", ran.stderr)
    assert own
    assert node.by_token(own[1], node.mint("kim.sun")).stdout == f"{own[1]}\n"


def test_a_leaver_is_locked_and_comes_back_to_the_same_account(node: Node) -> None:
    name = node.newcomer("leo")
    assert node.by_key(name).returncode == 0
    before = node.cluster.run(["getent", "passwd", name]).stdout
    node.iam.call("remove-from-group", person=name, group="hpc/users")
    node.provision()
    by_token, by_key = node.by_token(name, node.mint(name)), node.by_key(name)
    assert by_token.returncode == by_key.returncode == 255
    assert "no longer a member" in by_token.stderr
    assert "no longer a member" in by_key.stderr
    assert node.cluster.run(["getent", "shadow", name]).stdout.split(":")[7] == "1"
    node.iam.call("add-to-group", person=name, group="hpc/users")
    node.provision()
    assert node.by_token(name, node.mint(name)).stdout == f"{name}\n"
    assert node.cluster.run(["getent", "passwd", name]).stdout == before
    assert node.cluster.run(["getent", "shadow", name]).stdout.split(":")[7] == ""


def test_suspension_counts_although_the_token_is_alive(node: Node) -> None:
    name = node.newcomer("susan")
    token = node.mint(name)
    assert node.by_token(name, token).returncode == 0
    node.iam.call("suspend", person=name)
    node.provision()
    ran = node.by_token(name, token)
    assert ran.returncode == 255
    assert "suspended" in ran.stderr
    assert node.by_key(name).returncode == 255


def test_a_ban_ends_the_session_and_closes_every_door_within_a_second(node: Node) -> None:
    name = node.newcomer("boris")
    node.cluster.authorize(node.key, name)
    log = node.cluster.site.folder / "boris.log"
    argv = ["ssh", *node.cluster.ssh_options(), "-i", str(node.key), "-o", "BatchMode=yes", f"{name}@127.0.0.1"]
    session = node.cluster.start([*argv, "echo in; exec sleep 300"], log)
    until = time.monotonic() + 10
    while b"in" not in log.read_bytes() and time.monotonic() < until:
        time.sleep(0.05)
    ran = node.cluster.bridge("ban", "add", name, "--reason", "key on a public page")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    banned_at = time.monotonic()
    by_token = node.by_token(name, node.mint(name))
    assert time.monotonic() - banned_at < 1
    by_key = node.by_key(name)
    for door in (by_token, by_key):
        assert door.returncode == 255
        assert "key on a public page" in door.stderr
    assert session.wait(5) != 0
    lifted = node.cluster.bridge("ban", "lift", name)
    assert lifted.returncode == 0, lifted.stdout + lifted.stderr
    assert node.by_token(name, node.mint(name)).returncode == 0


def test_many_log_in_at_once(node: Node) -> None:
    tokens = [node.mint("ada", pad_to=4000) for _ in range(12)]
    folder = node.cluster.site.folder

    def log_in(number: int) -> str:
        token_file = folder / f"token-{number}"
        token_file.touch(mode=0o600)
        token_file.write_text(tokens[number])
        askpass = Path(__file__).parents[2] / "pam_module/client/iam-askpass"
        env = {
            "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force",
            "IAM_BRIDGE_TOKEN_FILE": str(token_file), "IAM_BRIDGE_HOST": "127.0.0.1",
        }  # fmt: skip
        argv = [
            "ssh",
            *node.cluster.ssh_options(),
            "-o",
            "PreferredAuthentications=keyboard-interactive",
            "ada@127.0.0.1",
            "id",
            "-un",
        ]
        return node.cluster.run(argv, env=env).stdout

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(log_in, range(12))) == ["ada\n"] * 12


def test_paramiko_sends_the_whole_token_at_once(node: Node) -> None:
    token = node.mint("ada", pad_to=3000)
    transport = paramiko.Transport(("127.0.0.1", node.cluster.port))
    try:
        transport.start_client(timeout=10)
        transport.auth_interactive("ada", lambda _title, _text, prompts: [token for _ in prompts])
        assert transport.is_authenticated()
    finally:
        transport.close()


def test_asyncssh_sends_the_whole_token_at_once(node: Node) -> None:
    token = node.mint("ada", pad_to=3000)

    class Client(asyncssh.SSHClient):
        def kbdint_auth_requested(self) -> str:
            return ""

        def kbdint_challenge_received(
            self, _name: str, _text: str, _lang: str, prompts: list[tuple[str, bool]]
        ) -> list[str]:
            return [token for _ in prompts]

    async def log_in() -> str:
        options = asyncssh.SSHClientConnectionOptions(
            username="ada",
            known_hosts=None,
            client_factory=Client,
            preferred_auth="keyboard-interactive",
            client_keys=None,
            config=None,
        )
        async with asyncssh.connect("127.0.0.1", node.cluster.port, options=options) as connection:
            return str((await connection.run("id -un")).stdout)

    assert asyncio.run(log_in()) == "ada\n"


def test_a_daemon_that_is_down_lets_nobody_in_by_key_or_token(node: Node) -> None:
    socket = node.cluster.site.socket
    aside = socket.with_suffix(".aside")
    os.rename(socket, aside)
    try:
        assert node.by_key("ada").returncode == 255
        assert node.by_token("ada", node.mint("ada")).returncode == 255
    finally:
        os.rename(aside, socket)
    assert node.by_key("ada").returncode == 0


def test_the_login_needs_no_network(node: Node) -> None:
    token = node.mint("ada")
    node.iam.call("reset-counters")
    assert node.by_token("ada", token).returncode == 0
    assert node.iam.call("counters") == {}


def test_the_host_is_untouched(node: Node) -> None:
    assert subprocess.run(["getent", "passwd", "ada"], check=False, capture_output=True).returncode == 2
    assert "extrausers" not in Path("/etc/nsswitch.conf").read_text()
    assert not Path("/etc/pam.d/sshd-iam-bridge").exists()


def test_no_token_is_in_any_log(node: Node) -> None:
    logs = "".join(path.read_text(errors="replace") for path in node.cluster.site.folder.glob("*.log"))
    receipts = (node.cluster.site.folder / "login" / "receipts.jsonl").read_text()
    assert "event=login" in logs
    assert "eyJ" not in logs + receipts
