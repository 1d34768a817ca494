"""Group paths: the quick way for usual ones decides as the rule does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_bridge.errors import InvalidValue
from iam_bridge.model.identity import parse_group_path


def by_the_rule(text: str) -> str | None:
    path = text.removeprefix("/")
    fits = 0 < len(path) <= 512 and path.isprintable() and all(part.strip() for part in path.split("/"))
    return path if fits else None


@given(st.text(alphabet="aZ9_.-/ \u00fc\n\u00a0\u202e", max_size=12))
def test_quick_and_slow_ways_agree(text: str) -> None:
    try:
        parsed = parse_group_path(text)
    except InvalidValue:
        parsed = None
    assert parsed == by_the_rule(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [("/hpc/users", "hpc/users"), ("Analysis", "Analysis"), ("/Teilchen physik/Zürich", "Teilchen physik/Zürich"),
     ("x" * 512, "x" * 512), ("/" + "x" * 512, "x" * 512)],
    ids=["slash", "plain", "blank and umlaut", "longest", "longest with a slash"],
)  # fmt: skip
def test_a_path_loses_one_leading_slash(text: str, path: str) -> None:
    assert parse_group_path(text) == path


@pytest.mark.parametrize(
    "text", ["", "/", "//a", "a/", "a//b", "a/ /b", "a\nb", "a\n", "x" * 513, 7, None, ["a"]], ids=repr
)
def test_what_is_no_path_is_refused(text: object) -> None:
    with pytest.raises(InvalidValue):
        parse_group_path(text)
