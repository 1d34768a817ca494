"""`doctor` on a scratch root with real files, a real daemon and a real issuer: good as it stands, and what breaks it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.cli.doctor.host import Host
from iam_bridge.cli.doctor.sshd import check_sshd
from iam_bridge.cli.doctor.stack import read_stack
from iam_bridge.ledger.view_format import fresh_path
from iam_bridge.policy.doctor import Mark
from tests.functional.command_line import ROOT, as_nobody, call, spawn
from tests.functional.logind_process import Site
from tests.functional.site import Ran

Capsys = pytest.CaptureFixture[str]
IS_ROOT = os.geteuid() == 0
DAEMON_UID = 65534 if IS_ROOT else os.geteuid()
DAEMON_NAME = "nobody" if IS_ROOT else "tester"
SHIPPED = (ROOT / "config" / "pam.d" / "sshd-iam-bridge").read_text()
DROP_IN = (ROOT / "config" / "sshd_config.d" / "10-iam-bridge.conf").read_text()
COMMON = {
    "common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n",
    "common-account": "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\naccount requisite pam_deny.so\n"
                      "account required pam_permit.so\n",
    "common-session": "session required pam_unix.so\n",
    "common-password": "password required pam_unix.so\n",
}  # fmt: skip
DEBIAN_SSHD = (
    "Include /etc/ssh/sshd_config.d/*.conf\n\nKbdInteractiveAuthentication no\nUsePAM yes\nX11Forwarding yes\n"
)


class Patient:
    """A host below a folder, and the settings that name the daemon's files."""

    def __init__(self, folder: Path, node: Site) -> None:
        self.root = folder
        self.node = node
        line = f"pam_iam.so uids=20000-59999 socket={node.socket} daemon={DAEMON_NAME} breakglass=glass"
        self.put("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\nshadow: files systemd\n")
        self.put("/etc/login.defs", "UID_MIN 1000\nUID_MAX 19999\nGID_MIN 1000\nGID_MAX 19999\n")
        rows = {"root": 0, "lea": 1000, "tester": 1001, "nobody": 65534} | {DAEMON_NAME: DAEMON_UID}
        users = "".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in (rows | node.uids).items())
        self.put("/etc/passwd", users + "iam-bridge-sync:x:991:991::/:/usr/sbin/nologin\n")
        self.put("/etc/group", "root:x:0:\nglass:x:900:lea\n")
        self.put("/etc/pam.d/sshd", SHIPPED.replace("pam_iam.so uids=20000-59999", line))
        for name, text in COMMON.items():
            self.put(f"/etc/pam.d/{name}", text)
        self.put("/etc/ssh/sshd_config", DEBIAN_SSHD)
        self.put("/etc/ssh/sshd_config.d/10-iam-bridge.conf", DROP_IN)
        self.put("/usr/lib/x86_64-linux-gnu/security/pam_iam.so", "\x7fELF")
        self.settings = node.folder / "iam-bridge.yaml"
        text = self.settings.read_text().replace("  socket:", f"  user: {DAEMON_NAME}\n  socket:")
        closed = node.folder / "closed"
        closed.mkdir(mode=0o700)
        shutil.copyfile(node.folder / "ledger.db", closed / "ledger.db")
        (closed / "ledger.db").chmod(0o600)
        self.settings.write_text(text.replace(f"{node.folder}/ledger.db", f"{closed}/ledger.db"))

    def put(self, path: str, text: str) -> None:
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.at(path).read_text()
        assert old in text
        self.put(path, text.replace(old, new))

    def arguments(self, *more: str) -> tuple[object, ...]:
        return ("doctor", "--config", self.settings, "--root", self.root, *more)


@pytest.fixture
def patient(running: Site, tmp_path: Path) -> Patient:
    """A host on which everything is as it should be, keys kept and the daemon running."""
    made = Patient(tmp_path / "host", running)
    ran = spawn("keys", "refresh", "--config", made.settings)
    assert ran.status == 0, ran.all
    return made


def rows_of(ran: Ran) -> dict[str, dict[str, Any]]:
    """Give the rows by name, the worst where a name comes twice."""
    order = [mark.value for mark in Mark]
    found: dict[str, dict[str, Any]] = {}
    for row in ran.json():
        if row["what"] not in found or order.index(row["verdict"]) > order.index(found[row["what"]]["verdict"]):
            found[row["what"]] = row
    return found


def not_ok(ran: Ran) -> dict[str, str]:
    return {what: row["verdict"] for what, row in rows_of(ran).items() if row["verdict"] != "ok"}


