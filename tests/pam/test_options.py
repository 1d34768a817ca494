"""The options of the module: what cannot be understood refuses everybody; break-glass opens as little as it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pam_module.wire import Phase, Reply, Status
from tests.pam.conftest import LOCAL, OURS, Bench
from tests.pam.libpam import Pam, Transaction, whole
from tests.pam.stand_in import Behaviour, permits, says, sends

UID = OURS.pw_uid
STEPS = (
    Transaction.authenticate,
    Transaction.acct_mgmt,
    Transaction.setcred,
    Transaction.open_session,
    Transaction.close_session,
)


@pytest.mark.parametrize(
    "option",
    [
        "timeout=0", "timeout=", "timeout=-1", "timeout=1.5", "timeout=5s", "timeout=61", "timeout=99999999999999",
        "uids=", "uids=1000", "uids=1000-", "uids=-2000", "uids=2000-1000", "uids=0-1000", "uids=1000-2000,",
        "uids=1000-2000;3000-4000", "uids=1000-4294967295", "uids=1000-99999999999999999999", "uids=a-b",
        "uids=1-2,3-4,5-6,7-8,9-10,11-12,13-14,15-16,17-18,19-20,21-22,23-24,25-26,27-28,29-30,31-32,33-34",
        "socket=", "socket=run/login.sock", "socket=/" + "x" * 108, "daemon=", "breakglass=", "breakglass=a:b",
        "breakglass=a,b", "debug=yes", "debugging", "Debug", "use_first_pass", "nullok", "sock=/run/x", "timeout",
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_understood_refuses_everybody(bench: Bench, option: str) -> None:
    daemon = bench.serve(permits(OURS.pw_name, UID))
    name = option.partition("=")[0]
    rest = bench.options(**{name: None})
    bench.write_stack(f"{rest} {option}")
    pam = bench.start(answer=whole(b"token"))
    assert [step(pam) for step in STEPS] == [Pam.SERVICE_ERR] * len(STEPS)
    assert daemon.requests == []


def test_ranges_given_twice_are_not_joined(bench: Bench) -> None:
    bench.serve(permits(OURS.pw_name, UID))
    bench.write_stack(f"{bench.options()} uids=1-2")
    assert bench.start().acct_mgmt() == Pam.SERVICE_ERR


@pytest.mark.parametrize(
    "option",
    ["timeout=60", "timeout=1", f"uids=1-2,{UID}-{UID}", f"uids={UID}-4294967294", "breakglass=wheel", "debug"],
)
def test_an_option_that_is_understood_does_no_harm(bench: Bench, option: str) -> None:
    bench.serve(permits(OURS.pw_name, UID))
    bench.write_stack(f"{bench.options(**{option.partition('=')[0]: None})} {option}")
    assert bench.start().acct_mgmt() == Pam.SUCCESS


@pytest.mark.parametrize(
    ("uids", "ours"),
    [
        (f"{UID}-{UID}", True),
        (f"{UID - 1}-{UID}", True),
        (f"{UID}-{UID + 1}", True),
        (f"1-2,{UID}-{UID},3-4", True),
        (f"{UID + 1}-{UID + 2}", False),
        (f"{UID - 2}-{UID - 1}", False),
        (f"1-{UID - 1},{UID + 1}-4294967294", False),
    ],
)
def test_ranges_include_both_their_ends(bench: Bench, uids: str, ours: bool) -> None:
    bench.serve(permits(OURS.pw_name, UID))
    bench.write_stack(bench.options(uids=uids))
    assert bench.start().acct_mgmt() == (Pam.SUCCESS if ours else Pam.PERM_DENIED)


def test_without_options_the_installed_daemon_is_asked(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, UID))
    bench.write_stack("socket=" + str(bench.socket))
    assert bench.start().acct_mgmt() == Pam.AUTHINFO_UNAVAIL, "this process is not iam-bridge-login"
    assert daemon.requests == []


@pytest.fixture
def glass(bench: Bench, with_groups: Path) -> Callable[..., None]:
    """Set the stack: our module with break-glass, then a module that permits, so that PAM_IGNORE shows."""

    def write(group: str, uids: str | None = f"{UID}-{UID}") -> None:
        options = bench.options(breakglass=group, uids=uids)
        extra = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
        bench.write_stack(options, extra=extra, module=with_groups)

    return write


@pytest.mark.parametrize(
    ("group", "user", "passes"),
    [
        pytest.param("glass", LOCAL.pw_name, True, id="a listed member"),
        pytest.param("glass", "root", True, id="root where it is listed"),
        pytest.param("glass", OURS.pw_name, False, id="a listed member whose uid is in uids"),
        pytest.param("glass", "no-such-user", False, id="a listed member that NSS lacks"),
        pytest.param("glass", "sync", False, id="somebody who is not listed"),
        pytest.param("empty", LOCAL.pw_name, False, id="a group without members"),
        pytest.param("no-such-group", LOCAL.pw_name, False, id="a group that is not there"),
        pytest.param("glas", LOCAL.pw_name, False, id="the beginning of a group's name"),
        pytest.param("spaced", LOCAL.pw_name, False, id="spaces are part of a name"),
        pytest.param("short", LOCAL.pw_name, False, id="a line of three fields"),
        pytest.param("shorter", LOCAL.pw_name, False, id="a line of two fields"),
        pytest.param("long", LOCAL.pw_name, True, id="the last of 20001 members"),
        pytest.param("more", LOCAL.pw_name, False, id="a colon is part of the last name"),
        pytest.param("commas", LOCAL.pw_name, True, id="empty members are passed over"),
        pytest.param("prefix", LOCAL.pw_name, False, id="a part of a member's name"),
        pytest.param("last", LOCAL.pw_name, True, id="a last line without a newline"),
    ],
)
def test_break_glass_passes_listed_local_people(
    bench: Bench, glass: Callable[..., None], group: str, user: str, passes: bool
) -> None:
    glass(group)
    assert bench.start(user).acct_mgmt() == (Pam.SUCCESS if passes else Pam.AUTHINFO_UNAVAIL)


def test_break_glass_needs_uids(bench: Bench, glass: Callable[..., None]) -> None:
    glass("glass", None)
    assert bench.start(LOCAL.pw_name).acct_mgmt() == Pam.AUTHINFO_UNAVAIL


def test_break_glass_is_for_the_account_phase_alone(bench: Bench, glass: Callable[..., None]) -> None:
    glass("glass")
    pam = bench.start(LOCAL.pw_name, whole(b"token"))
    assert pam.authenticate() == Pam.AUTHINFO_UNAVAIL
    assert pam.open_session() == Pam.AUTHINFO_UNAVAIL
    assert pam.close_session() == Pam.AUTHINFO_UNAVAIL


def test_break_glass_alone_is_no_success(bench: Bench, with_groups: Path) -> None:
    bench.write_stack(bench.options(breakglass="glass"), module=with_groups)
    assert bench.start(LOCAL.pw_name).acct_mgmt() == Pam.PERM_DENIED, "PAM_IGNORE, and nobody else decides"


@pytest.mark.parametrize(
    ("behaviour", "passes"),
    [
        pytest.param(says({Phase.ACCOUNT: Reply(Status.DENY)}), False, id="a denial stands"),
        pytest.param(says({Phase.ACCOUNT: Reply(Status.EXPIRED)}), False, id="an expiry stands"),
        pytest.param(permits(LOCAL.pw_name, LOCAL.pw_uid), False, id="a permit that is refused stands"),
        pytest.param(says({Phase.ACCOUNT: Reply(Status.FOREIGN)}), True, id="a foreign account passes anyway"),
        pytest.param(
            says({Phase.ACCOUNT: Reply(Status.UNAVAILABLE)}), True, id="a daemon without a verdict is as none"
        ),
        pytest.param(says({Phase.ACCOUNT: Reply(Status.ERROR)}), True, id="a daemon that cannot read us is as none"),
        pytest.param(sends(b"garbage"), True, id="garbage is no verdict"),
    ],
)
def test_break_glass_never_overrules_a_verdict(
    bench: Bench, glass: Callable[..., None], behaviour: Behaviour, passes: bool
) -> None:
    bench.serve(behaviour)
    glass("glass")
    assert (bench.start(LOCAL.pw_name).acct_mgmt() == Pam.SUCCESS) is passes


def test_the_shipped_module_reads_the_real_group_file(module: Path) -> None:
    assert b"\0/etc/group\0" in module.read_bytes()
