"""Names and numbers: never bent, never given twice."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.model.account import IdRange
from iam_bridge.policy.names import NameChoice, Numbers, decide_name, judge_name
from tests.unit.build import member

SOURCES = ("attribute:posix_username", "preferred_username")

BAD = [
    "root", "daemon", "postgres", "../../etc", "-x", "a:b", "a\nb", "a b", "аda", "ada\u200b", "a" * 33, "x" * 300, "1234",
    "", "Ada", "a.b", "a@b", "a$", "_apt", "systemd-network", "u20000", "hpcusers", "é",
]  # fmt: skip
BUSY = {name: f"{name} is in use" for name in ("root", "daemon", "postgres", "hpcusers", "kim")}


@pytest.mark.parametrize("text", BAD, ids=ascii)
def test_a_misfit_falls_back_to_the_uid(text: str) -> None:
    choice = decide_name(member(username=text), 20007, ("preferred_username",), (), BUSY)
    assert isinstance(choice, NameChoice)
    assert (choice.name.text, choice.source) == ("u20007", "uid")
    assert len(choice.passed_over) == 1


@pytest.mark.parametrize("text", ["ada", "a", "a-b_c9", "x" * 32])
def test_a_fitting_name_is_taken_as_it_is(text: str) -> None:
    choice = decide_name(member(username=text), 20007, ("preferred_username",), (), BUSY)
    assert isinstance(choice, NameChoice)
    assert (choice.name.text, choice.source, choice.passed_over) == (text, "preferred_username", ())


def test_an_attribute_counts_only_where_it_is_trusted() -> None:
    person = member(username="ada", attributes={"posix_username": "lovelace"})
    trusting = decide_name(person, 20007, SOURCES, ("posix_username",), {})
    wary = decide_name(person, 20007, SOURCES, (), {})
    assert isinstance(trusting, NameChoice)
    assert isinstance(wary, NameChoice)
    assert (trusting.name.text, wary.name.text) == ("lovelace", "ada")


def test_a_misfit_attribute_gives_way_to_the_next_source() -> None:
    person = member(username="ada", attributes={"posix_username": "root"})
    choice = decide_name(person, 20007, SOURCES, ("posix_username",), BUSY)
    assert isinstance(choice, NameChoice)
    assert (choice.name.text, choice.passed_over) == ("ada", ("root is in use",))


def test_nobody_gets_a_name_when_even_the_last_is_taken() -> None:
    why = decide_name(member(username="kim"), 20007, ("preferred_username",), (), BUSY | {"u20007": "u20007 is in use"})
    assert why == "u20007 is in use; and kim is in use"


@given(st.text(max_size=40))
def test_whatever_the_text_the_name_fits_and_is_free(text: str) -> None:
    choice = decide_name(member(username=text), 20007, ("preferred_username",), (), BUSY)
    assert isinstance(choice, NameChoice)
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", choice.name.text)
    assert choice.name.text not in BUSY
    assert choice.name.text == text or choice.name.text == "u20007"


def test_judge_name_speaks_of_each_rule() -> None:
    assert "no account name" in judge_name("A", {})
    assert "system account" in judge_name("systemd-x", {})
    assert "made from a uid" in judge_name("u1", {})
    assert judge_name("kim", BUSY) == "kim is in use"
    assert judge_name("ada", BUSY) == ""


TEN = IdRange(20000, 20009)
FAR = IdRange(30000, 30009)


def test_numbers_go_up_from_the_highest_ever_given() -> None:
    assert Numbers({20005}, set()).take(TEN) == 20006
    assert Numbers(set(), {20000, 20001}).take(TEN) == 20002
    assert Numbers({40000}, set()).take(TEN) == 20000


def test_a_range_that_is_used_up_gives_nothing() -> None:
    assert Numbers({20009}, set()).take(TEN) is None
    assert Numbers(set(), set(range(20000, 20010))).peek(TEN) is None
    assert Numbers({20009}, set()).take_pair(TEN, FAR) is None
    assert Numbers({30009}, set()).take_pair(TEN, FAR) is None


def test_a_private_group_shares_the_number_or_takes_its_own_range() -> None:
    assert Numbers(set(), set()).take_pair(TEN, TEN) == (20000, 20000)
    assert Numbers(set(), set()).take_pair(TEN, FAR) == (20000, 30000)


@given(st.sets(st.integers(20000, 20009)), st.sets(st.integers(20000, 20009)), st.lists(st.booleans(), max_size=15))
def test_no_number_is_ever_given_twice(given_before: set[int], busy: set[int], wishes: list[bool]) -> None:
    numbers = Numbers(given_before, busy)
    taken: list[int] = []
    for as_pair in wishes:
        pair = numbers.take_pair(TEN, TEN) if as_pair else None
        number = pair[0] if pair else numbers.take(TEN)
        if number is not None:
            taken.append(number)
    assert len(set(taken)) == len(taken)
    assert not set(taken) & (given_before | busy)
    assert all(number in TEN for number in taken)
    assert taken == sorted(taken)
