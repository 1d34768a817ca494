"""A JSON Schema (2020-12) of the settings file, made by letting the reader itself read and noting what it asks for.

So the schema cannot know another key than the reader. What a schema cannot say (ranges that overlap, an issuer that is
named twice, the mode of a secret's file) stays with `config check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from iam_bridge.errors import InvalidValue
from iam_bridge.model.account import NAME_PATTERN, GroupName
from iam_bridge.model.identity import Issuer, parse_group_path
from iam_bridge.settings_meanings import MEANINGS
from iam_bridge.settings_read import Problems, Section, parse_duration
from iam_bridge.settings_sections import ALGORITHMS, read_settings_sections
from iam_bridge.strict_yaml import Node

T = TypeVar("T")
Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXTS: tuple[tuple[Any, Schema, str], ...] = (
    # how a text is parsed, what the schema says of it, a text that parses
    (Issuer.parse, {"pattern": "^https://", "maxLength": 255}, "https://iam.example.org/"),
    (parse_group_path, {"minLength": 1, "maxLength": 512}, "hpc/users"),
    (GroupName.parse, {"pattern": f"^{NAME_PATTERN.pattern.removesuffix(chr(92) + 'Z')}$"}, "hpcusers"),
    (parse_duration, {"pattern": "^[0-9]{1,9}[smhd]$"}, "1h"),
)
# What the reader does beside its typed look-ups, by path.
_BESIDE: dict[str, Schema] = {
    "version": {"const": 1},
    "issuers[].algorithms": {"items": {"enum": list(ALGORITHMS)}},
    "accounts.ids.uid": {"minItems": 2, "maxItems": 2},
    "accounts.ids.gid": {"minItems": 2, "maxItems": 2},
    "login.peers": {"default": [0]},
    "accounts.skel": {"pattern": "^(/.*|none)$"},
}
_NONE_WORD = ("accounts.subids",)
"""Sections in whose place the word `none` may stand."""


@dataclass
class Asked:
    """What the reader wants under one key: a schema without its meaning, or a section of its own."""

    schema: Schema
    required: bool
    default: Any = None
    inner: RecordingSection | None = None


class RecordingSection(Section):
    """Gives the reader something plausible for every look-up, and notes what was looked up."""

    def __init__(self, where: str = "") -> None:
        super().__init__({}, 1, where, Problems())
        self.asked: dict[str, Asked] = {}
        self._optional: set[str] = set()

    def _note(self, key: str, schema: Schema, *, required: bool, default: Any = None) -> None:
        self.asked[key] = Asked(schema, required and key not in self._optional, default)

    def _open(self, key: str, schema: Schema, *, required: bool) -> RecordingSection:
        inner = RecordingSection(self.at(key) + ("[]" if schema["type"] == "array" else ""))
        self.asked[key] = Asked(schema, required and key not in self._optional, None, inner)
        return inner

    def has(self, key: str) -> bool:
        """Say yes. Who asks first can do without: such a key is optional, however it is read afterwards."""
        if key not in self.asked:
            self._optional.add(key)
        return True

    def line_of(self, key: str) -> int:
        return 1

    def note(self, key: str, what: str) -> None:
        """Drop what is found wrong with values that were made up."""

    def close(self) -> None:
        """Take no offence: there are no keys but those that were asked for."""

    def node(self, key: str, *, required: bool = False) -> Node | None:
        return Node(None, 1)

    def section(self, key: str, *, required: bool = False) -> Section:
        return self._open(key, {"type": "object"}, required=required)

    def sections(self, key: str) -> list[Section]:
        return [self._open(key, {"type": "array", "minItems": 1}, required=True)]

    def text(self, key: str, default: str | None = None) -> str:
        self._note(key, {"type": "string", "minLength": 1}, required=default is None, default=default)
        return default or "text"

    def number(self, key: str, default: int | None = None, *, least: int = 0, most: int = 2**31) -> int:
        bounds = {"type": "integer", "minimum": least, "maximum": most}
        self._note(key, bounds, required=default is None, default=default)
        return default or least

    def flag(self, key: str, default: bool) -> bool:
        self._note(key, {"type": "boolean"}, required=False, default=default)
        return default

    def choice(self, key: str, words: tuple[str, ...], default: str | None = None) -> str:
        self._note(key, {"type": "string", "enum": list(words)}, required=default is None, default=default)
        return default or words[0]

    def path(self, key: str, default: str | None = None) -> Path:
        self._note(key, {"type": "string", "pattern": "^/"}, required=default is None, default=default)
        return Path(default or "/path")

    def parsed(self, key: str, parse: Callable[[str], T], default: str | None = None) -> T | None:
        schema, sample = next((schema, sample) for known, schema, sample in _TEXTS if known == parse)
        self._note(key, {"type": "string"} | schema, required=default is None, default=default)
        try:
            return parse(default or sample)
        except InvalidValue:  # pragma: no cover - a sample that does not parse is a mistake in the table above
            return None

    def words(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        schema: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True}
        if default is None:
            schema["minItems"] = 1
        self._note(key, schema, required=default is None, default=None if default is None else list(default))
        return default or ("text",)

    def numbers(self, key: str, *, required: bool) -> tuple[int, ...]:
        self._note(key, {"type": "array", "items": {"type": "integer"}}, required=required)
        return (20000, 59999)


def record_reader() -> RecordingSection:
    """Let the reader read, and give all that it asked for."""
    root = RecordingSection()
    read_settings_sections(root, Path("/recorded"), look=lambda _path: "")
    return root


def make_schema() -> Schema:
    """Make the schema of the whole file."""
    head = {"$schema": DIALECT, "title": "IAM bridge settings"}
    return head | _object(record_reader())


def _object(section: RecordingSection) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [key for key, asked in section.asked.items() if asked.required],
        "properties": {key: _property(section.at(key), asked) for key, asked in section.asked.items()},
    }


def _property(path: str, asked: Asked) -> Schema:
    made = dict(asked.schema)
    if asked.inner is not None:
        if made["type"] == "array":
            made["items"] = _object(asked.inner)
        else:
            made |= _object(asked.inner)
    made |= _BESIDE.get(path, {})
    if asked.default is not None:
        made["default"] = asked.default
    if not asked.required:  # null is the same as leaving the key out
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    if path in _NONE_WORD:
        made = {"anyOf": [{"const": "none"}, made]}
    return {"description": MEANINGS[path]} | made


def each_key(schema: Schema, where: str = "") -> list[tuple[str, Schema, bool]]:
    """List every key as (path, its schema, whether it is required), sections before what is in them."""
    found = []
    for key, one in schema["properties"].items():
        path = f"{where}.{key}" if where else key
        found.append((path, one, key in schema["required"]))
        whole = one["anyOf"][1] if "anyOf" in one else one
        inner = whole.get("items", whole)
        if "properties" in inner:
            found += each_key(inner, path + ("[]" if "items" in whole else ""))
    return found
