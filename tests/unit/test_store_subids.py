"""Ranges of subordinate ids never overlap anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.model.account import IdRange
from provisioner.stores.rows import Draft, parse_table
from provisioner.stores.subids import Ranges, add_ranges
from tests.contract.people import UIDS, account

PEOPLE = [account(f"u{number}", number) for number in range(20000, 20010)]


def give(raw: bytes = b"", *, uids: IdRange = UIDS, count: int = 65536, numbers: tuple[int, ...] = ()) -> list[str]:
    draft = Draft(parse_table("subuid", raw))
    _, problems = add_ranges(draft, PEOPLE, ids=uids, uids=uids, count=count, numbers=lambda: numbers)
    rows = draft.render().removeprefix(raw).decode().split()
    assert len(rows) + len(problems) == len(PEOPLE) - sum(raw.startswith(f"{p.name}:".encode()) for p in PEOPLE)
    return rows


def test_the_range_follows_from_the_uid() -> None:
    assert give()[:2] == ["u20000:100000:65536", "u20001:165536:65536"]


def test_a_row_that_stands_is_kept() -> None:
    assert not any(row.startswith("u20000:") for row in give(b"u20000:300000000:1000\n"))


def test_a_row_by_number_counts() -> None:
    draft = Draft(parse_table("subuid", b"20000:300000000:1000\n"))
    assert add_ranges(draft, PEOPLE[:1], ids=UIDS, uids=UIDS, count=65536, numbers=tuple) == ([], [])


def test_a_clash_sends_to_the_first_place_after_all_regular_ones() -> None:
    rows = give(b"local:100000:65536\nlocal:165540:1\n")
    after_all = 100000 + 40000 * 65536
    assert rows[:3] == [f"u20000:{after_all}:65536", f"u20001:{after_all + 65536}:65536", "u20002:231072:65536"]


def test_second_rows_of_one_owner_count() -> None:
    assert give(b"local:1:1\nlocal:100000:65536\n")[0] != "u20000:100000:65536"


def test_no_range_lies_over_an_account() -> None:
    assert give(numbers=(165537,))[1] != "u20001:165536:65536"


def test_no_range_lies_over_the_numbers_that_we_give() -> None:
    uids = IdRange(100000, 300000)
    draft = Draft(parse_table("subuid", b""))
    person = account("ann", 100000)
    add_ranges(draft, [person], ids=uids, uids=uids, count=1000, numbers=tuple)
    assert int(draft.render().split(b":")[1]) > 300000


def test_no_room_is_a_problem() -> None:
    draft = Draft(parse_table("subuid", b"local:100000:4294867295\n"))
    named, problems = add_ranges(draft, PEOPLE[:2], ids=UIDS, uids=UIDS, count=65536, numbers=tuple)
    assert named == []
    assert problems == [f"{name}: subuid has no room for 65536 more ids" for name in ("u20000", "u20001")]


def test_the_first_gap_is_taken_when_the_end_is_full() -> None:
    after_all = 100000 + 40000 * 65536
    raw = b"a:100000:65536\nb:%d:%d\n" % (after_all, 2**32 - after_all)
    assert give(raw)[:2] == ["u20000:165536:65536", "u20001:231072:65536"]


def test_a_line_that_cannot_be_read_is_a_problem() -> None:
    draft = Draft(parse_table("subuid", b"u20000:junk\n"))
    _, problems = add_ranges(draft, PEOPLE[:1], ids=UIDS, uids=UIDS, count=65536, numbers=tuple)
    assert problems == ["u20000: the line of that name in subuid cannot be read: correct it"]


ROWS = st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 2**31)), max_size=12)


@given(foreign=ROWS, numbers=st.lists(st.integers(0, 2**32 - 1), max_size=5), count=st.sampled_from([1, 1000, 65536]))
def test_ranges_overlap_nothing(foreign: list[tuple[int, int]], numbers: list[int], count: int) -> None:
    raw = b"".join(b"local:%d:%d\n" % row for row in foreign)
    rows = give(raw, count=count, numbers=tuple(numbers))
    given_ = sorted((int(row.split(":")[1]), int(row.split(":")[1]) + count - 1) for row in rows)
    taken = [(first, first + size - 1) for first, size in foreign if size and first < 2**32]
    for at, (first, last) in enumerate(given_):
        assert first >= 100000
        assert last < 2**32 - 1
        assert not any(first <= b and a <= last for a, b in [*taken, *given_[at + 1 :]])
        assert not any(first <= number <= last for number in numbers)
        assert last < UIDS.low or first > UIDS.high


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40))), st.integers(0, 300), st.integers(1, 40))
def test_a_range_is_taken_only_where_it_is_free(held: list[tuple[int, int]], first: int, count: int) -> None:
    ranges = Ranges((start, start + size - 1) for start, size in held)
    busy = {number for start, size in held for number in range(start, start + size)}
    assert ranges.take(first, count) is not bool(busy & set(range(first, first + count)))