@pytest.mark.skipif(not IS_ROOT, reason="the module must belong to root")
def test_a_host_as_it_should_be_has_nothing_to_mend(patient: Patient, capsys: Capsys) -> None:
    ran = call(capsys, *patient.arguments("--json"))
    assert not_ok(ran) == {}, ran.out
    assert ran.status == 0
    assert {"sshd UsePAM", "PAM sshd auth", "nsswitch passwd", "login daemon", "settings file", "view folder",
            "room for receipts", f"clock, {patient.node.served.issuer}", f"keys, {patient.node.served.issuer}",
            f"members, {patient.node.served.issuer}", "accounts in NSS", "login.user", "break-glass group",
            "login.defs UID_MIN", "the module pam_iam.so", "options of pam_iam.so"} <= rows_of(ran).keys()  # fmt: skip


def test_the_report_for_people_ends_with_what_to_mend(patient: Patient, capsys: Capsys) -> None:
    patient.put("/etc/nsswitch.conf", "passwd: sss\n")
    ran = call(capsys, *patient.arguments())
    assert ran.status == 1
    assert "bad: nsswitch passwd: sss" in ran.out
    assert "  -> local accounts are not looked up: let the line begin with files" in ran.out
    assert " bad, " in ran.out.splitlines()[-1]


def _remove_drop_in(patient: Patient) -> None:
    patient.at("/etc/ssh/sshd_config.d/10-iam-bridge.conf").unlink()


def _sort_behind(patient: Patient) -> None:
    patient.put("/etc/ssh/sshd_config.d/05-site.conf", "KbdInteractiveAuthentication no\n")


def _open_folder(path: Path) -> None:
    path.chmod(0o777)


BREAKS: list[tuple[str, Callable[[Patient], object], str, str, str]] = [
    ("Debian closes keyboard-interactive", _remove_drop_in, "sshd KbdInteractiveAuthentication", "bad",
     "no (first in /etc/ssh/sshd_config:3)"),
    ("another drop-in sorts before ours", _sort_behind, "sshd KbdInteractiveAuthentication", "bad",
     "first in /etc/ssh/sshd_config.d/05-site.conf:1"),
    ("sshd_config reads no drop-ins", lambda p: p.edit("/etc/ssh/sshd_config", "Include", "#Include"), "sshd drop-in",
     "bad", "is not read"),
    ("the distribution's stack", lambda p: p.put("/etc/pam.d/sshd", "@include common-auth\n@include common-account\n"),
     "PAM sshd account", "bad", "by key a banned person comes in"),
    ("no stack at all", lambda p: p.at("/etc/pam.d/sshd").unlink(), "PAM sshd", "bad", "does not exist"),
    ("our account line behind the distribution's", lambda p: p.edit(
        "/etc/pam.d/sshd", "account    [success", "@include common-account\naccount    [success"),
     "PAM sshd account", "bad", "/etc/pam.d/common-account:1: pam_unix.so may end it"),
    ("a stack that includes itself", lambda p: p.put("/etc/pam.d/common-auth", "@include common-auth\n"),
     "PAM sshd passwords", "ok", "closed by"),
    ("passwords are open again", lambda p: p.edit("/etc/pam.d/sshd", "pam_deny.so", "pam_warn.so"),
     "PAM sshd passwords", "warn", "local accounts can log in by password"),
    ("a stale range in the stack", lambda p: p.edit("/etc/pam.d/sshd", "20000-59999", "20000-29999"),
     "options of pam_iam.so", "bad", "leaves out numbers"),
    ("the module is gone", lambda p: p.at("/usr/lib/x86_64-linux-gnu/security/pam_iam.so").unlink(),
     "the module pam_iam.so", "bad", "does not exist"),
    ("the module can be written by others", lambda p: p.at("/usr/lib/x86_64-linux-gnu/security/pam_iam.so").chmod(0o666),
     "the module pam_iam.so", "bad", "0666"),
    ("the break-glass group is gone", lambda p: p.put("/etc/group", "root:x:0:\n"), "break-glass group", "bad", "glass"),
    ("useradd gives our numbers", lambda p: p.edit("/etc/login.defs", "UID_MAX 19999", "UID_MAX 60000"),
     "login.defs UID_MIN", "warn", "1000-60000"),
    ("nobody pulls", lambda p: p.edit("/etc/passwd", "iam-bridge-sync", "else"), "pull, ISSUER", "bad", "no such account"),
    ("our people are unknown", lambda p: p.edit("/etc/passwd", "ada:", "eda:"), "accounts in NSS", "bad",
     "unknown here: ada"),
    ("our people have other numbers", lambda p: p.edit("/etc/passwd", "ada:x:20001", "ada:x:1005"), "accounts in NSS",
     "bad", "ada is 1005 and not 20001"),
    ("who answers is not login.user", lambda p: p.edit("/etc/passwd", f"{DAEMON_NAME}:x:{DAEMON_UID}", f"{DAEMON_NAME}:x:77"),
     "login daemon", "bad", "not by 77"),
    ("the daemon is down", lambda p: p.node.stop(), "login daemon", "bad", "No such file"),
    ("the issuer is silent", lambda p: p.node.iam.fault("server-error"), "clock, ISSUER", "bad", "answered 500"),
    ("the issuer hangs", lambda p: p.node.iam.fault("hang"), "clock, ISSUER", "bad", "not compared"),
    ("the keys are lost", lambda p: shutil.rmtree(p.node.folder / "state/keys"), "keys, ISSUER", "warn", "none kept"),
    ("anybody may write keys", lambda p: _open_folder(p.node.folder / "state/keys"), "key cache", "bad", "0777"),
    ("anybody may answer for the daemon", lambda p: _open_folder(p.node.folder / "run"), "socket folder", "bad", "0777"),
    ("anybody may write the view", lambda p: _open_folder(p.node.folder), "view folder", "bad", "0777"),
    ("anybody may write the ban list", lambda p: (p.node.folder / "bans").chmod(0o666), "ban list file", "bad", "0666"),
    ("the view is damaged", lambda p: (p.node.folder / "view.db").write_text("no view"), "view", "bad", "damaged"),
    ("the view is gone", lambda p: (p.node.folder / "view.db").unlink(), "view", "bad", "No such file"),
    ("the ledger is open", lambda p: (p.node.folder / "closed/ledger.db").chmod(0o644), "ledger", "bad", "0644"),
    ("hostile text in a stack", lambda p: p.edit("/etc/pam.d/sshd", "default=die]", "default=\x1b[31mdie]"),
     "PAM sshd auth", "bad", "success=done"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "break_it", "what", "verdict", "said"), BREAKS, ids=[row[0] for row in BREAKS])
