"""What the module says to syslog, and that no secret is among it. PAM runs in a process with a captured syslog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pam.conftest import LOCAL, OURS, ROOT, Bench
from tests.pam.libpam import Pam
from tests.pam.stand_in import Behaviour, permits

CANARY = "eyJhbGciOiJSUzI1NiJ9.Y2FuYXJ5.c2VjcmV0"
LOG_ALERT, LOG_CRIT, LOG_ERR, LOG_DEBUG = 1, 2, 3, 7
Happened = tuple[dict[str, list[int]], str]
Run = Callable[..., Happened]


@pytest.fixture
def run(bench: Bench, compiled: Callable[..., Path], tmp_path: Path) -> Run:
    """Run PAM in a process whose syslog goes to a file; returns what happened and the log."""

    def run(steps: list[str], answers: list[str] | None = None, user: str = OURS.pw_name, **env: str) -> Happened:
        log = tmp_path / "syslog"
        scenario = {
            "confdir": str(bench.confdir),
            "service": "iam",
            "user": user,
            "answers": answers or [],
            "steps": steps,
        }
        libraries = [str(compiled("capture_syslog")), *(["libnss_wrapper.so"] if env else [])]
        preload = {"LD_PRELOAD": ":".join(libraries), "CAPTURE_SYSLOG": str(log), **env}
        done = subprocess.run(
            [sys.executable, "-m", "tests.pam.libpam"],
            input=json.dumps(scenario),
            env={**os.environ, **preload},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout), log.read_text() if log.exists() else ""

    return run


ALL = ["authenticate", "acct_mgmt", "setcred", "open_session", "close_session"]


def test_no_secret_is_logged(bench: Bench, run: Run) -> None:
    bench.write_stack(bench.options() + " debug")
    bench.serve(permits(OURS.pw_name, OURS.pw_uid, handle="handle0123"))
    happened, log = run(ALL, [CANARY])
    assert happened["results"] == [Pam.SUCCESS] * 5
    said = [line.split(": ", 1)[1] for line in log.splitlines() if line.startswith(f"{LOG_DEBUG} ")]
    assert said == ["who: prompt", "auth: permit", "account: permit", "open_session: permit", "close_session: permit"]
    assert CANARY not in log
    assert "handle0123" not in log


def test_without_debug_a_good_login_says_nothing(bench: Bench, run: Run) -> None:
    bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    assert run(ALL, [CANARY]) == ({"results": [0] * 5, "prompts": ["Access Token: "], "messages": []}, "")


@pytest.mark.parametrize(
    ("options", "behaviour", "level", "words"),
    [
        ({}, None, LOG_ERR, "does not run"),
        ({"daemon": "no-such-user"}, permits("x", 1), LOG_ERR, "the user that daemon= names does not exist here"),
        ({"daemon": str(os.getuid() + 1)}, permits("x", 1), LOG_ERR, "does not run as the user that daemon= names"),
        ({}, permits("x", 1), LOG_CRIT, "it names another user"),
        ({}, permits(OURS.pw_name, 1), LOG_CRIT, "it names another uid than this host's"),
        ({"uids": "1-2"}, permits(OURS.pw_name, OURS.pw_uid), LOG_CRIT, "the uid is 0 or outside uids="),
        ({"timeout": "soon"}, permits("x", 1), LOG_ERR, 'option "timeout=soon" is unknown or has a value'),
    ],
)
def test_the_log_says_what_to_mend(
    bench: Bench, run: Run, options: dict[str, str], behaviour: Behaviour | None, level: int, words: str
) -> None:
    bench.write_stack(bench.options(**options))
    if behaviour:
        bench.serve(behaviour)
    happened, log = run(["authenticate"], [CANARY])
    assert happened["results"] != [Pam.SUCCESS]
    (line,) = log.splitlines()
    assert line.startswith(f"{level} ")
    assert words in line
    assert CANARY not in log


def test_a_token_that_is_too_long_is_logged_without_it(bench: Bench, run: Run) -> None:
    bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    happened, log = run(["authenticate"], [CANARY * 1000])
    assert happened["results"] == [Pam.MAXTRIES]
    assert "a token of more than 20000 bytes was refused" in log
    assert CANARY not in log


def test_break_glass_is_an_alert_that_names_the_person(bench: Bench, run: Run, with_groups: Path) -> None:
    bench.write_stack(bench.options(breakglass="glass"), extra="account required pam_permit.so\n", module=with_groups)
    happened, log = run(["acct_mgmt"], user=LOCAL.pw_name)
    assert happened["results"] == [Pam.SUCCESS]
    alerts = [line for line in log.splitlines() if line.startswith(f"{LOG_ALERT} ")]
    assert [line.split(": ", 1)[1] for line in alerts] == [
        f"break-glass: {LOCAL.pw_name} of group glass passes without a verdict of the login daemon"
    ]


def test_nss_and_the_permit_must_agree_on_the_uid(bench: Bench, run: Run, tmp_path: Path) -> None:
    bench.write_stack(bench.options(uids="20000-59999"))
    bench.serve(permits("tess", 20001))
    (tmp_path / "group").write_text("")
    passwd = tmp_path / "passwd"
    wrapped = {"NSS_WRAPPER_PASSWD": str(passwd), "NSS_WRAPPER_GROUP": str(tmp_path / "group")}
    results = []
    for uid in (20001, 20002, 0):
        passwd.write_text(f"tess:x:{uid}:20001::/nonexistent:/bin/sh\n")
        results += run(["acct_mgmt"], user="tess", **wrapped)[0]["results"]
    assert results == [Pam.SUCCESS, Pam.PERM_DENIED, Pam.PERM_DENIED]
