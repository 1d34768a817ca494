"""Taking over an account that exists: every doubt refuses, and what speaks for it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from iam_bridge.model.account import UserName
from iam_bridge.model.identity import Issuer, Member, Subject
from iam_bridge.model.state import StoreSnapshot, StoreUser
from iam_bridge.policy.adoption import Adoption, AdoptionFacts, HomeSeen, decide_adoption
from tests.unit.build import ISSUER, account, ledger, member, source, subject

BOB = UserName.parse("bob")
WHO = subject("s-bob")
HOME = HomeSeen(1500, datetime(2025, 1, 2, tzinfo=UTC))


def row(name: str = "bob", uid: int = 1500, **changes: object) -> StoreUser:
    values: dict[str, object] = {"gid": 100, "home": "/home/bob", "shell": "/bin/zsh", "expiry": ""}
    return StoreUser(name, uid, **(values | changes))  # type: ignore[arg-type]


def facts(*rows: StoreUser, **changes: object) -> AdoptionFacts:
    values: dict[str, object] = {
        "ledger": ledger(),
        "store": StoreSnapshot({user.name: user for user in rows or (row(),)}, {}),
        "sources": (source(),),
        "members": {WHO: member("s-bob", "bob")},
        "reserved": frozenset({"postgres"}),
        "host_uids": {"bob": 1500},
        "homes": {"bob": HOME},
    }
    return AdoptionFacts(**(values | changes))  # type: ignore[arg-type]


def adopt(given: AdoptionFacts, name: UserName = BOB, who: Subject = WHO, proof: str = "") -> Adoption | str:
    return decide_adoption(name, who, proof, given)


def test_what_was_there_stays_as_it_was() -> None:
    found = adopt(facts(), proof="signed form 17")
    assert isinstance(found, Adoption)
    taken = found.change.account
    assert (taken.subject, taken.uid, taken.gid, taken.home, taken.shell) == (WHO, 1500, 100, "/home/bob", "/bin/zsh")
    assert taken.adopted
    assert taken.groups == frozenset()
    assert found.change.proof == "signed form 17; the IAM has the same user name; home of uid 1500, changed 2025-01-02"
    assert found.change.cause.record.startswith("userName=bob active=true")
    assert found.cautions == ()


REFUSED: list[tuple[str, Callable[[], AdoptionFacts], str]] = [
    ("a name that the store has not", lambda: facts(row("eve")), "the store has no account bob"),
    ("a system name", lambda: facts(reserved=frozenset({"bob"})), "a system name"),
    ("uid 0", lambda: facts(row(uid=0)), "has uid 0, which is no person's"),
    ("uid 999", lambda: facts(row(uid=999)), "has uid 999"),
    ("nobody's uid", lambda: facts(row(uid=65534)), "has uid 65534"),
    ("root's group", lambda: facts(row(gid=0)), "root's group"),
    ("a number of two names", lambda: facts(row(), row("eve"), row("zed")), "shares uid 1500 with eve, zed"),
    ("no shadow row", lambda: facts(row(expiry=None)), "nowhere to stand"),
    ("another uid at the host", lambda: facts(host_uids={"bob": 7}), "1500 in the store, and 7 by"),
    ("a name of the ledger", lambda: facts(ledger=ledger(account("s-x", "bob", 20000))), "in the ledger already"),
    ("a number of the ledger", lambda: facts(ledger=ledger(account("s-x", "x", 1500))), "in the ledger already, as x"),
    ("a person of the ledger", lambda: facts(ledger=ledger(account("s-bob", "x", 20000))), "has an account already: x"),
    ("no source of the issuer", lambda: facts(sources=()), "no source of the settings"),
    ("nobody of the list", lambda: facts(members={}), "does not list the subject s-bob"),
    ("a home of somebody else", lambda: facts(homes={"bob": replace(HOME, owner=7)}), "belongs to uid 7"),
]


@pytest.mark.parametrize(("given", "told"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_doubt_refuses(given: Callable[[], AdoptionFacts], told: str) -> None:
    verdict = adopt(given())
    assert isinstance(verdict, str)
    assert told in verdict


def test_names_that_systemd_takes_are_refused() -> None:
    name = UserName.parse("systemd-x")
    assert "system name" in str(adopt(facts(row("systemd-x")), name))


def test_an_issuer_counts_byte_for_byte() -> None:
    other = Subject.parse(Issuer.parse(ISSUER.url[:-1]), "s-bob")
    assert "byte for byte" in str(adopt(facts(), who=other))


CAUTIONS: list[tuple[str, dict[str, object], str, str]] = [
    ("suspended", {"members": {WHO: member("s-bob", "bob", active=False)}}, "", "suspended at the IAM"),
    ("in no group", {"members": {WHO: member("s-bob", "bob", ("hpc/gpu",))}}, "", "in no group that grants"),
    ("no home", {"homes": {}}, "", "/home/bob is not there"),
    ("another name and no proof", {"members": {WHO: member("s-bob", "robert")}}, "", "gives no proof"),
]


@pytest.mark.parametrize(("changes", "proof", "told"), [c[1:] for c in CAUTIONS], ids=[c[0] for c in CAUTIONS])
def test_what_ought_to_be_known_is_said(changes: dict[str, object], proof: str, told: str) -> None:
    found = adopt(facts(**changes), proof=proof)
    assert isinstance(found, Adoption)
    assert [told in caution for caution in found.cautions] == [True]


def test_a_proof_answers_for_another_name() -> None:
    given: dict[Subject, Member] = {WHO: member("s-bob", "robert")}
    found = adopt(facts(members=given), proof="met in person")
    assert isinstance(found, Adoption)
    assert found.cautions == ()
    assert "another user name" in found.change.proof


def test_a_host_that_does_not_know_the_name_is_no_doubt() -> None:
    assert isinstance(adopt(facts(host_uids={})), Adoption)
