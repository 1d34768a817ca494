"""Typed reading of strict YAML: each look-up either gives a value of its type or notes a problem with its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from iam_bridge.errors import InvalidValue
from iam_bridge.strict_yaml import Node

T = TypeVar("T")
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)\Z")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass
class Problems:
    """Everything found wrong so far, with lines."""

    found: list[tuple[int, str]] = field(default_factory=list)

    def note(self, line: int, where: str, what: str) -> None:
        """Add one finding."""
        self.found.append((line, f"line {line}: {where}: {what}" if where else f"line {line}: {what}"))

    def in_order(self) -> tuple[str, ...]:
        """Give the findings by line."""
        return tuple(text for _, text in sorted(self.found, key=lambda item: item[0]))


def parse_duration(text: str) -> int:
    """Read `90s`, `15m`, `6h` or `2d` as seconds."""
    match = _DURATION.match(text)
    if not match:
        raise InvalidValue(f"{text!r} is no duration", hint="write it as 90s, 15m, 6h or 2d")
    return int(match[1]) * _UNIT_S[match[2]]


class Section:
    """A mapping of the file; keys that nobody asked for are a problem when the section is closed."""

    def __init__(self, pairs: dict[str, Node], line: int, where: str, problems: Problems) -> None:
        self._pairs = pairs
        self._asked: set[str] = set()
        self.line = line
        self.where = where
        self.problems = problems

    @classmethod
    def of(cls, node: Node, where: str, problems: Problems) -> Section:
        """Open a node as a mapping; anything else is a problem and reads as an empty one."""
        if isinstance(node.value, dict):
            return cls(node.value, node.line, where, problems)
        problems.note(node.line, where, "must be a mapping of keys to values")
        return cls({}, node.line, where, problems)

    def at(self, key: str) -> str:
        """Name a key of this section by its whole path."""
        return f"{self.where}.{key}" if self.where else key

    def line_of(self, key: str) -> int:
        """Give the line of a key's value, or of the section where the key is missing."""
        return self._pairs[key].line if key in self._pairs else self.line

    def note(self, key: str, what: str) -> None:
        """Add a finding about a key."""
        self.problems.note(self.line_of(key), self.at(key) if key else self.where, what)

    def has(self, key: str) -> bool:
        """Tell whether the key is there with a value."""
        return key in self._pairs and self._pairs[key].value is not None

    def node(self, key: str, *, required: bool = False) -> Node | None:
        """Take a key's node; None, and a problem where it was required, when it is missing or null."""
        self._asked.add(key)
        if not self.has(key):
            if required:
                self.note(key, "is missing")
            return None
        return self._pairs[key]

    def close(self) -> None:
        """Note every key that nobody asked for."""
        for key, node in self._pairs.items():
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                self.problems.note(node.line, self.at(key), f"is no key that we know here (known: {known})")

    def section(self, key: str, *, required: bool = False) -> Section:
        """Take a key as a mapping; a missing one reads as empty."""
        node = self.node(key, required=required)
        if node is None:
            return Section({}, self.line_of(key), self.at(key), self.problems)
        return Section.of(node, self.at(key), self.problems)

    def sections(self, key: str) -> list[Section]:
        """Take a key as a list of mappings that must not be empty."""
        node = self.node(key, required=True)
        if node is None:
            return []
        if not isinstance(node.value, list) or not node.value:
            self.note(key, "must be a list with at least one entry")
            return []
        return [Section.of(item, f"{self.at(key)}[{i}]", self.problems) for i, item in enumerate(node.value)]

    def text(self, key: str, default: str | None = None) -> str:
        """Take a key as text; required where there is no default."""
        node = self.node(key, required=default is None)
        if node is None:
            return default or ""
        if not isinstance(node.value, str) or not node.value:
            self.note(key, "must be text")
            return default or ""
        return node.value

    def number(self, key: str, default: int | None = None, *, least: int = 0, most: int = 2**31) -> int:
        """Take a key as a whole number within bounds."""
        node = self.node(key, required=default is None)
        if node is None:
            return default or 0
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            self.note(key, f"must be a whole number, is {node.value!r}")
        elif not least <= node.value <= most:
            self.note(key, f"must be {least} to {most}, is {node.value}")
        else:
            return node.value
        return default or 0

    def flag(self, key: str, default: bool) -> bool:
        """Take a key as true or false."""
        node = self.node(key)
        if node is None:
            return default
        if not isinstance(node.value, bool):
            self.note(key, f"must be true or false, is {node.value!r}")
            return default
        return node.value

    def choice(self, key: str, words: tuple[str, ...], default: str | None = None) -> str:
        """Take a key as one of a few words."""
        word = self.text(key, default)
        if word and word not in words:
            self.note(key, f"must be one of {', '.join(words)}, is {word!r}")
        return word

    def path(self, key: str, default: str | None = None) -> Path:
        """Take a key as an absolute path."""
        text = self.text(key, default)
        if text and not text.startswith("/"):
            self.note(key, f"must be an absolute path, is {text!r}")
        return Path(text)

    def duration(self, key: str, default: str) -> int:
        """Take a key as seconds, written 90s, 15m, 6h or 2d."""
        return self.parsed(key, parse_duration, default) or 0

    def parsed(self, key: str, parse: Callable[[str], T], default: str | None = None) -> T | None:
        """Take a key as text and parse it; a text that does not parse is a problem and gives None."""
        text = self.text(key, default)
        if not text:
            return None
        try:
            return parse(text)
        except InvalidValue as error:
            self.note(key, str(error))
            return None

    def words(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Take a key as a list of texts; where there is no default it is required and must not be empty."""
        node = self.node(key, required=default is None)
        if node is None:
            return default or ()
        items = node.value
        if not isinstance(items, list) or not all(isinstance(item.value, str) and item.value for item in items):
            self.note(key, "must be a list of texts")
            return ()
        texts = tuple(str(item.value) for item in items)
        if not texts and default is None:
            self.note(key, "is empty, and an empty list permits nobody")
        for text in sorted({text for text in texts if texts.count(text) > 1}):
            self.note(key, f"names {text!r} twice")
        return texts

    def numbers(self, key: str, *, required: bool) -> tuple[int, ...]:
        """Take a key as a list of whole numbers."""
        node = self.node(key, required=required)
        if node is None:
            return ()
        items = node.value
        if not isinstance(items, list):
            self.note(key, "must be a list of whole numbers")
            return ()
        values = [item.value for item in items]
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            self.note(key, "must be a list of whole numbers")
            return ()
        return tuple(value for value in values if isinstance(value, int))
