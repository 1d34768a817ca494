"""The pull in a process of its own: what it may do, what crosses, and what a hostile child achieves (nothing)."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iam_bridge.demo.iam import EmbeddedIam, ServedIam, indigo_fixture, running_iam
from iam_bridge.errors import BridgeError, InvalidValue, SettingsError, SourceUnavailable
from iam_bridge.iam import unprivileged
from iam_bridge.iam.members import source_of
from iam_bridge.iam.pull import PullLimits, pull_members
from iam_bridge.model.identity import Issuer, Member, MemberSnapshot, Subject
from iam_bridge.model.rules import SourceRules
from iam_bridge.model.snapshot_text import FORMAT
from iam_bridge.ports import Clock
from tests.unit.iam_sources import NOW, make_rules, served_rules, stand_still

ISSUER = "https://iam.example.org/"
RULES = make_rules(ISSUER, "hpc/users")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
QUICK = PullLimits(deadline_s=20.0)


def make_snapshot(
    *, issuer: str = ISSUER, reason: str = "", groups: tuple[str, ...] = ("hpc/users",)
) -> MemberSnapshot:
    of = Issuer(issuer)
    member = Member(Subject(of, "s1"), "ada", True, datetime(2026, 1, 1, tzinfo=UTC), frozenset(groups))
    far = datetime(2099, 1, 1, tzinfo=UTC)
    return MemberSnapshot(of, (member,), frozenset(groups), far, not reason, reason, 5)


class Scripted:
    """A source that runs a function in the child; what it returns is the snapshot."""

    def __init__(self, act: Callable[[], MemberSnapshot]) -> None:
        self._act = act
        self.issuer = RULES.issuer

    def __call__(self, rules: SourceRules, *, clock: Clock) -> Scripted:
        return self

    def fetch_members(self) -> MemberSnapshot:
        return self._act()


def pull(
    act: Callable[[], MemberSnapshot], *, limits: PullLimits = QUICK, rules: SourceRules = RULES
) -> MemberSnapshot:
    return pull_members(rules, clock=stand_still, limits=limits, open_source=Scripted(act))


def confess(look: Callable[[], object]) -> object:
    """Run a function in the child and give what it returned, by way of the reason of an incomplete snapshot."""
    return json.loads(pull(lambda: make_snapshot(reason=json.dumps(look()))).reason)


def pipe_of_child() -> int:
    """Find, inside the child, the descriptor that leads to the parent."""
    return max(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))


def test_a_snapshot_crosses_and_its_time_is_the_readers() -> None:
    snapshot = pull(make_snapshot)
    assert snapshot.members == make_snapshot().members
    assert (snapshot.complete, snapshot.requests, snapshot.taken_at) == (True, 5, NOW)
    assert gc.isenabled()


def test_an_incomplete_snapshot_crosses_with_its_reason() -> None:
    snapshot = pull(lambda: make_snapshot(reason="a page was short"))
    assert (snapshot.complete, snapshot.reason) == (False, "a page was short")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(rest.split()) for name, _, rest in (line.partition(":") for line in lines)}


def children() -> list[int]:
    tasks = Path("/proc/self/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


@pytest.fixture(autouse=True)
def nobody_is_left_behind() -> Iterator[None]:
    before = set(children())
    yield
    assert set(children()) <= before


@pytest.fixture
def in_more_groups() -> Iterator[None]:
    """Be in groups that the child must not inherit."""
    before = os.getgroups()
    os.setgroups([0, 4242])
    yield
    os.setgroups(before)


@needs_root
@pytest.mark.usefixtures("in_more_groups")
def test_the_child_of_root_is_the_configured_user_for_good() -> None:
    seen: dict[str, str] = {}

    def watch() -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and seen.get("NoNewPrivs") != "1":
            for pid in children():
                with contextlib.suppress(OSError):
                    seen.update(status_of(pid))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    pull(lambda: time.sleep(0.5) or make_snapshot())
    watcher.join()
    nobody = pwd.getpwnam("nobody")
    assert seen["Uid"] == " ".join([str(nobody.pw_uid)] * 4)
    assert seen["Gid"] == " ".join([str(nobody.pw_gid)] * 4)
    assert seen["Groups"] == ""
    assert seen["NoNewPrivs"] == "1"
    assert {seen["CapPrm"], seen["CapEff"]} == {"0" * 16}
    assert seen["Umask"] == "0077"


def refusal_of(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


@needs_root
def test_the_child_of_root_has_no_way_back(tmp_path: Path) -> None:
    secret = tmp_path / "ledger"
    secret.write_text("root's own")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    assert confess(
        lambda: [
            refusal_of(secret.read_text),
            refusal_of(lambda: os.setuid(0)),
            refusal_of(lambda: os.setgroups([0])),
            refusal_of(lambda: os.kill(os.getppid(), 0)),
        ]
    ) == ["EACCES", "EPERM", "EPERM", "EPERM"]


def test_the_child_holds_nothing_open_but_the_pipe(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held, socket.socket() as listening:
        os.set_inheritable(held.fileno(), True)
        listening.bind(("127.0.0.1", 0))
        targets = confess(lambda: [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2, pipe_of_child())])
        count = confess(lambda: len(os.listdir("/proc/self/fd")) - 1)
    assert isinstance(targets, list)
    assert targets[:3] == ["/dev/null"] * 3
    assert targets[3].startswith("pipe:")
    assert count == 4


def test_the_child_can_make_no_file_grow() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the child could write here: what stops it is the limit
        assert confess(lambda: refusal_of(lambda: (Path(folder) / "grown").write_text("x"))) == "EFBIG"


def test_the_memory_of_the_child_is_bounded() -> None:
    with pytest.raises(SourceUnavailable, match="failed inside: MemoryError"):
        pull(lambda: bytearray(3 << 30) and make_snapshot(), limits=PullLimits(memory_bytes=2 << 30))


def spin() -> MemberSnapshot:
    while True:
        pass


def test_the_computing_time_of_the_child_is_bounded() -> None:
    with pytest.raises(SourceUnavailable, match="was ended by signal"):
        pull(spin, limits=PullLimits(cpu_s=1))


def test_the_child_dies_with_its_parent() -> None:
    """A process in between is killed while its pull waits; the pull must not outlive it."""
    here, there = os.pipe()
    between = os.fork()
    if between == 0:
        with contextlib.suppress(BaseException):
            pull(lambda: time.sleep(60) or make_snapshot())
        os._exit(0)
    os.close(there)
    pids: list[int] = []
    end = time.monotonic() + 10
    while not pids and time.monotonic() < end:
        pids = [int(pid) for pid in Path(f"/proc/{between}/task/{between}/children").read_text().split()]
        pids = [pid for pid in pids if status_of(pid)["NoNewPrivs"] == "1"]
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(between, signal.SIGKILL)
    os.waitpid(between, 0)
    os.close(here)
    assert pids
    while Path(f"/proc/{pids[0]}").exists() and time.monotonic() < end:
        if status_of(pids[0])["State"].startswith("Z"):
            break
        time.sleep(0.01)
    assert time.monotonic() < end, "the pull still runs"


def say(*chunks: bytes, then: Callable[[], object] = lambda: os._exit(0)) -> Callable[[], MemberSnapshot]:
    """Make a hostile child: it writes past all rules of ours into the pipe, and then does something else."""

    def act() -> MemberSnapshot:
        descriptor = pipe_of_child()
        for chunk in chunks:
            rest = chunk
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        then()
        return make_snapshot()

    return act


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


ROW = ["s1", "ada", True, "2026-01-01T00:00:00+00:00", [0], []]
WHOLE = lines([FORMAT, ISSUER, 1], ["hpc/users"], ROW, ["end", 1, True, "", 5])


def hang() -> None:
    time.sleep(60)


def close_and_hang() -> None:
    os.close(pipe_of_child())
    time.sleep(60)


def drip() -> None:
    descriptor = pipe_of_child()
    while True:
        os.write(descriptor, b"[")
        time.sleep(0.01)


def flood() -> None:
    descriptor = pipe_of_child()
    os.write(descriptor, lines([FORMAT, ISSUER, 0]))
    number = 0
    while True:
        os.write(descriptor, lines([f"s{number}", *ROW[1:4], [], []]))
        number += 1


HOSTILE: tuple[tuple[str, Callable[[], MemberSnapshot], str], ...] = (
    ("says nothing and ends well", say(), "gave what is no snapshot: it said nothing"),
    ("says nothing and ends badly", say(then=lambda: os._exit(3)), "ended with status 3"),
    ("is killed", say(then=lambda: os.kill(os.getpid(), signal.SIGKILL)), r"was ended by signal 9 \(SIGKILL\)"),
    ("says garbage", say(os.urandom(4096) + b"\n"), "gave what is no snapshot"),
    ("says a line without end", say(b"[" * (2 << 20), then=hang), "a line of it has no end"),
    ("says brackets without end", say(b"[" * 100_000 + b"\n"), "nests too deep"),
    ("says nothing for ever", say(then=hang), "was stopped after 1 s"),
    ("drips for ever", say(then=drip), "was stopped after 1 s"),
    ("floods for ever", say(then=flood), "was stopped after 1000000 bytes"),
    ("stops in the middle", say(WHOLE[:-10]), "too long or cut off"),
    ("stops before the end", say(WHOLE[: WHOLE.index(b'["end"')]), "ends in the middle"),
    ("goes on after the end", say(WHOLE + b"x"), "something follows the end"),
    ("says everything twice", say(WHOLE + WHOLE), "something follows the end"),
    ("says everything and is killed", say(WHOLE, then=lambda: os.kill(os.getpid(), signal.SIGKILL)), "signal 9"),
    ("says everything and ends badly", say(WHOLE, then=lambda: os._exit(1)), "ended with status 1"),
    ("says everything and stays", say(WHOLE, then=close_and_hang), "did not end after its last word"),
    (
        "speaks for another issuer",
        say(WHOLE.replace(b"iam.example", b"oam.example")),
        "is of https://oam.example.org/, not of",
    ),
    (
        "calls complete what lacks a mapped group",
        say(WHOLE.replace(b"hpc/users", b"hpc/gpu")),
        "lacks a group of the settings",
    ),
    ("fails without a sentence", say(lines(["error", "unavailable"])), "failed without a sentence"),
    ("fails in no text", say(lines(["error", 5, {}])), "failed without a sentence"),
    ("fails in no JSON", say(b'["error\n'), "no snapshot|failed without a sentence"),
    ("fails with a terminal's commands", say(lines(["error", "x", "a\n\x1b[2Jb"])), r"^a\?\?\[2Jb$"),
)


@pytest.mark.parametrize(("sentence", "act", "why"), HOSTILE, ids=[case[0] for case in HOSTILE])
def test_a_hostile_child_achieves_nothing(sentence: str, act: Callable[[], MemberSnapshot], why: str) -> None:
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match=why):
        pull(act, limits=PullLimits(deadline_s=1, snapshot_bytes=20_000_000 if "line" in sentence else 1_000_000))
    assert time.monotonic() - began < 5


def test_what_a_hostile_child_says_in_the_right_form_is_believed_as_far_as_it_goes() -> None:
    """The other side of the table above: the same bytes, unharmed, are a snapshot."""
    assert len(pull(say(WHOLE)).members) == 1


def fail(error: BaseException) -> Callable[[], MemberSnapshot]:
    def act() -> MemberSnapshot:
        raise error

    return act


ERRORS: tuple[tuple[BaseException, type[BridgeError], str], ...] = (
    (SourceUnavailable("the IAM is away", hint="wait"), SourceUnavailable, "^the IAM is away; wait$"),
    (SettingsError("the people file is wrong"), SettingsError, "^the people file is wrong$"),
    (InvalidValue("it is no value"), SourceUnavailable, "^it is no value$"),
    (RuntimeError("a secret of somebody"), SourceUnavailable, "^the pull of members failed inside: RuntimeError$"),
    (KeyboardInterrupt(), SourceUnavailable, "^the pull of members failed inside: KeyboardInterrupt$"),
    (SystemExit(0), SourceUnavailable, "^the pull of members failed inside: SystemExit$"),
)


@pytest.mark.parametrize(("error", "kind", "why"), ERRORS, ids=[type(case[0]).__name__ for case in ERRORS])
def test_an_error_crosses_as_code_and_sentence(error: BaseException, kind: type[BridgeError], why: str) -> None:
    with pytest.raises(kind, match=why):
        pull(fail(error))


def test_a_source_that_lists_another_issuers_people_is_refused() -> None:
    with pytest.raises(SourceUnavailable, match=r"is of https://other\.example\.org/, not of"):
        pull(lambda: make_snapshot(issuer="https://other.example.org/"))


def test_a_user_that_does_not_exist_is_told_with_the_way_to_make_it() -> None:
    with pytest.raises(SettingsError, match=r"does not exist on this host; create it: .*systemd-sysusers"):
        unprivileged.find_user("no-such-user")


def test_root_is_no_user_for_the_pull() -> None:
    with pytest.raises(SettingsError, match="is root"):
        unprivileged.find_user("root")


@needs_root
def test_a_run_as_root_without_a_user_asks_nobody() -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        pull(make_snapshot, rules=make_rules(ISSUER, user="no-such-user"))


def test_a_run_without_root_needs_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert pull(make_snapshot, rules=make_rules(ISSUER, user="no-such-user")).complete


def test_a_host_without_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(SourceUnavailable, match="cannot be started: Resource temporarily unavailable"):
        pull(make_snapshot)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedIam]:
    iam = EmbeddedIam(indigo_fixture())
    with running_iam(iam, tmp_path_factory.mktemp("iam"), host="localhost") as running:
        yield running


def test_a_pull_from_an_iam_needs_none_of_the_callers_files_any_more(served: ServedIam, tmp_path: Path) -> None:
    """Secret and CA lie in folders that only their owner may enter, and the child is somebody else."""
    rules = served_rules(served, tmp_path, "Analysis")
    direct = source_of(rules, clock=stand_still).fetch_members()
    pulled = pull_members(rules, clock=stand_still)
    assert pulled.complete
    assert pulled.requests == direct.requests
    assert {member.subject: member for member in pulled.members} == {m.subject: m for m in direct.members}


def test_an_iam_that_hangs_is_not_waited_for_beyond_the_deadline(served: ServedIam, tmp_path: Path) -> None:
    served.iam.fault("hang", path="/scim/Users")
    try:
        with pytest.raises(SourceUnavailable, match=r"was stopped after 0\.7 s"):
            pull_members(
                served_rules(served, tmp_path, "Analysis"), clock=stand_still, limits=PullLimits(deadline_s=0.7)
            )
    finally:
        served.iam.clear_faults()


FRESH = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from iam_bridge.iam import pull
from iam_bridge.iam.members import source_of
from tests.unit.iam_sources import make_rules
issuer, secret, ca = sys.argv[1:]
rules = make_rules(issuer, "Analysis", secret_file=Path(secret), ca_file=Path(ca))
source = source_of(rules, clock=lambda: datetime.now(UTC))
before = set(sys.modules)
snapshot = source.fetch_members()
late = sorted(set(sys.modules) - before)
print(json.dumps([snapshot.complete, late]))
"""


def test_nothing_is_imported_once_rights_are_gone(served: ServedIam, tmp_path: Path) -> None:
    """In an interpreter of its own, since this one has imported everything already."""
    rules = served_rules(served, tmp_path)
    assert rules.client is not None
    done = subprocess.run(
        [sys.executable, "-c", FRESH, served.issuer, str(rules.client.secret_file), str(rules.ca_file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, []]
