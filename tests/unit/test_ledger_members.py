"""What the sources said: only a complete snapshot counts, and only differences are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import LedgerError
from iam_bridge.ledger.ledger import Ledger
from tests.unit.build import ISSUER, NOW, OTHER, member, snapshot, subject
from tests.unit.ledgers import open_ledger

ADA, BOB = member(), member("s-bob", "bob", ("hpc/users", "hpc/gpu"), active=False)
HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path)


def _rows_written(ledger: Ledger, work: Callable[[], object]) -> int:
    with ledger.reading() as db:
        pass
    before = db.total_changes
    work()
    return db.total_changes - before


def test_a_complete_snapshot_is_kept_whole(ledger: Ledger) -> None:
    assert ledger.write_members(snapshot(ADA, BOB), NOW) == 2
    members = ledger.members()
    assert set(members) == {ADA.subject, BOB.subject}
    bob = ledger.member(BOB.subject)
    assert bob == members[BOB.subject]
    assert bob is not None
    assert (bob.username, bob.active, bob.groups, bob.created) == ("bob", False, BOB.groups, BOB.created)
    (source,) = ledger.sources()
    assert (source.issuer, source.taken_at, source.members, source.reason) == (ISSUER, NOW, 2, "")


def test_the_same_snapshot_again_writes_the_sources_row_alone(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA, BOB), NOW)
    generation = ledger.generation()
    again = replace(snapshot(BOB, ADA), taken_at=NOW + HOUR)
    assert _rows_written(ledger, lambda: ledger.write_members(again, NOW + HOUR)) == 1
    assert ledger.generation() == generation
    assert ledger.sources()[0].taken_at == NOW + HOUR


def test_only_differences_are_written(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA, BOB, member("s-cy", "cy")), NOW)
    generation = ledger.generation()
    changed = replace(ADA, groups=frozenset({"hpc/gpu"}))
    assert ledger.write_members(snapshot(changed, BOB, member("s-di", "di")), NOW + HOUR) == 3
    assert ledger.generation() > generation
    assert {m.subject.sub: m.groups for m in ledger.members().values()} == {
        "s-ada": {"hpc/gpu"},
        "s-bob": BOB.groups,
        "s-di": {"hpc/users"},
    }


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (snapshot(ADA, complete=False), "a page was short"),
        (replace(snapshot(complete=False), reason=""), "the list is not complete"),
        (snapshot(), "the list is empty, and it held 2 members before"),
    ],
    ids=["partial", "nothing", "complete and suddenly empty"],
)
def test_what_is_not_whole_changes_no_record(ledger: Ledger, bad: object, reason: str) -> None:
    ledger.write_members(snapshot(ADA, BOB), NOW)
    before = ledger.members(), ledger.generation()
    assert ledger.write_members(bad, NOW + HOUR) == 0  # type: ignore[arg-type]
    assert (ledger.members(), ledger.generation()) == before
    (source,) = ledger.sources()
    assert (source.taken_at, source.attempted_at, source.reason) == (NOW, NOW + HOUR, reason)
    ledger.write_members(replace(snapshot(ADA, BOB), taken_at=NOW + 2 * HOUR), NOW + 2 * HOUR)
    assert ledger.sources()[0].reason == ""


def test_a_first_attempt_that_fails_is_known_too(ledger: Ledger) -> None:
    ledger.write_members(snapshot(complete=False), NOW)
    (source,) = ledger.sources()
    assert (source.taken_at, source.members, source.reason) == (None, 0, "a page was short")


def test_people_whose_removal_is_parked_keep_their_record(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA, BOB), NOW)
    suspended = replace(ADA, active=False)
    held = frozenset({ADA.subject, BOB.subject, subject("s-new"), subject("s-bob", OTHER)})
    assert ledger.write_members(snapshot(suspended), NOW + HOUR, held=held) == 0
    assert {m.username: m.active for m in ledger.members().values()} == {"ada": True, "bob": False}
    assert ledger.write_members(snapshot(suspended), NOW + HOUR) == 2
    assert {m.username: m.active for m in ledger.members().values()} == {"ada": False}


def test_a_source_speaks_of_its_own_issuer_alone(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA), NOW)
    with pytest.raises(LedgerError, match=r"speaks of s-eve@https://other"):
        ledger.write_members(snapshot(ADA, member("s-eve", "eve", issuer=OTHER)), NOW)
    assert set(ledger.members()) == {ADA.subject}


def test_somebody_listed_twice_is_no_snapshot(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="twice"):
        ledger.write_members(snapshot(ADA, replace(ADA, username="ada2")), NOW)
    assert not ledger.members()


def test_two_issuers_do_not_touch_each_other(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA), NOW)
    ledger.write_members(snapshot(member(issuer=OTHER), issuer=OTHER), NOW)
    ledger.write_members(snapshot(ADA, BOB), NOW)
    assert {(m.subject.issuer, m.username) for m in ledger.members().values()} == {
        (ISSUER, "ada"),
        (ISSUER, "bob"),
        (OTHER, "ada"),
    }


def test_a_time_in_the_future_is_not_believed(ledger: Ledger) -> None:
    ledger.write_members(replace(snapshot(ADA), taken_at=NOW + 1000 * HOUR), NOW)
    assert ledger.sources()[0].taken_at == NOW


def test_an_older_snapshot_does_not_replace_a_newer_one(ledger: Ledger) -> None:
    ledger.write_members(snapshot(ADA), NOW)
    with pytest.raises(LedgerError, match="known already"):
        ledger.write_members(replace(snapshot(BOB), taken_at=NOW - HOUR), NOW + HOUR)
    assert set(ledger.members()) == {ADA.subject}


def test_after_the_clock_was_set_back_snapshots_count_again(ledger: Ledger) -> None:
    ledger.write_members(replace(snapshot(ADA), taken_at=NOW + 1000 * HOUR), NOW + 1000 * HOUR)
    ledger.write_members(snapshot(BOB), NOW)
    assert set(ledger.members()) == {BOB.subject}


def test_counts_of_complete_pulls_are_kept_for_24_hours(ledger: Ledger) -> None:
    many = [member(f"s-{n}", f"u{n}") for n in range(9)]
    for hour, count in enumerate([5, 5, 9, 9, 4]):
        ledger.write_members(replace(snapshot(*many[:count]), taken_at=NOW + hour * HOUR), NOW + hour * HOUR)
    ledger.write_members(snapshot(complete=False), NOW + 5 * HOUR)
    now = NOW + 6 * HOUR
    assert ledger.read_state(now).member_counts == (
        (NOW + 1 * HOUR, ISSUER, 5),
        (NOW + 3 * HOUR, ISSUER, 9),
        (NOW + 4 * HOUR, ISSUER, 4),
    )
    assert ledger.read_state(NOW + 26 * HOUR).member_counts == (
        (NOW + 3 * HOUR, ISSUER, 9),
        (NOW + 4 * HOUR, ISSUER, 4),
    )
    assert ledger.read_state(NOW + 28 * HOUR).member_counts == ((NOW + 4 * HOUR, ISSUER, 4),), (
        "an outage forgets nothing"
    )


def test_text_that_utf8_cannot_hold_is_refused_whole(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot hold"):
        ledger.write_members(snapshot(BOB, replace(ADA, username="\udce4")), NOW)
    assert not ledger.members()


@pytest.mark.parametrize("text", ["a\x00b", "x" * 10_000, "'; DROP TABLE members; --", "\u202e"], ids=ascii)
def test_hostile_text_is_kept_as_it_is(ledger: Ledger, text: str) -> None:
    hostile = replace(ADA, username=text, groups=frozenset({text}))
    ledger.write_members(snapshot(hostile, BOB), NOW)
    kept = ledger.members()[ADA.subject]
    assert (kept.username, kept.groups) == (text, frozenset({text}))