def test_what_is_broken_is_found(
    patient: Patient, capsys: Capsys, sentence: str, break_it: Callable[[Patient], object], what: str, verdict: str,
    said: str,
) -> None:  # fmt: skip
    break_it(patient)
    ran = call(capsys, *patient.arguments("--json"))
    row = rows_of(ran)[what.replace("ISSUER", patient.node.served.issuer)]
    assert (row["verdict"], said in row["found"]) == (verdict, True), row
    assert bool(row["fix"]) == (verdict != "ok")
    assert ran.status == (1 if "bad" in not_ok(ran).values() else 0)
    assert "\x1b" not in call(capsys, *patient.arguments()).out


def test_a_clock_that_is_off_is_found(patient: Patient, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = timedelta(seconds=90)
    monkeypatch.setattr("iam_bridge.cli.doctor_cmd.utc_now", lambda: datetime.now(UTC) + ahead)
    row = rows_of(call(capsys, *patient.arguments("--json")))[f"clock, {patient.node.served.issuer}"]
    assert row["verdict"] == "bad"
    assert 88 <= int(row["found"].split()[0]) <= 93
    assert "ahead of the issuer" in row["found"]


def test_members_that_are_old_are_found(patient: Patient, capsys: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    what = f"members, {patient.node.served.issuer}"
    for ahead, verdict in ((timedelta(minutes=20), "warn"), (timedelta(days=2), "bad")):
        monkeypatch.setattr("iam_bridge.cli.doctor_cmd.utc_now", lambda ahead=ahead: datetime.now(UTC) + ahead)
        assert rows_of(call(capsys, *patient.arguments("--json")))[what]["verdict"] == verdict
    assert fresh_path(patient.node.folder / "view.db").exists()


def test_extrausers_must_be_asked(patient: Patient, capsys: Capsys) -> None:
    text = patient.settings.read_text()
    patient.settings.write_text(
        text.replace("accounts:\n", f"accounts:\n  layout: extrausers\n  folder: {patient.root}\n")
    )
    assert rows_of(call(capsys, *patient.arguments("--json")))["nsswitch passwd"]["verdict"] == "bad"
    order = "passwd: files extrausers\ngroup: files extrausers\nshadow: files extrausers\n"
    patient.put("/etc/nsswitch.conf", order)
    assert rows_of(call(capsys, *patient.arguments("--json")))["nsswitch passwd"]["verdict"] == "ok"


@pytest.mark.skipif(not IS_ROOT, reason="becoming nobody needs root")
def test_without_root_it_says_what_it_could_not_see(patient: Patient) -> None:
    patient.root.parent.chmod(0o755)
    shutil.copytree(patient.root, patient.node.folder / "host")
    arguments = ("doctor", "--config", patient.settings, "--root", patient.node.folder / "host", "--json")
    rows = rows_of(spawn(*arguments, within=as_nobody()))
    assert "Permission denied" in rows["ledger"]["found"]
    assert (rows["ledger"]["verdict"], rows["ledger"]["fix"][:18]) == ("warn", "run doctor as root")
    assert rows["PAM sshd auth"]["verdict"] == "ok"


def test_this_host_itself_can_be_looked_at(patient: Patient) -> None:
    ran = spawn("doctor", "--config", patient.settings, "--json")
    assert ran.status in (0, 1)
    assert {"sshd UsePAM", "nsswitch passwd", "login daemon"} <= rows_of(ran).keys() or not Path(
        "/etc/ssh/sshd_config"
    ).exists()


def test_settings_with_problems_are_a_matter_of_config_check(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "c.yaml").write_text("version: 1\n")
    (tmp_path / "c.yaml").chmod(0o644)
    ran = call(capsys, "doctor", "--config", tmp_path / "c.yaml")
    assert (ran.status, "line 1" in ran.err) == (2, True)


def test_a_root_that_is_none_is_refused(patient: Patient, capsys: Capsys) -> None:
    ran = call(capsys, "doctor", "--config", patient.settings, "--root", "/nonexistent")
    assert (ran.status, "there is no such folder" in ran.err) == (2, True)


# ---- how files are put together ----------------------------------------------------------------------------------


def put(root: Path, **files: str) -> Host:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root, root / "accounts")


def test_an_include_takes_its_own_phase_and_a_substack_is_marked(tmp_path: Path) -> None:
    host = put(tmp_path, **{
        "etc/pam.d/sshd": "auth include system\naccount substack system\nauth required pam_last.so\n",
        "usr/lib/pam.d/system": "auth required pam_a.so\naccount required pam_b.so\nsession required pam_c.so\n",
    })  # fmt: skip
    lines = read_stack(host, "sshd")
    assert lines is not None
    assert [(line.phase, line.module, line.is_inner) for line in lines] == [
        ("auth", "pam_a.so", False), ("account", "pam_b.so", True), ("auth", "pam_last.so", False),
    ]  # fmt: skip


def test_a_service_that_is_only_in_usr_lib_is_found(tmp_path: Path) -> None:
    host = put(tmp_path, **{"usr/lib/pam.d/sshd": "auth required pam_a.so\n"})
    assert [line.origin for line in read_stack(host, "sshd") or ()] == ["/usr/lib/pam.d/sshd:1"]
    assert read_stack(host, "other") is None


def test_includes_of_sshd_are_read_where_they_stand(tmp_path: Path) -> None:
    host = put(tmp_path, **{
        "etc/ssh/sshd_config": "Include conf.d/*.conf /etc/ssh/more\nUsePAM no\nMatch User ada\nInclude late\n",
        **{f"etc/ssh/conf.d/{number}.conf": "UsePAM no\n" for number in range(20, 30)},
        "etc/ssh/conf.d/12.conf": "UsePAM yes\nMatch User ben\nPasswordAuthentication yes\n",
        **{f"etc/ssh/conf.d/{number}.conf": "UsePAM no\n" for number in range(30, 40)},
        "etc/ssh/more": "PasswordAuthentication no\nPAMServiceName our-sshd\n",
        "etc/ssh/late": "KbdInteractiveAuthentication no\n",
    })  # fmt: skip
    service, checks = check_sshd(host)
    found = {check.what: check for check in checks if check.what != "sshd Match"}
    assert service == "our-sshd"
    assert found["sshd UsePAM"].found == "yes (first in /etc/ssh/conf.d/12.conf:1)"
    assert found["sshd PasswordAuthentication"].found == "no (first in /etc/ssh/more:1)"
    assert found["sshd KbdInteractiveAuthentication"].verdict is Mark.OK
    assert sorted(check.found.split()[0] for check in checks if check.what == "sshd Match") == [
        "/etc/ssh/conf.d/12.conf:3", "/etc/ssh/late:1",
    ]  # fmt: skip


def test_a_host_without_sshd_is_said(tmp_path: Path) -> None:
    _, checks = check_sshd(Host(tmp_path, tmp_path))
    assert [check.verdict for check in checks] == [Mark.WARN]
