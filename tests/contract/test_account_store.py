"""One suite for every AccountStore: the words of `ports.AccountStore`, said as tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_bridge.model.account import LockReason
from iam_bridge.model.state import Wanted, WantedAccount
from tests.contract.harness import FOREIGN, FilesHarness
from tests.contract.interrupt import count_steps, kill_at
from tests.contract.people import GPU, GROUP, account, wanted

STORES = ("files-etc", "files-extrausers")
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None


def make_harness(kind: str, folder: Path) -> FilesHarness:
    (folder / "etc").mkdir()
    return FilesHarness(folder / "etc", kind.removeprefix("files-"))


@pytest.fixture(params=STORES)
def harness(request: pytest.FixtureRequest) -> Iterator[FilesHarness]:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        made = make_harness(request.param, Path(folder))
        made.seed()
        yield made


# -- accounts


def test_a_new_account_is_there_with_all_that_the_ledger_says(harness: FilesHarness) -> None:
    report = harness.store().converge(wanted(account(groups=[GROUP])))
    snapshot = harness.store().read()
    alice = snapshot.users["alice"]
    assert (alice.uid, alice.gid, alice.home, alice.shell, alice.expiry) == (
        20000, 20000, "/home/alice", "/bin/bash", "",
    )  # fmt: skip
    assert snapshot.groups["alice"].gid == 20000
    assert snapshot.groups["hpcusers"].members == {"alice"}
    assert report.problems == ()
    assert set(report.written) == {"alice", "gpu", "hpcusers"}


def test_an_empty_store_takes_its_first_account(request: pytest.FixtureRequest) -> None:
    for kind in STORES:
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            store = make_harness(kind, Path(folder)).store()
            assert store.read().users == {}
            assert store.converge(wanted(account())).problems == ()
            assert set(store.read().users) == {"alice"}


@pytest.mark.parametrize("same_process", [True, False], ids=["the same store", "a store made anew"])
def test_a_second_run_writes_nothing_at_all(harness: FilesHarness, same_process: bool) -> None:
    store = harness.store()
    want = wanted(account(groups=[GROUP]), account("bob", 20001, locks=[LockReason.LEFT]))
    store.converge(want)
    before = harness.fingerprint()
    report = (store if same_process else harness.store()).converge(want)
    assert report.written == ()
    assert report.problems == ()
    assert harness.fingerprint() == before


def test_nothing_wanted_writes_nothing(harness: FilesHarness) -> None:
    before = harness.fingerprint()
    assert harness.store().converge(Wanted((), {})).written == ()
    assert harness.fingerprint() == before


def test_an_account_that_is_no_longer_wanted_stays(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account(), account("bob", 20001)))
    harness.store().converge(wanted(account()))
    assert "bob" in harness.store().read().users


def test_later_changes_of_home_and_shell_are_left_to_their_owner(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account()))
    before = harness.fingerprint()
    report = harness.store().converge(wanted(account(shell="/bin/zsh", home="/elsewhere", gecos="other")))
    assert report.written == ()
    assert harness.fingerprint() == before


def test_the_host_never_shows_an_account_without_its_lock_field_and_group(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account(), account("bob", 20001, locks=[LockReason.SUSPENDED])))
    snapshot = harness.store().read()
    assert {name: snapshot.users[name].expiry for name in ("alice", "bob")} == {"alice": "", "bob": "1"}


# -- expiry


@pytest.mark.parametrize(
    ("locked", "saved", "stands", "then"),
    [
        pytest.param(True, None, "", "1", id="a lock is written"),
        pytest.param(True, "", "", "1", id="a lock is written though an old field is saved"),
        pytest.param(True, "20500", "20500", "1", id="a lock replaces the site's own expiry"),
        pytest.param(True, "", "1", "1", id="a lock that stands stays"),
        pytest.param(False, "", "1", "", id="coming back clears our lock"),
        pytest.param(False, "20500", "1", "20500", id="coming back gives the site's own expiry back"),
        pytest.param(False, None, "1", "1", id="a lock that we did not write is never cleared"),
        pytest.param(False, None, "20500", "20500", id="an expiry that we did not write is never cleared"),
        pytest.param(False, "", "20500", "20500", id="an expiry set while we held the lock stays"),
        pytest.param(False, "", "0", "0", id="zero is not our lock"),
    ],
)
@pytest.mark.parametrize("adopted", [False, True], ids=["ours", "adopted"])
def test_expiry(harness: FilesHarness, locked: bool, saved: str | None, stands: str, then: str, adopted: bool) -> None:
    harness.store().converge(wanted(account()))
    harness.set_expiry("alice", stands)
    want = account(locks=[LockReason.LEFT] if locked else [], adopted=adopted)
    report = harness.store().converge(wanted(WantedAccount(want, saved)))
    assert harness.store().read().users["alice"].expiry == then
    assert report.written == (("alice",) if stands != then else ())


def test_coming_back_gives_the_same_number_and_home(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account()))
    before = harness.store().read().users["alice"]
    harness.store().converge(wanted(account(locks=[LockReason.LEFT])))
    harness.store().converge(wanted(WantedAccount(account(), "")))
    assert harness.store().read().users["alice"] == before


# -- groups


def test_members_come_and_go(harness: FilesHarness) -> None:
    bob = account("bob", 20001, groups=[GROUP, GPU])
    harness.store().converge(wanted(account(groups=[GROUP]), bob))
    report = harness.store().converge(wanted(account(groups=[GPU]), bob))
    groups = harness.store().read().groups
    assert groups["hpcusers"].members == {"bob"}
    assert groups["gpu"].members == {"alice", "bob"}
    assert report.written == ("gpu", "hpcusers")


def test_members_who_are_not_ours_stay(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account(groups=[GROUP]), groups={GROUP: 50000}))
    for kind in ("group", "gshadow"):
        if harness.path(kind).exists():
            text = harness.path(kind).read_bytes()
            harness.path(kind).write_bytes(text.replace(b":alice\n", b":local,alice,ghost\n"))
    harness.store().converge(wanted(account(), groups={GROUP: 50000}))
    assert harness.store().read().groups["hpcusers"].members == {"local", "ghost"}


def test_a_group_of_another_number_is_left_alone(harness: FilesHarness) -> None:
    before = harness.lines("group")
    report = harness.store().converge(wanted(account(groups=[GROUP]), groups={GROUP: 1001}))
    assert len(report.problems) == 1
    assert "gid 1001 belongs to the group 'local': left alone" in report.problems[0]
    assert harness.lines("group")[: len(before)] == before
    assert "hpcusers" not in harness.store().read().groups


def test_a_system_group_is_never_joined(harness: FilesHarness) -> None:
    staff = type(GROUP)("staff")
    report = harness.store().converge(wanted(account(groups=[staff]), groups={staff: 50}))
    assert "system group" in report.problems[0]
    assert harness.store().read().groups["staff"].members == {"local"}


# -- what is not ours


def test_an_adopted_account_is_never_created(harness: FilesHarness) -> None:
    report = harness.store().converge(wanted(account("carol", 1500, adopted=True), groups={}))
    assert "adopted" in report.problems[0]
    assert "carol" not in harness.store().read().users


def test_an_adopted_account_is_locked_and_joins_groups(harness: FilesHarness) -> None:
    local = account("local", 1001, adopted=True, groups=[GROUP], locks=[LockReason.ADMIN])
    before = harness.lines("passwd")
    report = harness.store().converge(wanted(WantedAccount(local, "20500")))
    assert report.problems == ()
    assert harness.lines("passwd") == before
    snapshot = harness.store().read()
    assert snapshot.users["local"].expiry == "1"
    assert snapshot.groups["hpcusers"].members == {"local"}


@pytest.mark.parametrize(
    ("person", "says"),
    [
        pytest.param(account("local", 20000), "the ledger 20000: left alone", id="a name of ours in a foreign row"),
        pytest.param(
            account("dora", 1001, gid=20007), "uid 1001 belongs to 'local'", id="a uid that a foreign row has"
        ),
        pytest.param(
            account("dora", 20007, gid=1001), "gid 1001 belongs to the group 'local'", id="a foreign group's gid"
        ),
        pytest.param(account("staff", 20007), "a group of that name has gid '50'", id="a foreign group's name"),
        pytest.param(account("hpcusers", 20007), "mapped group has the same name", id="a mapped group's name"),
        pytest.param(account("dora", 0), "lies where no site may give numbers", id="uid 0"),
        pytest.param(account("dora", 65534), "lies where no site may give numbers", id="nobody's uid"),
    ],
)
def test_a_clash_is_reported_and_nothing_is_done(harness: FilesHarness, person: object, says: str) -> None:
    before = harness.contents()
    report = harness.store().converge(wanted(person, groups={GROUP: 50000} if "mapped" in says else {}))  # type: ignore[arg-type]
    assert any(says in problem for problem in report.problems), report.problems
    changed = {name for name, text in harness.contents().items() if before.get(name) not in (text, None)}
    assert changed <= ({"group", "gshadow"} if "mapped" in says else set())
    assert {name: user for name, user in harness.store().read().users.items() if user.uid >= 20000} == {}


def test_one_clash_stops_no_other_account(harness: FilesHarness) -> None:
    report = harness.store().converge(wanted(account("local", 20000), account("bob", 20001)))
    assert len(report.problems) == 1
    assert harness.store().read().users["bob"].uid == 20001


def test_a_lock_reaches_our_account_though_somebody_changed_its_gid(harness: FilesHarness) -> None:
    harness.store().converge(wanted(account()))
    harness.path("passwd").write_bytes(harness.path("passwd").read_bytes().replace(b":20000:20000:", b":20000:1001:"))
    report = harness.store().converge(wanted(account(locks=[LockReason.LEFT])))
    assert "passwd gives gid '1001'" in report.problems[0]
    assert harness.store().read().users["alice"].expiry == "1"


JUNK = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"+", b"-", b"+@net::::::", b"#x", b"", b" ", b"alic:x", b"a:b:c:d:e:f:g:h:i:j", b":::::::"]),
        st.builds(lambda name, rest: name + b":" + rest, st.binary(max_size=8), st.binary(max_size=20)),
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", STORES)
@settings(max_examples=60, deadline=None)
@given(junk=st.dictionaries(st.sampled_from(sorted(FOREIGN)), JUNK), newline=st.booleans())
def test_other_peoples_lines_survive_byte_for_byte(kind: str, junk: dict[str, list[bytes]], newline: bool) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        harness = make_harness(kind, Path(folder))
        harness.seed()
        before: dict[str, list[bytes]] = {}
        for name in harness.kinds:
            lines = FOREIGN[name].splitlines() + [line.replace(b"\n", b"\r") for line in junk.get(name, [])]
            harness.path(name).write_bytes(b"\n".join(lines) + (b"\n" if newline else b""))
            before[name] = lines
        store = harness.store()
        people = [account(groups=[GROUP]), account("bob", 20001, locks=[LockReason.LEFT])]
        store.converge(wanted(*people))
        for name, lines in before.items():
            now = harness.path(name).read_bytes().split(b"\n")
            rest = iter(now)
            assert all(line in rest for line in lines), f"a line of {name} is gone, changed or moved"
        fingerprint = harness.fingerprint()
        assert harness.store().converge(wanted(*people)).written == ()
        assert harness.fingerprint() == fingerprint


# -- interruption


def _before() -> Wanted:
    ours = [
        account("ann", 20010, groups=[GROUP]),
        account("ben", 20011),
        account("cat", 20012, locks=[LockReason.LEFT]),
    ]
    return wanted(*ours)


def _after(*, with_new: bool = True) -> Wanted:
    ours = [
        WantedAccount(account("ann", 20010, groups=[GPU]), None),
        WantedAccount(account("ben", 20011, locks=[LockReason.LEFT], groups=[GROUP]), ""),
        WantedAccount(account("cat", 20012), ""),
    ]
    return wanted(*ours, *([account("dan", 20013, groups=[GROUP])] if with_new else []))


def _fresh(kind: str, folder: Path) -> FilesHarness:
    harness = make_harness(kind, folder)
    harness.seed()
    harness.store().converge(_before())
    return harness


def _check_consistent(harness: FilesHarness) -> None:
    snapshot = harness.store().read()
    gids = {group.gid for group in snapshot.groups.values()}
    assert {"root", "local", "ann", "ben", "cat"} <= set(snapshot.users)
    for user in snapshot.users.values():
        assert user.expiry is not None, f"{user.name} has no shadow row"
        assert user.gid in gids, f"{user.name} has no group"


@pytest.mark.parametrize("kind", STORES)
def test_after_a_kill_at_any_step_the_next_run_ends_in_the_same_bytes(kind: str) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        harness = _fresh(kind, Path(folder))
        steps = count_steps(lambda: harness.store().converge(_after()))
        done = harness.contents()
    assert steps > 60
    for step in range(1, steps + 1):
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            harness = _fresh(kind, Path(folder))
            kill_at(step, lambda harness=harness: harness.store().converge(_after()))  # type: ignore[misc]
            _check_consistent(harness)
            before = {name: harness.path(name).read_bytes() for name in harness.kinds}
            report = harness.store().converge(_after())
            assert harness.contents() == done, f"killed before step {step}"
            if before != {name: harness.path(name).read_bytes() for name in harness.kinds}:
                assert report.written, f"step {step}: rows came and nobody was told, so no cache is flushed"
            fingerprint = harness.fingerprint()
            harness.store().converge(_after())
            assert harness.fingerprint() == fingerprint


@pytest.mark.parametrize("kind", STORES)
def test_after_a_kill_a_run_that_wants_less_finds_all_or_nothing(kind: str) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        harness = _fresh(kind, Path(folder))
        steps = count_steps(lambda: harness.store().converge(_after()))
    seen = set()
    for step in range(1, steps + 1, 2):
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            harness = _fresh(kind, Path(folder))
            kill_at(step, lambda harness=harness: harness.store().converge(_after()))  # type: ignore[misc]
            harness.store().converge(_after(with_new=False))
            named = {name for name in harness.kinds if any(line.startswith(b"dan:") for line in harness.lines(name))}
            assert named in (set(), set(harness.kinds)), f"killed before step {step}"
            assert not any("iam-bridge" in name or name.endswith(".lock") for name in harness.contents())
            seen.add(bool(named))
    assert seen == {False, True}
