"""The shipped settings file states the defaults, and schema and reference know the keys that the reader knows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.errors import SettingsError
from iam_bridge.model.rules import Settings
from iam_bridge.settings import parse_settings
from iam_bridge.settings_meanings import MEANINGS
from iam_bridge.settings_schema import each_key, make_schema, record_reader
from iam_bridge.strict_yaml import Node, load
from tests.unit.test_settings import BAD, GOOD

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "config" / "iam-bridge.yaml").read_text()
REFERENCE = (ROOT / "docs" / "reference" / "settings.md").read_text()
COMMENTED = re.compile(r"^( *)#(?=[a-z_]+:)", re.MULTILINE)
SCHEMA = make_schema()
KEYS = each_key(SCHEMA)

WHOLE = """\
version: 1
site: {name: x}
issuers:
  - issuer: https://iam.example.org/
    algorithms: [RS256]
    types: [JWT]
    validation: both
    client: {id: a, secret_file: /SECRET}
    keys: {refresh: 1h, usable: 1d}
    ca_file: /a
    timeout: 5s
    down: offline
members:
  - issuer: https://iam.example.org/
    kind: indigo-iam
    client: {id: a, secret_file: /SECRET}
    file: /a
    ca_file: /a
    timeout: 5s
    user: u
    trusted_attributes: [a]
    groups: [{iam: g, unix: g, grants_account: true, adopt: true}]
accounts:
  store: files
  layout: extrausers
  folder: /a
  subids: {folder: /a, count: 1}
  ids: {uid: [20000, 20001], gid: [20000, 20001]}
  names: {from: [preferred_username]}
  home: /h/{name}
  home_mode: "0750"
  make_homes: false
  skel: none
  shell: /bin/sh
