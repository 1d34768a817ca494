"""Whatever the daemon does wrong, the answer is never success and never later than the time-out."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pam_module.wire import MAX_FRAME, Phase, Reply, Status, encode_reply
from tests.pam.conftest import OURS, Bench
from tests.pam.libpam import Pam, Transaction, whole
from tests.pam.stand_in import Behaviour, drips, hangs, in_phase, late, permits, sends, sends_and_hangs

TIMEOUT_S = 1.0
GRACE_S = 0.5
PERMIT = Reply(Status.PERMIT, OURS.pw_uid, OURS.pw_name)
FRAME = encode_reply(PERMIT)
GOOD = permits(OURS.pw_name, OURS.pw_uid)

STEPS: dict[Phase, Callable[[Transaction], int]] = {
    Phase.WHO: Transaction.authenticate,
    Phase.AUTH: Transaction.authenticate,
    Phase.ACCOUNT: Transaction.acct_mgmt,
    Phase.OPEN_SESSION: Transaction.open_session,
    Phase.CLOSE_SESSION: Transaction.close_session,
}


def frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


@dataclass(frozen=True)
class Fault:
    sentence: str
    behaviour: Behaviour
    slow: bool = False


FAULTS = [
    Fault("hangs up without a word", sends(b"")),
    Fault("answers with text", sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    Fault("answers with zeros", sends(bytes(64))),
    Fault("hangs up in the length word", sends(FRAME[:3])),
    Fault("hangs up before the last byte", sends(FRAME[:-1])),
    Fault("sends an empty frame", sends(frame(b""))),
    Fault("sends a frame that ends in the head", sends(frame(FRAME[4:9]))),
    Fault("sends a frame that ends in a field", sends(frame(FRAME[4:-5]))),
    Fault("says a field is longer than the frame", sends(frame(FRAME[4:10] + b"\xff\xff\xff\xff" + FRAME[14:]))),
    Fault("sends a byte after the last field", sends(frame(FRAME[4:] + b"\0"))),
    Fault("sends a byte after the frame", sends_and_hangs(FRAME + b"\0")),
    Fault("sends two frames", sends_and_hangs(FRAME + FRAME)),
    Fault("announces more than a frame may have", sends_and_hangs(struct.pack("!I", MAX_FRAME + 1) + FRAME)),
    Fault("announces four gigabytes", sends_and_hangs(b"\xff\xff\xff\xff")),
    Fault("speaks another version", sends(frame(b"\2" + FRAME[5:]))),
    Fault("has a status that is not known", sends(frame(b"\1\x08" + FRAME[6:]))),
    Fault("has status zero", sends(frame(b"\1\0" + FRAME[6:]))),
    Fault("never answers", hangs(), slow=True),
    Fault("sends one byte at a time and is too slow", drips(FRAME, 0.2), slow=True),
]


# The waiting is one piece of code and each case of it takes a second: three phases show it.
CASES = [
    pytest.param(fault, phase, id=f"{fault.sentence} in {phase.name}")
    for fault in FAULTS
    for phase in (list(STEPS)[:3] if fault.slow else STEPS)
]


@pytest.mark.parametrize(("fault", "phase"), CASES)
def test_a_faulty_daemon_is_unavailable(bench: Bench, fault: Fault, phase: Phase) -> None:
    daemon = bench.serve(in_phase(phase, fault.behaviour, GOOD))
    pam = bench.start(answer=whole(b"token"))
    if phase is Phase.CLOSE_SESSION:
        assert pam.open_session() == Pam.SUCCESS
    began = time.monotonic()
    result = STEPS[phase](pam)
    took = time.monotonic() - began
    assert result == Pam.AUTHINFO_UNAVAIL
    assert daemon.phases[-1] is phase, "the fault was not met"
    assert took < TIMEOUT_S + GRACE_S if fault.slow else took < GRACE_S


@pytest.mark.parametrize("step", [Transaction.authenticate, Transaction.acct_mgmt, Transaction.open_session])
def test_a_daemon_that_is_absent_is_unavailable(bench: Bench, step: Callable[[Transaction], int]) -> None:
    pam = bench.start(answer=whole(b"token"))
    assert step(pam) == Pam.AUTHINFO_UNAVAIL
    assert pam.prompts == []


def test_a_socket_that_nobody_listens_on_is_unavailable(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(bench.socket))
    assert bench.start().acct_mgmt() == Pam.AUTHINFO_UNAVAIL


def test_a_daemon_that_accepts_nobody_is_unavailable_in_time(bench: Bench) -> None:
    with (
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX) as two,
    ):
        full.bind(str(bench.socket))
        full.listen(0)
        one.connect(str(bench.socket))
        two.setblocking(False)
        with pytest.raises(BlockingIOError):
            two.connect(str(bench.socket))
        began = time.monotonic()
        assert bench.start().acct_mgmt() == Pam.AUTHINFO_UNAVAIL
        assert TIMEOUT_S - 0.1 < time.monotonic() - began < TIMEOUT_S + GRACE_S


@pytest.mark.parametrize("name", [str(os.getuid() + 1), "no-such-user", "4294967295", "99999999999", f"{os.getuid()}x"])
def test_a_daemon_of_another_user_never_sees_a_request(bench: Bench, name: str) -> None:
    daemon = bench.serve(GOOD)
    bench.write_stack(bench.options(daemon=name))
    pam = bench.start(answer=whole(b"token"))
    assert pam.authenticate() == Pam.AUTHINFO_UNAVAIL
    assert pam.acct_mgmt() == Pam.AUTHINFO_UNAVAIL
    assert pam.prompts == []
    assert daemon.requests == []


def test_a_slow_daemon_that_is_in_time_is_believed(bench: Bench) -> None:
    bench.serve(drips(FRAME, 0.005))
    assert bench.start().acct_mgmt() == Pam.SUCCESS


def test_who_and_auth_share_one_time_out(bench: Bench) -> None:
    bench.serve(in_phase(Phase.WHO, late(0.7, GOOD), hangs()))
    pam = bench.start(answer=whole(b"token"))
    began = time.monotonic()
    assert pam.authenticate() == Pam.AUTHINFO_UNAVAIL
    assert time.monotonic() - began < TIMEOUT_S + GRACE_S
    assert len(pam.prompts) == 1


def test_the_time_that_a_person_takes_is_not_counted(bench: Bench) -> None:
    bench.serve(GOOD)

    def think(_prompt: str, _number: int) -> bytes:
        time.sleep(TIMEOUT_S + 0.2)
        return b"token"

    assert bench.start(answer=think).authenticate() == Pam.SUCCESS


@pytest.mark.slow
@pytest.mark.parametrize("step", [Transaction.acct_mgmt, Transaction.open_session])
def test_only_auth_may_wait_longer_than_two_seconds(bench: Bench, step: Callable[[Transaction], int]) -> None:
    bench.serve(hangs())
    bench.write_stack(bench.options(timeout="30"))
    began = time.monotonic()
    assert step(bench.start()) == Pam.AUTHINFO_UNAVAIL
    assert 1.9 < time.monotonic() - began < 2.0 + GRACE_S
