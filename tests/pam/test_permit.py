"""What the module checks by itself, whatever the daemon says, and what travels from phase to phase."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pam_module.wire import NO_UID, Phase, Reply, Status
from tests.pam.conftest import LOCAL, OURS, Bench
from tests.pam.libpam import RHOST, USER, Pam, Transaction, whole
from tests.pam.stand_in import in_phase, permits, says, sends

PERMIT = Reply(Status.PERMIT, OURS.pw_uid, OURS.pw_name)
DENIED: dict[Callable[[Transaction], int], Pam] = {
    Transaction.authenticate: Pam.MAXTRIES,
    Transaction.acct_mgmt: Pam.PERM_DENIED,
    Transaction.open_session: Pam.SESSION_ERR,
    Transaction.close_session: Pam.SESSION_ERR,
}
STEPS = pytest.mark.parametrize("step", DENIED, ids=lambda step: step.__name__)


def start(bench: Bench, permit: Reply, user: str = OURS.pw_name) -> Transaction:
    bench.serve(says(dict.fromkeys(Phase, permit) | {Phase.WHO: Reply(Status.PROMPT)}))
    return bench.start(user, whole(b"token"))


@STEPS
def test_a_true_permit_is_success(bench: Bench, step: Callable[[Transaction], int]) -> None:
    assert step(start(bench, PERMIT)) == Pam.SUCCESS


@STEPS
@pytest.mark.parametrize(
    "lie",
    [
        replace(PERMIT, user=LOCAL.pw_name),
        replace(PERMIT, user=""),
        replace(PERMIT, user=OURS.pw_name[:-1]),
        replace(PERMIT, user=OURS.pw_name + "x"),
        replace(PERMIT, user=OURS.pw_name.upper()),
        replace(PERMIT, uid=OURS.pw_uid - 1),
        replace(PERMIT, uid=0),
        replace(PERMIT, uid=NO_UID),
    ],
    ids=[
        "another user",
        "no user",
        "a shorter name",
        "a longer name",
        "another case",
        "another uid",
        "uid 0",
        "no uid",
    ],
)
def test_a_permit_for_somebody_else_is_a_denial(bench: Bench, step: Callable[[Transaction], int], lie: Reply) -> None:
    bench.write_stack(bench.options(uids="1-4294967294"))
    assert step(start(bench, lie)) == DENIED[step]


@STEPS
@pytest.mark.parametrize(
    ("user", "uid", "uids"),
    [
        (OURS.pw_name, OURS.pw_uid, f"1-{OURS.pw_uid - 1}"),
        (OURS.pw_name, OURS.pw_uid, f"1-{OURS.pw_uid - 1},{OURS.pw_uid + 1}-4294967294"),
        (OURS.pw_name, OURS.pw_uid, None),
        ("no-such-user", 20001, "1-4294967294"),
    ],
    ids=["a uid above the range", "a uid between two ranges", "no ranges at all", "a user that NSS lacks"],
)
def test_a_permit_outside_uids_is_a_denial(
    bench: Bench, step: Callable[[Transaction], int], user: str, uid: int, uids: str | None
) -> None:
    bench.write_stack(bench.options(uids=uids))
    assert step(start(bench, Reply(Status.PERMIT, uid, user), user)) == DENIED[step]


@STEPS
def test_root_is_left_to_the_rest_of_the_stack_unasked(bench: Bench, step: Callable[[Transaction], int]) -> None:
    rest = "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session"))
    bench.write_stack(bench.options(uids="1-4294967294"), extra=rest)
    pam = start(bench, Reply(Status.DENY), "root")
    assert step(pam) == Pam.SUCCESS
    assert pam.prompts == []


@STEPS
def test_an_account_of_ours_is_not_left_to_others(bench: Bench, step: Callable[[Transaction], int]) -> None:
    refused = DENIED | {Transaction.authenticate: Pam.AUTHINFO_UNAVAIL}
    bench.serve(says(dict.fromkeys(Phase, Reply(Status.FOREIGN))))
    assert step(bench.start(OURS.pw_name)) == refused[step]


def test_a_refused_permit_shows_none_of_its_text(bench: Bench) -> None:
    pam = start(bench, replace(PERMIT, uid=0, text="Welcome, root."))
    assert pam.acct_mgmt() == Pam.PERM_DENIED
    assert pam.messages == []


def test_a_name_changed_while_prompting_is_a_denial(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))

    def change(_prompt: str, _number: int) -> bytes:
        pam.set_item(USER, LOCAL.pw_name)
        return b"token"

    pam = bench.start(answer=change)
    assert pam.authenticate() == Pam.MAXTRIES
    assert [request.user for request in daemon.requests] == [OURS.pw_name] * 2


def test_nothing_is_left_for_other_modules(bench: Bench, compiled: Callable[..., Path]) -> None:
    bench.write_stack(extra=f"auth required {compiled('probe', '-lpam')}\n")
    pam = start(bench, PERMIT)
    assert pam.authenticate() == Pam.SUCCESS
    assert pam.environment == {"PROBE": "nothing was left behind"}
    assert pam.item(USER) == OURS.pw_name


def test_a_request_says_who_asks_from_where(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    bench.start(answer=whole(b"token")).authenticate()
    for request in daemon.requests:
        assert (request.user, request.service) == (OURS.pw_name, "iam")
        assert (request.tty, request.rhost, request.pid) == ("ssh", "192.0.2.7", os.getpid())
        assert request.nss_uid == OURS.pw_uid


def test_the_handle_goes_from_auth_to_open_session_and_no_further(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid, handle="a1B2" * 16))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate() == Pam.SUCCESS
    assert pam.environment == {"IAM_BRIDGE_HANDLE": "a1B2" * 16}
    assert pam.acct_mgmt() == Pam.SUCCESS
    assert pam.setcred() == Pam.SUCCESS
    assert pam.environment == {"IAM_BRIDGE_HANDLE": "a1B2" * 16}
    assert pam.open_session() == Pam.SUCCESS
    assert pam.environment == {}
    assert pam.close_session() == Pam.SUCCESS
    assert [(request.phase, request.handle) for request in daemon.requests] == [
        (Phase.WHO, ""),
        (Phase.AUTH, ""),
        (Phase.ACCOUNT, "a1B2" * 16),
        (Phase.OPEN_SESSION, "a1B2" * 16),
        (Phase.CLOSE_SESSION, ""),
    ]
    assert [request.secret for request in daemon.requests] == [b"", b"token", b"", b"", b""]


def test_the_handle_is_removed_when_open_session_fails(bench: Bench) -> None:
    pam = bench.start()
    pam.putenv("IAM_BRIDGE_HANDLE=abc")
    assert pam.open_session() == Pam.AUTHINFO_UNAVAIL
    assert pam.environment == {}


def test_a_handle_that_was_there_before_auth_is_dropped(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    pam = bench.start(answer=whole(b"token"))
    pam.putenv("IAM_BRIDGE_HANDLE=abc")
    assert pam.authenticate() == Pam.SUCCESS
    assert pam.environment == {}
    assert {request.handle for request in daemon.requests} == {""}


def permit_with(handle: bytes) -> bytes:
    """Write a permit by hand, since the encoder refuses the handles that are tried here."""
    fields = [OURS.pw_name.encode(), b"", handle]
    body = struct.pack("!BBI", 1, Status.PERMIT, OURS.pw_uid) + b"".join(struct.pack("!I", len(f)) + f for f in fields)
    return struct.pack("!I", len(body)) + body


@pytest.mark.parametrize(
    ("handle", "kept"),
    [
        (b"a1B2", True),
        (b"a" * 65, False),
        (b"a b", False),
        (b"a\nLD_PRELOAD=x", False),
        (b"a=b", False),
        (b"../a", False),
        (b"a\0", False),
        (b"\xe9", False),
    ],
)
def test_a_handle_of_another_shape_is_dropped(bench: Bench, handle: bytes, kept: bool) -> None:
    prompt = says({Phase.WHO: Reply(Status.PROMPT)})
    bench.serve(in_phase(Phase.AUTH, sends(permit_with(handle)), prompt))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate() == Pam.SUCCESS
    assert pam.environment == ({"IAM_BRIDGE_HANDLE": handle.decode()} if kept else {})


@pytest.mark.parametrize("handle", ["a" * 65, "a b", "a=b", "../a"])
def test_a_handle_of_another_shape_is_not_sent(bench: Bench, handle: str) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    pam = bench.start()
    pam.putenv(f"IAM_BRIDGE_HANDLE={handle}")
    assert pam.acct_mgmt() == Pam.SUCCESS
    assert daemon.requests[0].handle == ""


@pytest.mark.parametrize(
    ("user", "uids", "result"),
    [
        (OURS.pw_name, None, "ours"),
        (LOCAL.pw_name, None, "foreign"),
        ("root", "1-4294967294", "foreign"),
        ("no-such-user", "1-4294967294", "foreign"),
    ],
)
def test_setcred_claims_our_people_alone(bench: Bench, user: str, uids: str | None, result: str) -> None:
    options = bench.options(**({"uids": uids} if uids else {}))
    # pam_deny answers PAM_CRED_ERR: it shows that our module said PAM_IGNORE and the stack went on.
    text = f"auth [success=done ignore=ignore default=die] {bench.module} {options}\nauth required pam_deny.so\n"
    (bench.confdir / "iam").write_text(text)
    assert bench.start(user).setcred() == (Pam.SUCCESS if result == "ours" else Pam.CRED_ERR)


def test_setcred_may_be_called_again(bench: Bench) -> None:
    pam = start(bench, PERMIT)
    assert [pam.authenticate(), pam.setcred(), pam.setcred()] == [Pam.SUCCESS] * 3


def test_a_request_that_fits_no_frame_is_unavailable(bench: Bench) -> None:
    daemon = bench.serve(permits(OURS.pw_name, OURS.pw_uid))
    pam = bench.start()
    pam.set_item(RHOST, "h" * 70000)
    # Run by root, libpam itself fails as well (PAM_SYSTEM_ERR): its audit record cannot hold such a host name.
    assert pam.acct_mgmt() in {Pam.AUTHINFO_UNAVAIL, Pam.SYSTEM_ERR}
    assert daemon.requests == []


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_a_name_that_no_account_can_have_is_unknown(bench: Bench, name: str) -> None:
    daemon = bench.serve(permits(name, OURS.pw_uid))
    pam = bench.start(name, whole(b"token"))
    assert pam.authenticate() == Pam.USER_UNKNOWN
    assert daemon.requests == []
