"""Which name and which numbers a new account gets. A misfit is never bent: the next source is asked, then `u<uid>`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from iam_bridge.errors import InvalidValue
from iam_bridge.model.account import IdRange, UserName
from iam_bridge.model.identity import Member

RESERVED_PREFIXES = ("systemd-",)
_FALLBACK_FORM = re.compile(r"u[0-9]+\Z")
_ATTRIBUTE = "attribute:"


@dataclass(frozen=True, slots=True)
class NameChoice:
    """A name and the source that gave it; `passed_over` says why earlier sources did not."""

    name: UserName
    source: str
    passed_over: tuple[str, ...]


def _text_of(source: str, member: Member, trusted: Collection[str]) -> str | None:
    """Give the text that a source has for a member; an attribute counts only where it is trusted."""
    if source.startswith(_ATTRIBUTE):
        attribute = source.removeprefix(_ATTRIBUTE)
        return member.attributes.get(attribute) if attribute in trusted else None
    return member.username


def judge_name(text: str, busy: Mapping[str, str]) -> str:
    """Say why a text cannot be a new account's name; an empty text where it can.

    `busy` maps names in use to the sentence that says by whom.
    """
    try:
        UserName.parse(text)
    except InvalidValue as error:
        return error.message
    if text.startswith(RESERVED_PREFIXES):
        return f"{text!r} starts like a system account"
    if _FALLBACK_FORM.match(text):
        return f"{text!r} has the form kept for names made from a uid"
    return busy.get(text, "")


def decide_name(
    member: Member, uid: int, sources: Collection[str], trusted: Collection[str], busy: Mapping[str, str]
) -> NameChoice | str:
    """Choose the name of a new account with this uid, or say why there is none."""
    passed_over: list[str] = []
    for source in sources:
        text = _text_of(source, member, trusted)
        if text is None:
            continue
        why = judge_name(text, busy)
        if not why:
            return NameChoice(UserName.parse(text), source, tuple(passed_over))
        passed_over.append(why)
    fallback = f"u{uid}"
    if fallback in busy:
        return f"{busy[fallback]}; and {'; '.join(passed_over)}"
    return NameChoice(UserName.parse(fallback), "uid", tuple(passed_over))


class Numbers:
    """Hands out numbers of one space, shared by users and groups, upwards only and each once.

    `given` are all numbers ever given, `busy` those in use by others; a number below the highest given one is not
    handed out even where it is free, so that nobody inherits what a removed account left behind.
    """

    def __init__(self, given: Collection[int], busy: Collection[int]) -> None:
        self._taken = set(given) | set(busy)
        self._given = frozenset(given)
        self._next: dict[IdRange, int] = {}

    def _first_of(self, ids: IdRange) -> int:
        if ids not in self._next:
            self._next[ids] = max((number for number in self._given if number in ids), default=ids.low - 1) + 1
        return self._next[ids]

    def peek(self, ids: IdRange) -> int | None:
        """Give the next free number of a range without taking it; None where the range is exhausted."""
        number = self._first_of(ids)
        while number in self._taken:
            number += 1
        return number if number in ids else None

    def take(self, ids: IdRange) -> int | None:
        """Take the next free number of a range; None where the range is exhausted."""
        number = self.peek(ids)
        if number is not None:
            self._taken.add(number)
            self._next[ids] = number + 1
        return number

    def take_pair(self, uids: IdRange, gids: IdRange) -> tuple[int, int] | None:
        """Take a uid and the gid of its private group: the same number where both ranges hold it."""
        uid = self.take(uids)
        if uid is None:
            return None
        if uid in gids:
            return uid, uid
        gid = self.take(gids)
        return None if gid is None else (uid, gid)
