"""The stack that is shipped, control words and order as they stand in config/pam.d/sshd-iam-bridge.

The options of our module are replaced; what the distribution includes is a stand-in that permits and leaves a mark;
in the session phase the distribution's own modules, which need root, permit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pam_module.wire import Phase, Reply, Status
from tests.pam.conftest import LOCAL, OURS, ROOT, Bench
from tests.pam.libpam import Pam, whole
from tests.pam.stand_in import permits, says

SHIPPED = (ROOT / "config" / "pam.d" / "sshd-iam-bridge").read_text()
REACHED = "nothing was left behind"  # what tests/pam/probe.c says when the distribution's auth lines are asked
PERMIT = permits(OURS.pw_name, OURS.pw_uid)
FOREIGN = says(dict.fromkeys(Phase, Reply(Status.FOREIGN)))

Install = Callable[..., None]


@pytest.fixture
def install(bench: Bench, compiled: Callable[..., Path], with_groups: Path) -> Install:
    """Install the shipped text, with or without the line that keeps password logins closed."""

    def install(*, passwords: bool = False, breakglass: str | None = None) -> None:
        ours = f"{with_groups} {bench.options(breakglass=breakglass)}"
        text = re.sub(r"pam_iam\.so uids=.*", ours, SHIPPED)
        assert text.count(str(with_groups)) == 3
        text = re.sub(r"^(session\s.*\s)pam_(?!iam)\w+\.so.*", r"\1pam_permit.so", text, flags=re.MULTILINE)
        # Debian's @include looks into /etc/pam.d whatever folder the application named, so the stand-ins need a path.
        text, included = re.subn(r"^@include ", f"@include {bench.confdir}/", text, flags=re.MULTILINE)
        assert included == 4
        if passwords:
            text, gone = re.subn(r"^auth .*pam_deny\.so\n", "", text, flags=re.MULTILINE)
            assert gone == 1
        (bench.confdir / "sshd").write_text(text)
        (bench.confdir / "common-auth").write_text(f"auth required {compiled('probe', '-lpam')}\n")
        # sufficient, as the distribution's pam_unix line nearly is: what was refused before must stay refused
        (bench.confdir / "common-account").write_text("account sufficient pam_permit.so\n")
        (bench.confdir / "common-session").write_text("session sufficient pam_permit.so\n")
        (bench.confdir / "common-password").write_text("password required pam_deny.so\n")

    return install


BOTH = pytest.mark.parametrize("passwords", [False, True], ids=["passwords closed", "passwords open"])


@BOTH
def test_our_person_with_a_permit_comes_in(bench: Bench, install: Install, passwords: bool) -> None:
    install(passwords=passwords)
    bench.serve(PERMIT)
    pam = bench.start(OURS.pw_name, whole(b"token"), "sshd")
    steps = [pam.authenticate(), pam.acct_mgmt(), pam.setcred(), pam.open_session(), pam.setcred(), pam.close_session()]
    assert steps == [Pam.SUCCESS] * 6
    assert pam.environment == {}, "the distribution's auth lines were not asked"


@BOTH
@pytest.mark.parametrize("status", [Status.DENY, Status.EXPIRED])
def test_a_refused_token_is_not_tried_as_a_password(
    bench: Bench, install: Install, passwords: bool, status: Status
) -> None:
    install(passwords=passwords)
    bench.serve(permits(OURS.pw_name, OURS.pw_uid, refuse={Phase.AUTH: Reply(status)}))
    pam = bench.start(OURS.pw_name, whole(b"token"), "sshd")
    assert pam.authenticate() == Pam.MAXTRIES
    assert len(pam.prompts) == 1
    assert pam.environment == {}


@pytest.mark.parametrize(("status", "result"), [(Status.DENY, Pam.PERM_DENIED), (Status.EXPIRED, Pam.ACCT_EXPIRED)])
def test_a_denied_account_stays_denied(bench: Bench, install: Install, status: Status, result: Pam) -> None:
    install()
    bench.serve(permits(OURS.pw_name, OURS.pw_uid, refuse={Phase.ACCOUNT: Reply(status)}))
    assert bench.start(OURS.pw_name, service="sshd").acct_mgmt() == result


def test_a_denied_session_is_not_opened(bench: Bench, install: Install) -> None:
    install()
    bench.serve(permits(OURS.pw_name, OURS.pw_uid, refuse={Phase.OPEN_SESSION: Reply(Status.DENY)}))
    assert bench.start(OURS.pw_name, service="sshd").open_session() == Pam.SESSION_ERR


def test_our_person_with_a_key_needs_account_alone(bench: Bench, install: Install) -> None:
    install()
    daemon = bench.serve(PERMIT)
    pam = bench.start(OURS.pw_name, service="sshd")
    assert [pam.acct_mgmt(), pam.setcred(), pam.open_session()] == [Pam.SUCCESS] * 3
    assert daemon.phases == [Phase.ACCOUNT, Phase.OPEN_SESSION]
    assert pam.prompts == []


def test_a_foreign_account_has_no_password_login_where_it_was_closed(bench: Bench, install: Install) -> None:
    install()
    bench.serve(FOREIGN)
    pam = bench.start(LOCAL.pw_name, whole(b"password"), "sshd")
    assert pam.authenticate() == Pam.AUTH_ERR
    assert pam.prompts == []
    assert pam.environment == {}


def test_a_foreign_account_keeps_its_password_login_where_it_was_open(bench: Bench, install: Install) -> None:
    install(passwords=True)
    bench.serve(FOREIGN)
    pam = bench.start(LOCAL.pw_name, whole(b"password"), "sshd")
    assert [pam.authenticate(), pam.acct_mgmt(), pam.setcred()] == [Pam.SUCCESS] * 3
    assert pam.environment == {"PROBE": REACHED, "PROBE_SETCRED": "reached"}


@BOTH
def test_a_foreign_account_with_a_key_is_as_before(bench: Bench, install: Install, passwords: bool) -> None:
    install(passwords=passwords)
    bench.serve(FOREIGN)
    pam = bench.start(LOCAL.pw_name, service="sshd")
    assert [pam.acct_mgmt(), pam.setcred(), pam.open_session(), pam.close_session()] == [Pam.SUCCESS] * 4
    assert pam.environment == {"PROBE_SETCRED": "reached"}, "the distribution's setcred went on"


def test_what_the_distribution_refuses_a_foreign_account_stays_refused(bench: Bench, install: Install) -> None:
    install()
    (bench.confdir / "common-account").write_text("account required pam_deny.so\n")
    bench.serve(FOREIGN)
    assert bench.start(LOCAL.pw_name, service="sshd").acct_mgmt() == Pam.AUTH_ERR


@BOTH
@pytest.mark.parametrize("user", [OURS.pw_name, LOCAL.pw_name, "no-such-user"])
def test_nobody_comes_in_while_the_daemon_is_down(bench: Bench, install: Install, passwords: bool, user: str) -> None:
    install(passwords=passwords)
    pam = bench.start(user, whole(b"password"), "sshd")
    assert [pam.authenticate(), pam.acct_mgmt()] == [Pam.AUTHINFO_UNAVAIL] * 2
    assert pam.prompts == []
    assert pam.environment == {}


@BOTH
def test_root_is_as_before_whether_the_daemon_is_up_or_down(bench: Bench, install: Install, passwords: bool) -> None:
    install(passwords=passwords)
    pam = bench.start("root", whole(b"password"), "sshd")
    assert pam.authenticate() == (Pam.SUCCESS if passwords else Pam.AUTH_ERR)
    pam = bench.start("root", service="sshd")
    assert [pam.acct_mgmt(), pam.setcred(), pam.open_session(), pam.close_session()] == [Pam.SUCCESS] * 4


def test_a_break_glass_person_comes_in_by_key_while_the_daemon_is_down(bench: Bench, install: Install) -> None:
    install(breakglass="glass")
    pam = bench.start(LOCAL.pw_name, service="sshd")
    assert [pam.acct_mgmt(), pam.setcred(), pam.open_session(), pam.close_session()] == [Pam.SUCCESS] * 4
    assert bench.start(OURS.pw_name, service="sshd").acct_mgmt() == Pam.AUTHINFO_UNAVAIL


@BOTH
def test_a_name_that_sshd_does_not_know_ends_like_a_bad_token(bench: Bench, install: Install, passwords: bool) -> None:
    install(passwords=passwords)
    bench.serve(says({Phase.WHO: Reply(Status.PROMPT), Phase.AUTH: Reply(Status.DENY)}))
    pam = bench.start("no-such-user", whole(b"\b\n\r\x7fINCORRECT"), "sshd")
    assert pam.authenticate() == Pam.MAXTRIES
    assert pam.environment == {}


def test_every_line_of_ours_has_the_same_ranges() -> None:
    lines = [line for line in SHIPPED.splitlines() if "pam_iam.so" in line and not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["auth", "account", "session"]
    assert {line.rpartition("pam_iam.so ")[2] for line in lines} == {"uids=20000-59999"}
