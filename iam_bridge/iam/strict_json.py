"""JSON from outside, read strictly: one object, each name once, finite numbers, bounded depth.

Python's reader takes the last of two equal names, NaN, 1e999, UTF-16 and half characters. Two programs that read such
a text can see two different texts, and a signature then proves nothing (RFC 8725 2.4 and 2.6, RFC 8259 4).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from iam_bridge.errors import InvalidValue

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json_object(raw: bytes, *, max_depth: int = 32) -> dict[str, Any]:
    """Read a JSON object from UTF-8 bytes.

    Raises InvalidValue whose message tells what is wrong and never quotes the text.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except InvalidValue:
        raise
    except RecursionError:
        raise InvalidValue("the JSON text is nested too deep") from None
    except ValueError:  # JSONDecodeError and UnicodeDecodeError quote the text, so the cause is dropped
        raise InvalidValue("the text is no JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise InvalidValue("the JSON text is no object")
    # So few brackets cannot nest deeper than is allowed, whatever they enclose; counting them is quicker than walking.
    if raw.count(b"{") + raw.count(b"[") > max_depth and _deeper_than(value, max_depth):
        raise InvalidValue(f"the JSON text is nested deeper than {max_depth} levels")
    if _HALF_CHARACTER.search(raw):
        _check_whole_characters(value)
    return value


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidValue("the JSON text holds a name twice")
    return found


def _refuse_constant(_word: str) -> float:
    raise InvalidValue("the JSON text holds NaN or Infinity")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidValue("the JSON text holds a number without bounds")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_each_name_once, parse_constant=_refuse_constant, parse_float=_finite)


def _deeper_than(value: dict[str, Any], levels: int) -> bool:
    level: list[Any] = [value]
    for _ in range(levels):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _check_whole_characters(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidValue("the JSON text holds half of a surrogate pair") from None