limits: {locks: {most: 1, percent: 1}, creates: {most: 1, percent: 1}, shrink: {percent: 1}}
login:
  audience: [a]
  requires: [{issuer: https://iam.example.org/, group: g}]
  members: {warn: 1m, deny: 1h}
  socket: /a
  peers: [1]
  user: u
  receipts: /a
  key_cache: /a
paths: {ledger: /a, view: /a, bans: /a, journal: /a}
exchange: {audience: [b], shared: accepted}
gateway: {audience: [b], shared: accepted}
"""
"""Every key once, none at its default where there is a choice."""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    return path


def parse(text: str, secret: Path) -> Settings:
    text = text.replace("/etc/iam-bridge/sync.secret", str(secret)).replace("/SECRET", str(secret))
    return replace(parse_settings(text, Path("x")), path=Path("x"))


# ---- the shipped file --------------------------------------------------------------------------------------------


def test_every_commented_line_of_the_shipped_file_states_the_default(secret: Path) -> None:
    uncommented, count = COMMENTED.subn(r"\1", SHIPPED)
    assert count >= 40
    assert parse(SHIPPED, secret) == parse(uncommented, secret)


@pytest.mark.parametrize("line", [line for line in SHIPPED.splitlines() if COMMENTED.match(line)], ids=str.strip)
def test_a_commented_line_states_its_default_alone(line: str, secret: Path) -> None:
    alone = SHIPPED.replace(line, COMMENTED.sub(r"\1", line), 1)
    assert parse(alone, secret) == parse(SHIPPED, secret)


def test_the_shipped_file_names_every_key() -> None:
    def paths(node: Node, where: str = "") -> set[str]:
        if isinstance(node.value, dict):
            found = set()
            for key, inner in node.value.items():
                path = f"{where}.{key}" if where else key
                found |= {path} | paths(inner, path)
            return found
        if isinstance(node.value, list):
            return set().union(*(paths(item, f"{where}[]") for item in node.value)) if node.value else set()
        return set()

    named = paths(load(COMMENTED.sub(r"\1", SHIPPED)))
    in_prose = {"issuers[].client.id", "issuers[].client.secret_file"}
    doors = {f"{door}.{key}" for door in ("exchange", "gateway") for key in ("audience", "shared")}
    assert named | in_prose | doors == {path for path, _, _ in KEYS}


# ---- the schema --------------------------------------------------------------------------------------------------


def known_by_the_reader(text: str, secret: Path) -> dict[str, set[str]]:
    """Give the keys that the reader says it knows in each section, from its own complaints about one it does not."""
    bogus = "xbogus"
    lines = []
    for line in text.splitlines():
        lines.append(re.sub(r"\{(?=[a-z_]+:)", f"{{{bogus}: 1, ", line))
        if re.match(r" +- [a-z_]+:", line):
            lines.append(" " * (line.index("-") + 2) + f"{bogus}: 1")
        elif re.match(r"[a-z]+:$", line) and line not in ("issuers:", "members:"):
            lines.append(f"  {bogus}: 1")
    with pytest.raises(SettingsError) as refused:
        parse("\n".join([*lines, f"{bogus}: 1", ""]), secret)
    known = {}
    for problem in refused.value.problems:
        match = re.match(rf"line \d+: (.*?)\.?{bogus}: is no key that we know here \(known: (.*)\)$", problem)
        assert match, problem
        known[re.sub(r"\[\d+\]", "[]", match[1])] = set(match[2].split(", "))
    return known


def test_the_schema_knows_exactly_the_keys_that_the_reader_accepts(secret: Path) -> None:
    by_section: dict[str, set[str]] = {}
    for path, _, _ in KEYS:
        section, _, key = path.rpartition(".")
        by_section.setdefault(section, set()).add(key)
    assert by_section == known_by_the_reader(WHOLE, secret)


def test_the_whole_file_names_every_key_and_is_accepted(secret: Path) -> None:
    assert parse(WHOLE, secret).site == "x"
    assert not misfits(SCHEMA, plain(load(WHOLE)))


def test_the_schema_requires_what_the_reader_requires(secret: Path) -> None:
    required = {path for path, _, needed in KEYS if needed}
    assert {
        "version",
        "site.name",
        "issuers[].algorithms",
        "login.audience",
        "login.requires",
        "accounts.ids.uid",
    } <= required
    assert not {"issuers[].client", "members[].file", "exchange", "accounts.subids", "login.peers"} & required


def test_the_schema_states_the_defaults_of_the_reader(secret: Path) -> None:
    stated = {path: one["default"] for path, one, _ in KEYS if "default" in one}
    assert stated["login.socket"] == str(parse(SHIPPED, secret).login.socket)
    assert stated["login.peers"] == [0]
    assert stated["issuers[].keys.usable"] == "2d"
    assert stated["accounts.home_mode"] == "0700"


def test_meanings_are_given_for_every_key_and_no_other() -> None:
    assert MEANINGS.keys() == {path for path, _, _ in KEYS}
    assert all(text.endswith((".", ")")) for text in MEANINGS.values())


def test_recording_leaves_no_section_out() -> None:
    root = record_reader()
    assert root.asked["login"].inner is not None
    assert root.asked["login"].required


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def misfits(schema: dict[str, Any], value: Any, where: str = "") -> list[str]:
    """Check a value against the words of JSON Schema that ours uses; name where it does not fit."""
    if "anyOf" in schema:
        tried = [misfits(one, value, where) for one in schema["anyOf"]]
        return [] if [] in tried else tried[-1]
    if "const" in schema and value != schema["const"]:
        return [where]
    types = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if types and not any(type(value) is TYPES[name] for name in types):
        return [where]
    if "enum" in schema and value not in schema["enum"]:
        return [where]
    if isinstance(value, str):
        too_short = len(value) < schema.get("minLength", 0)
        return [where] if too_short or not re.search(schema.get("pattern", ""), value) else []
    if isinstance(value, int) and not isinstance(value, bool):
        return [where] if not schema.get("minimum", value) <= value <= schema.get("maximum", value) else []
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return [where]
        return [found for item in value for found in misfits(schema["items"], item, f"{where}[]")]
    if isinstance(value, dict):
        found = [f"{where}.{key}" for key in schema.get("required", ()) if key not in value]
        for key, item in value.items():
            inner = schema["properties"].get(key)
            found += [f"{where}.{key}"] if inner is None else misfits(inner, item, f"{where}.{key}")
        return found
    return []


def test_the_schema_takes_the_good_files() -> None:
    for text in (GOOD, SHIPPED, COMMENTED.sub(r"\1", SHIPPED)):
        assert misfits(SCHEMA, plain(load(text))) == []


BY_SCHEMA = (
    "no version", "a version of the future", "an unknown key", "an unknown section", "a wrong type", "an empty audience",
    "no audience", "no requirement", "an issuer by http", "a symmetric algorithm", "no algorithm", "a duration without unit",
    "a duration of nonsense", "an unknown kind", "a relative path", "a unix group with a colon", "a flag that is text",
    "a range of three", "a range of text", "a limit below zero", "a limit that is text", "a limit above all", "a section that is text",
)  # fmt: skip


@pytest.mark.parametrize("row", [row for row in BAD if row[0] in BY_SCHEMA], ids=lambda row: row[0])
def test_the_schema_refuses_what_has_the_wrong_shape(row: tuple[str, tuple[str, str], int, str]) -> None:
    assert misfits(SCHEMA, plain(load(GOOD.replace(*row[1], 1))))


# ---- the reference -----------------------------------------------------------------------------------------------


def reference_rows() -> list[str]:
    """Write the table of the reference from the schema."""
    return [
        f"| `{path}` | {MEANINGS[path]} | {_form(path, one)} | {_default(one, needed)} |" for path, one, needed in KEYS
    ]


def _form(path: str, one: dict[str, Any]) -> str:
    whole = one["anyOf"][1] if "anyOf" in one else one
    name = whole["type"] if isinstance(whole["type"], str) else whole["type"][0]
    if "enum" in whole:
        return " \\| ".join(str(word) for word in whole["enum"] if word is not None)
    pattern = whole.get("pattern", "")
    if name == "string":
        forms = {"^/": "path", "^https://": "https URL", "^[0-9]{1,9}[smhd]$": "duration"}
        return forms.get(pattern, "path or none" if "none" in pattern else "text")
    if name == "integer":
        return "percent" if whole["maximum"] == 100 else "number"
    if name == "array":
        return {"object": "list of sections", "integer": "list of numbers"}.get(whole["items"].get("type", ""), "list")
    return {"object": "section", "boolean": "true \\| false"}[name]


def _default(one: dict[str, Any], needed: bool) -> str:
    if needed:
        return "required"
    if "default" not in one:
        return ""
    value = one["default"]
    text = "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else value
    return f"`{str(text).lower() if isinstance(value, bool) else text}`"


def test_the_reference_says_what_the_schema_says() -> None:
    rows = [line for line in REFERENCE.splitlines() if line.startswith("| `")]
    assert rows == reference_rows()
