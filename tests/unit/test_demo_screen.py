"""The demo's screen: what is told first is told whole, what is told again is cut, and ends are kept."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from iam_bridge.demo.screen import Screen

WIDTH = 40
LONG = "+ create ada uid 20002 (name from uid; passed over: 'root' is a system name)"


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=WIDTH))


def lines_of(screen: Screen) -> list[str]:
    assert isinstance(screen.console.file, io.StringIO)
    return screen.console.file.getvalue().splitlines()


def test_a_long_line_is_folded_the_first_time_and_cut_the_next(screen: Screen) -> None:
    screen.command("a", LONG)
    first = lines_of(screen)[1:]
    assert " ".join(line.strip() for line in first) == LONG
    assert all(len(line) <= WIDTH for line in first)
    screen.command("b", LONG)
    (again,) = lines_of(screen)[len(first) + 2 :]
    assert (len(again), again[-1]) == (WIDTH, "…")


def test_a_table_is_cut_and_never_folded(screen: Screen) -> None:
    screen.command("a", LONG, fold=False)
    assert len(lines_of(screen)) == 2


@pytest.mark.parametrize(("count", "most"), [(5, 5), (6, 5), (20, 6), (20, 7)])
def test_of_a_long_answer_the_beginning_and_the_end_are_shown(screen: Screen, count: int, most: int) -> None:
    screen.command("a", "\n".join(f"line {n}" for n in range(count)), most=most)
    shown = lines_of(screen)[1:]
    assert (shown[0], shown[-1]) == ("  line 0", f"  line {count - 1}")
    kept = [line for line in shown if line.startswith("  line")]
    assert len(kept) == min(count, most)
    assert sum(f"... {count - most} more lines" in line for line in shown) == (count > most)


def test_what_does_not_hold_is_remembered(screen: Screen) -> None:
    screen.check(True, "good")
    screen.check(False, "bad")
    assert screen.failed == ["bad"]
