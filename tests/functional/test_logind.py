"""The login daemon as a process: start and end, keys and outages, bans and views, settings read again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jws

from iam_bridge.demo.iam import EmbeddedIam, FaultKind, demo_people, running_iam
from iam_bridge.errors import Exit
from iam_bridge.ledger.chain import verify_lines
from iam_bridge.model.account import LockReason, UserName
from iam_bridge.model.change import LockAccount
from iam_bridge.model.identity import Issuer, Subject
from pam_module.wire import NO_UID, Phase, Reply, Request, Status, encode_request
from tests.functional.logind_process import CAUSE, ROOT, Site, now, receive, until, user_arguments

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another account takes root")
UNDECIDED = "This login cannot be decided right now. Please try again later or tell your site's support."


def permit(user: str, uid: int) -> tuple[Status, str, int]:
    return (Status.PERMIT, user, uid)


def brief(reply: Reply) -> tuple[Status, str, int]:
    return (reply.status, reply.user, reply.uid)


# --- a login from end to end


def test_one_login_through_all_phases_leaves_a_chain_that_holds(running: Site) -> None:
    assert running.ask(Phase.WHO, "ada").status is Status.PROMPT
    reply = running.auth("ada", running.token("ada"))
    assert brief(reply) == permit("ada", 20001)
    assert brief(running.ask(Phase.ACCOUNT, "ada")) == permit("ada", 20001)
    assert brief(running.ask(Phase.OPEN_SESSION, "ada", handle=reply.handle)) == permit("ada", 20001)
    assert brief(running.ask(Phase.CLOSE_SESSION, "ada")) == permit("ada", 20001)
    assert running.stop() == 0
    assert verify_lines(running.receipts) == ()
    lines = running.receipts.read_text().splitlines()
    assert [json.loads(line)["phase"] for line in lines] == ["auth", "account", "open_session", "close_session"]
    assert running.log.count("event=login") == 4
    head = json.loads(lines[-1])["hash"]
    assert f"event=receipts seq=4 head={head}" in running.log


def test_a_long_token_passes_in_one_frame(running: Site) -> None:
    assert running.auth("ada", running.token("ada", pad_to=19_999)).status is Status.PERMIT


PROFILES = [
    ("iam", "groups", "hpc/users"),
    ("wlcg", "wlcg.groups", "/hpc/users"),
    ("aarc", "entitlements", "urn:geant:iam.example:group:hpc:users"),
    ("kc", "roles", "hpc/users"),
]


@pytest.mark.parametrize(("profile", "claim", "spelled"), PROFILES, ids=[row[0] for row in PROFILES])
def test_groups_count_in_each_profile_of_the_iam(running: Site, profile: str, claim: str, spelled: str) -> None:
    running.iam.include_authn_info = True
    with_group = running.token("ada", profile=profile)
    assert spelled in claims_of(with_group)[claim]
    assert brief(running.auth("ada", with_group)) == permit("ada", 20001)
    without = running.token("ada", profile=profile, groups=["hpc/gpu"])
    assert spelled not in claims_of(without)[claim]
    assert running.auth("ada", without).status is Status.DENY
    until(lambda: "reason=token-lacks-group" in running.log)
    assert brief(running.auth("grace", running.token("grace", profile=profile))) == permit("grace", 20002)


@pytest.mark.parametrize("fault", [FaultKind.SLASHLESS_ISSUER, FaultKind.STRING_AUDIENCE])
def test_issuer_and_audience_count_in_either_spelling(running: Site, fault: FaultKind) -> None:
    running.iam.fault(fault)
    assert brief(running.auth("ada", running.token("ada"))) == permit("ada", 20001)


def claims_of(token: str) -> dict[str, Any]:
    claims = json.loads(jws.extract_compact(token.encode()).payload)
    assert isinstance(claims, dict)
    return claims


def test_foreign_accounts_leave_neither_line_nor_receipt(running: Site) -> None:
    for phase in Phase:
        if phase is not Phase.AUTH:
            assert running.ask(phase, "lea").status is Status.FOREIGN
            assert running.ask(phase, "root").status is Status.FOREIGN
    assert "event=login" not in running.log
    assert running.receipts.read_text() == ""


def test_a_stranger_s_issuer_sees_no_connection(running: Site, tmp_path: Path) -> None:
    stranger = EmbeddedIam(demo_people())
    with running_iam(stranger, tmp_path) as served:
        assert running.auth("ada", stranger.mint("ada", audience="https://login.hpc.example.org")).status is Status.DENY
        assert served.connections == 0
    assert "reason=untrusted-issuer" in running.log


# --- keys


def test_a_restart_with_kept_keys_needs_no_network(running: Site) -> None:
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    running.iam.reset_counters()
    before = running.served.connections
    running.restart()
    for _ in range(20):
        assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    assert running.served.connections == before


def test_fifty_people_with_a_new_key_make_one_fetch(running: Site) -> None:
    running.auth("ada", running.token("ada"))
    running.restart()
    running.iam.rotate_keys()
    running.iam.reset_counters()
    running.iam.fault(FaultKind.SLOW, path="/jwk", value=0.3)
    clients = [running.send(Phase.AUTH, "ada", running.token("ada")) for _ in range(50)]
    replies = [receive(client) for client in clients]
    for client in clients:
        client.close()
    assert {reply.status for reply in replies} == {Status.PERMIT}
    assert running.iam.count("/jwk") == 1


def test_an_unknown_kid_asks_once_and_then_cools_down(running: Site) -> None:
    running.auth("ada", running.token("ada"))
    running.restart()
    running.iam.reset_counters()
    for _ in range(30):
        forged = running.token("ada", headers={"kid": os.urandom(8).hex()})
        assert running.auth("ada", forged).status is Status.DENY
    assert running.iam.count("/jwk") == 1
    assert running.log.count("reason=unknown-key") == 30


def test_a_key_that_a_good_refresh_leaves_out_is_dead_at_once(running: Site) -> None:
    old = running.token("ada")
    assert running.auth("ada", old).status is Status.PERMIT
    running.restart()
    running.iam.rotate_keys(keep_old=False)
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    assert running.auth("ada", old).status is Status.DENY


def test_a_hanging_issuer_delays_nobody_whose_keys_are_here(running: Site) -> None:
    warm = running.token("ada")
    assert running.auth("ada", warm).status is Status.PERMIT
    running.restart()
    running.iam.fault(FaultKind.HANG)
    running.iam.rotate_keys()
    waiting = [running.send(Phase.AUTH, "grace", running.token("grace")) for _ in range(20)]
    times = []
    for _ in range(200):
        began = time.perf_counter()
        assert running.auth("ada", warm).status is Status.PERMIT
        times.append(time.perf_counter() - began)
    assert sorted(times)[190] < 0.05
    began = time.perf_counter()
    replies = [receive(client) for client in waiting]
    assert time.perf_counter() - began < 4.5
    assert {reply.status for reply in replies} == {Status.DENY}
    for client in waiting:
        client.close()


def test_an_outage_stops_nobody_until_the_keys_may_no_longer_be_used(node: Site) -> None:
    node.write_settings(refresh="1s", usable="3s")
    node.start()
    assert node.auth("ada", node.token("ada")).status is Status.PERMIT
    node.iam.fault(FaultKind.SERVER_ERROR)
    began = time.monotonic()
    node.restart()
    assert node.auth("ada", node.token("ada")).status is Status.PERMIT
    until(lambda: time.monotonic() - began > 3.2)
    reply = node.auth("ada", node.token("ada"))
    assert reply.status is Status.DENY
    assert "cannot be checked right now" in reply.text
    assert "reason=no-keys" in node.log


def test_an_empty_key_set_does_not_replace_a_good_one(node: Site) -> None:
    node.write_settings(refresh="1s")
    node.start()
    assert node.auth("ada", node.token("ada")).status is Status.PERMIT
    node.restart()
    node.iam.fault(FaultKind.EMPTY_KEYS)
    forged = node.token("ada", headers={"kid": "unknown"})
    assert node.auth("ada", forged).status is Status.DENY
    assert node.auth("ada", node.token("ada")).status is Status.PERMIT


# --- introspection


def introspecting(node: Site, validation: str, down: str = "deny") -> None:
    secret = node.folder / "login.secret"
    secret.write_text("login-secret\n")
    secret.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(secret, 65534, 65534)
    more = f"    validation: {validation}\n    down: {down}\n    client: {{id: login-client, secret_file: {secret}}}\n"
    node.write_settings(more=more)
    node.start()
    assert node.ready, node.log


@pytest.mark.parametrize("validation", ["introspect", "both"])
def test_a_revoked_token_is_refused_where_the_issuer_is_asked(node: Site, validation: str) -> None:
    introspecting(node, validation)
    token = node.token("ada")
    assert node.auth("ada", token).status is Status.PERMIT
    node.iam.revoke(token)
    assert node.auth("ada", token).status is Status.DENY
    assert "reason=inactive" in node.log


@pytest.mark.parametrize(("down", "status"), [("deny", Status.DENY), ("offline", Status.PERMIT)])
def test_an_issuer_that_does_not_answer_means_what_the_site_chose(node: Site, down: str, status: Status) -> None:
    introspecting(node, "both", down)
    assert node.auth("ada", node.token("ada")).status is Status.PERMIT
    node.iam.fault(FaultKind.HANG)
    began = time.perf_counter()
    assert node.auth("ada", node.token("ada")).status is status
    assert time.perf_counter() - began < 4.5


# --- bans, locks, views


def test_a_ban_holds_at_the_next_request_without_a_restart(running: Site) -> None:
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    ban = running.ledger.add_ban(now(), "test", name="ada", reason="ticket 5")
    running.publish()
    for reply in (running.auth("ada", running.token("ada")), running.ask(Phase.ACCOUNT, "ada")):
        assert (reply.status, reply.text) == (
            Status.DENY,
            "Your access to this site has been stopped. Reason: ticket 5",
        )
    running.ledger.lift_ban(ban.ban_id, now(), "test")
    running.publish()
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT


def test_a_lock_holds_at_the_next_request_and_an_older_view_changes_nothing(running: Site) -> None:
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    view = running.folder / "view.db"
    old = view.read_bytes()
    subject = Subject(Issuer.parse(running.served.issuer), running.iam.person("ada").id)
    change = LockAccount(subject, UserName.parse("ada"), 20001, LockReason.LEFT, CAUSE)
    running.ledger.commit(0, [change], now=now(), saved_expiry={}, by="test")
    running.publish()
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.EXPIRED
    aside = running.folder / "view.old"
    aside.write_bytes(old)
    aside.chmod(0o644)
    aside.replace(view)
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.EXPIRED
    assert "event=view verdict=refused" in running.log


# --- who may ask


@needs_root
def test_a_peer_that_is_not_named_gets_no_answer(node: Site) -> None:
    node.write_settings(peers=[12345])
    node.start()
    with node.connect() as client:
        client.settimeout(5)
        try:
            client.sendall(encode_request(Request(Phase.WHO, 1, "ada")))
            assert client.recv(10) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    until(lambda: "event=peer verdict=refused uid=0" in node.log)


@needs_root
def test_another_account_cannot_even_connect(running: Site) -> None:
    code = f"import os, socket; os.setresuid(1, 1, 1); socket.socket(socket.AF_UNIX).connect({running.socket!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr


@needs_root
def test_started_as_root_it_becomes_its_account_for_good(running: Site) -> None:
    assert running.process is not None
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65534"] * 4
    assert fields["Gid"].split() == ["65534"] * 4
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert "0" not in fields["Groups"].split()
    with running.connect() as client:  # what the module looks at: the account that called listen(2)
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("iII", credentials)[1] == 65534
    found = os.stat(running.socket)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, 65534)
    assert stat.S_IMODE(running.receipts.stat().st_mode) == 0o600


# --- start and end


def test_it_ends_on_a_signal_and_takes_its_socket_along(running: Site) -> None:
    assert running.stop(signal.SIGINT) == Exit.OK
    assert not os.path.exists(running.socket)
    running.start()
    assert running.stop(signal.SIGTERM) == Exit.OK
    assert not os.path.exists(running.socket)


def test_a_dead_daemon_s_socket_is_replaced_and_a_living_one_s_is_not(running: Site) -> None:
    assert running.process is not None
    living = running.process
    running.start()
    assert not running.ready
    assert running.process.wait(10) == Exit.UNAVAILABLE
    assert "another login daemon listens" in running.log
    running.process = living
    assert running.ask(Phase.WHO, "ada").status is Status.PROMPT
    living.kill()
    living.wait()
    assert os.path.exists(running.socket)
    running.start()
    assert running.ready, running.log
    assert running.ask(Phase.WHO, "ada").status is Status.PROMPT


def test_a_file_in_place_of_the_socket_is_left_alone(node: Site) -> None:
    (node.folder / "run").mkdir()
    (node.folder / "run/login.sock").write_text("precious")
    if os.geteuid() == 0:
        os.chown(node.folder / "run", 65534, 65534)
    node.start()
    assert not node.ready
    assert node.stop() == Exit.USAGE
    assert "is there and is no socket" in node.log
    assert Path(node.socket).read_text() == "precious"


@needs_root
def test_started_as_root_it_gives_nobody_s_file_away_through_a_link(node: Site) -> None:
    (node.folder / "run").mkdir()
    os.chown(node.folder / "run", 65534, 65534)
    precious = node.folder / "precious"
    precious.touch(0o600)
    os.link(precious, node.folder / "run/login.sock.lock")
    node.start()
    assert not node.ready
    assert node.stop() == Exit.USAGE
    assert "login.sock.lock is no file of its own" in node.log
    assert precious.stat().st_uid == 0


@needs_root
def test_a_folder_of_another_account_is_refused_in_words(node: Site) -> None:
    (node.folder / "run").mkdir()
    node.start()
    assert not node.ready
    assert node.stop() == Exit.USAGE
    assert "its folder must belong to the daemon's account" in node.log
    assert not os.path.exists(node.socket)


def test_a_socket_that_is_there_is_answered(node: Site) -> None:
    starter = threading.Thread(target=node.start)
    starter.start()
    until(lambda: os.path.exists(node.socket))
    assert node.ask(Phase.WHO, "ada").status is Status.PROMPT
    starter.join()


def test_systemd_is_told_when_it_serves(node: Site) -> None:
    path = str(node.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        os.chmod(path, 0o666)
        notify.settimeout(10)
        node.start(env={"NOTIFY_SOCKET": path})
        assert notify.recv(100) == b"READY=1"


def run(node: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pam_module.logind", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_check_says_what_is_missing_and_then_that_it_could_serve(running: Site) -> None:
    config = ["--config", str(running.folder / "iam-bridge.yaml"), "--check", *user_arguments()]
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    done = run(running, *config)
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout == f"iam-bridge-logind: ready to serve at {running.socket}\n"
    (running.folder / "bans").unlink()
    (running.folder / "view.db").unlink()
    done = run(running, *config)
    assert done.returncode == Exit.FAILED
    assert "the view" in done.stdout
    assert "the ban list" in done.stdout


BAD_STARTS = [
    ("no settings", ["--config", "/nonexistent/iam-bridge.yaml"], "cannot read /nonexistent/iam-bridge.yaml"),
    ("an option that does not exist", ["--demon"], "unrecognized arguments"),
    ("an abbreviated option", ["--conf", "x"], "unrecognized arguments"),
]


@pytest.mark.parametrize(("arguments", "sentence"), [row[1:] for row in BAD_STARTS], ids=[row[0] for row in BAD_STARTS])
def test_a_bad_start_ends_with_a_sentence_and_status_two(node: Site, arguments: list[str], sentence: str) -> None:
    done = run(node, *arguments)
    assert done.returncode == Exit.USAGE
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
@pytest.mark.parametrize(("name", "sentence"), [("nemo-nemo", "there is no account"), ("root", "does not run as root")])
def test_it_never_serves_as_root_or_as_nobody_known(node: Site, name: str, sentence: str) -> None:
    done = run(node, "--config", str(node.folder / "iam-bridge.yaml"), "--user", name)
    assert (done.returncode, sentence in done.stderr) == (Exit.USAGE, True)


# --- settings read again


def test_settings_with_problems_change_nothing_and_each_problem_is_logged(running: Site) -> None:
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT
    good = (running.folder / "iam-bridge.yaml").read_text()
    (running.folder / "iam-bridge.yaml").write_text(good.replace("audience: [", "audience: []  # [") + "unknown: 1\n")
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.log.count("event=settings verdict=refused") == 2)
    assert running.auth("ada", running.token("ada")).status is Status.PERMIT


def test_new_settings_count_without_a_restart(running: Site) -> None:
    other = "https://login.other.example.org"
    assert running.auth("ada", running.token("ada", audience=other)).status is Status.DENY
    running.write_settings(audience=other)
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "event=settings verdict=accepted" in running.log)
    assert running.auth("ada", running.token("ada", audience=other)).status is Status.PERMIT
    assert running.auth("ada", running.token("ada")).status is Status.DENY


def test_a_reload_does_not_forget_the_view_that_was_good(running: Site) -> None:
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    (running.folder / "view.db").unlink()
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "event=settings verdict=accepted" in running.log)
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    assert running.ask(Phase.WHO, "lea").status is Status.FOREIGN


# --- trouble


def test_a_full_disk_permits_nobody_and_locks_no_foreigner_out(node: Site) -> None:
    node.start(within=("prlimit", "--fsize=5000"))
    replies = [node.ask(Phase.ACCOUNT, "ada") for _ in range(20)]
    assert brief(replies[0]) == permit("ada", 20001)
    assert replies[-1] == Reply(Status.DENY, NO_UID, "", UNDECIDED)
    assert node.ask(Phase.ACCOUNT, "lea").status is Status.FOREIGN
    node.restart()
    assert node.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    node.stop()
    assert verify_lines(node.receipts) == ()


def test_a_log_that_nobody_reads_keeps_nobody_out(node: Site) -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    try:
        node.start(errors=full)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(full, b"x" * 4096)
        os.set_blocking(full, True)
        replies = [node.ask(Phase.ACCOUNT, "ada") for _ in range(20)]
        assert {brief(reply) for reply in replies} == {permit("ada", 20001)}
        os.read(unread, 1 << 20)
        assert node.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
        assert b" lost_lines=" in os.read(unread, 1 << 20)
    finally:
        os.close(full)
        os.close(unread)


def test_a_crash_in_the_middle_of_a_receipt_is_mended_at_the_next_start(running: Site) -> None:
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    assert running.process is not None
    running.process.kill()
    running.process.wait()
    with running.receipts.open("ab") as file:
        file.write(b'{"at":"2026-05-03T12:00')
    running.start()
    assert running.ready, running.log
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    running.stop()
    assert verify_lines(running.receipts) == ()
    assert '"kind":"torn"' in running.receipts.read_text()


def test_two_hundred_logins_at_once_are_all_decided(running: Site) -> None:
    token = running.token("ada")
    clients = [running.send(Phase.AUTH, "ada", token) for _ in range(200)]
    replies = [receive(client) for client in clients]
    for client in clients:
        client.close()
    assert {brief(reply) for reply in replies} == {permit("ada", 20001)}
    assert len({reply.handle for reply in replies}) == 200
    running.stop()
    assert verify_lines(running.receipts) == ()


def test_receipts_go_on_in_a_new_file_after_they_were_moved_away(running: Site) -> None:
    assert running.process is not None
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    old = running.receipts.with_name("receipts.jsonl-20261122")
    running.receipts.rename(old)
    assert running.ask(Phase.ACCOUNT, "ada").status is Status.PERMIT
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "verdict=continued" in running.log)
    assert running.ask(Phase.ACCOUNT, "grace").status is Status.PERMIT
    before = [json.loads(line) for line in old.read_text().splitlines()]
    after = [json.loads(line) for line in running.receipts.read_text().splitlines()]
    assert [receipt["user"] for receipt in before] == ["ada", "ada"]
    assert (after[0]["kind"], after[1]["user"]) == ("continues", "grace")
    assert before[-1]["hash"] in after[0]["detail"]
    assert verify_lines(old) == verify_lines(running.receipts) == ()
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.log.count("event=settings verdict=accepted") == 2)
    assert len(running.receipts.read_text().splitlines()) == 2
