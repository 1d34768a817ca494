"""YAML without surprises: decimal numbers, `true` and `false`, null, text; every value knows its line.

YAML 1.1 reads `no` as false, `010` as 8 and `1:30` as 90, and lets a second key win in silence. A file that grants
access cannot afford that, so plain scalars are resolved here, and duplicate keys, tags, anchors and aliases refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from iam_bridge.errors import InvalidValue

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEPTH_MAX = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A value with the line (counted from 1) where it starts."""

    value: Scalar | list[Node] | dict[str, Node]
    line: int


Scalar = str | int | bool | None


def _at(line: int, what: str) -> InvalidValue:
    return InvalidValue(f"line {line}: {what}")


def _scalar(node: yaml.ScalarNode) -> Scalar:
    text = str(node.value)
    if node.style:  # quoted or block text is text, whatever it looks like
        return text
    if text in _LITERALS:
        return _LITERALS[text]
    return int(text) if _INT.match(text) else text


def _mapping(node: yaml.MappingNode) -> dict[str, Node]:
    pairs: dict[str, Node] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _at(line, "a key must be plain text")
        key = str(key_node.value)
        if key in pairs:
            raise _at(line, f"the key {key!r} stands here a second time (first in line {pairs[key].line})")
        pairs[key] = _node(value_node)
    return pairs


def _node(node: yaml.Node) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        return Node(_scalar(node), line)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item) for item in node.value], line)
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(node), line)
    raise _at(line, "neither text, nor a list, nor a mapping")


def _check_events(text: str) -> None:
    """Refuse, before anything is built: depth, anchors, aliases (two places made one) and tags (types named)."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise _at(line, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _at(line, "anchors and aliases (& and *) are not accepted")
        if getattr(event, "tag", None):
            raise _at(line, "tags (!) are not accepted")


def load(text: str) -> Node:
    """Read one YAML document; raise InvalidValue, with the line, for anything that could be misread."""
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise _at(line, f"no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _at(1, f"no YAML: {type(error).__name__}") from error
    if root is None:
        raise InvalidValue("line 1: the file is empty")
    return _node(root)
