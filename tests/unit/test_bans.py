"""Bans in the ledger: on whom, from when to when, and that they find their people."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from iam_bridge.errors import BridgeError, InvalidValue, LedgerError
from iam_bridge.ledger.ledger import Ledger
from tests.unit.build import NOW, OTHER, account, subject
from tests.unit.ledgers import adopt, commit, create, with_accounts

HOUR = timedelta(hours=1)
ADA, BOB, EVE = account(), account("s-bob", "bob", 20001), account("s-eve", "eve", 20002)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return with_accounts(tmp_path, [ADA, BOB])


def test_a_ban_on_a_subject_holds_from_now_until_its_end(ledger: Ledger) -> None:
    ban = ledger.add_ban(NOW, "root", subject=ADA.subject, reason="key lost", until=NOW + HOUR)
    assert (ban.subject, ban.name, ban.uid, ban.reason, ban.since, ban.until) == (
        ADA.subject, None, None, "key lost", NOW, NOW + HOUR,
    )  # fmt: skip
    assert ledger.bans(NOW) == (ban,)
    assert ledger.bans(NOW + HOUR) == ()
    assert ledger.bans(NOW + HOUR, include_past=True) == (ban,)


@pytest.mark.parametrize("key", [{"name": "ada"}, {"uid": 20000}, {"name": "ada", "uid": 20000}], ids=str)
def test_a_ban_on_a_name_or_a_uid_of_ours_is_one_on_its_subject(ledger: Ledger, key: dict[str, object]) -> None:
    ban = ledger.add_ban(NOW, "root", **key)  # type: ignore[arg-type]
    assert ban.subject == ADA.subject
    assert {"name": ban.name, "uid": ban.uid} == {"name": None, "uid": None} | key


@pytest.mark.parametrize("key", [{"name": "eve"}, {"uid": 20002}], ids=str)
def test_a_ban_that_came_before_the_account_finds_it(ledger: Ledger, key: dict[str, object]) -> None:
    ban = ledger.add_ban(NOW, "root", **key)  # type: ignore[arg-type]
    assert ban.subject is None
    generation = ledger.bans_generation()
    commit(ledger, create(EVE))
    assert [b.subject for b in ledger.bans(NOW)] == [EVE.subject]
    assert ledger.bans_generation() > generation, "the services must be told"
    assert [receipt.kind for receipt in ledger.history(name="eve")] == (
        ["ban", "create", "ban-resolved"]
    )  # fmt: skip
    assert ledger.verify() == ()


def test_it_finds_an_adopted_account_too(ledger: Ledger) -> None:
    ledger.add_ban(NOW, "root", uid=1001)
    commit(ledger, adopt(account("s-kim", "kim", 1001, (), adopted=True)))
    assert ledger.bans(NOW)[0].subject == subject("s-kim")


def test_a_ban_on_a_subject_before_its_account_needs_no_finding(ledger: Ledger) -> None:
    ledger.add_ban(NOW, "root", subject=EVE.subject)
    generation = ledger.bans_generation()
    commit(ledger, create(EVE))
    assert ledger.bans(NOW)[0].subject == EVE.subject
    assert ledger.bans_generation() == generation


def test_a_ban_that_is_over_finds_nobody(ledger: Ledger) -> None:
    ended = ledger.add_ban(NOW, "root", name="eve", until=NOW + HOUR)
    lifted = ledger.add_ban(NOW, "root", uid=20002)
    ledger.lift_ban(lifted.ban_id, NOW, "root")
    commit(ledger, create(EVE), now=NOW + HOUR)
    assert [b.subject for b in ledger.bans(NOW, include_past=True)] == [None, None]
    assert ended.ban_id != lifted.ban_id


def test_the_same_sub_of_another_issuer_is_not_banned(ledger: Ledger) -> None:
    ban = ledger.add_ban(NOW, "root", subject=subject("s-ada", OTHER))
    assert ban.subject != ADA.subject


def test_a_lifted_ban_ends_when_it_was_lifted(ledger: Ledger) -> None:
    ban = ledger.add_ban(NOW, "root", name="ada", until=NOW + 5 * HOUR)
    lifted = ledger.lift_ban(ban.ban_id, NOW + HOUR, "officer")
    assert lifted.until == NOW + HOUR
    assert not lifted.holds_at(NOW + HOUR)
    assert ledger.bans(NOW + HOUR) == ()
    assert ledger.bans(NOW + HOUR, include_past=True) == (lifted,)
    assert [(r.kind, r.by, r.rule) for r in ledger.history(name="ada")[1:]] == [
        ("ban", "root", f"ban {ban.ban_id}"),
        ("lift", "officer", f"ban {ban.ban_id}"),
    ]


def test_what_does_not_stand_cannot_be_lifted(ledger: Ledger) -> None:
    ban = ledger.add_ban(NOW, "root", name="ada", until=NOW + HOUR)
    with pytest.raises(LedgerError, match="there is no ban 99"):
        ledger.lift_ban(99, NOW, "root")
    with pytest.raises(LedgerError, match="ended at 2026-05-03T13:00"):
        ledger.lift_ban(ban.ban_id, NOW + HOUR, "root")
    ledger.lift_ban(ban.ban_id, NOW, "root")
    with pytest.raises(LedgerError, match="ended at 2026-05-03T12:00"):
        ledger.lift_ban(ban.ban_id, NOW, "root")


BAD: dict[str, tuple[dict[str, object], str]] = {
    "nobody": ({}, "names nobody"),
    "a name that none may have": ({"name": "../etc"}, "no account name"),
    "a name with a newline": ({"name": "ada\n"}, "no account name"),
    "root's uid": ({"uid": 0}, "no uid"),
    "a negative uid": ({"uid": -1}, "no uid"),
    "a uid past 32 bits": ({"uid": 2**32 - 1}, "no uid"),
    "a truth for a uid": ({"uid": True}, "no uid"),
    "an end that is past": ({"name": "ada", "until": NOW}, "is over"),
    "an end without its zone": ({"name": "ada", "until": NOW.replace(tzinfo=None)}, "zone"),
    "a reason with an escape": ({"name": "ada", "reason": "\x1b[2J"}, "control characters"),
    "a reason of two lines": ({"name": "ada", "reason": "a\nb"}, "control characters"),
    "a reason without end": ({"name": "ada", "reason": "x" * 201}, "longer than 200"),
    "two people": ({"name": "ada", "uid": 20001}, "are two people's"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_ban_that_could_never_hold_is_refused(ledger: Ledger, case: str) -> None:
    fields, words = BAD[case]
    before = ledger.bans_generation(), ledger.generation()
    with pytest.raises(BridgeError, match=words) as caught:
        ledger.add_ban(NOW, "root", **fields)  # type: ignore[arg-type]
    assert isinstance(caught.value, InvalidValue)
    assert ledger.bans(NOW, include_past=True) == ()
    assert (ledger.bans_generation(), ledger.generation()) == before


def test_numbers_of_bans_are_never_used_again(ledger: Ledger) -> None:
    first = ledger.add_ban(NOW, "root", name="ada")
    ledger.lift_ban(first.ban_id, NOW, "root")
    assert ledger.add_ban(NOW, "root", name="ada").ban_id > first.ban_id


def test_the_generation_of_the_list_never_passes_that_of_the_ledger(ledger: Ledger) -> None:
    # So an anchor, which holds the ledger's, is enough to go past every list that was ever written.
    for _ in range(9):
        ledger.add_ban(NOW, "root", name="ada")
    assert ledger.bans_generation() <= ledger.generation()
