"""What reaches a terminal: nothing that steers it, and nothing read as markup."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from iam_bridge.cli.render import clean, moment, plain, print_fields, print_json, print_table, say, say_error, span
from tests.unit.build import account

HOSTILE = "x\x1b[31m\x07\r\n\u202e\u2028[bold]:smile:"
ROOT = Path(__file__).parents[2]


def test_what_cannot_be_printed_is_a_question_mark() -> None:
    assert clean(HOSTILE) == "x?[31m?????[bold]:smile:"
    assert clean("Zoë") == "Zoë"


def test_every_way_out_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say_error(HOSTILE, HOSTILE)
    print_table(("A", "B"), [(HOSTILE, 1), ("y", 2)])
    print_fields([("name", HOSTILE)])
    print_json({"key": HOSTILE})
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert not set(text) & set("\x1b\x07\r\u202e\u2028")
        assert "[bold]:smile:" in text


def test_an_error_may_have_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("two problems:\n  line 1: x\n  line 2: y", "correct them")
    assert capsys.readouterr().err == "iam-bridge: two problems:\n  line 1: x\n  line 2: y\n  -> correct them\n"


def test_json_is_ascii_and_knows_our_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {
            "account": account(),
            "at": datetime(2026, 5, 3, tzinfo=UTC),
            "set": frozenset({"b", "a"}),
            "path": Path("/x"),
            "z": "Zoë",
        }
    )
    out = capsys.readouterr().out
    assert out.isascii()
    told = json.loads(out)
    assert told["account"]["subject"] == "s-ada@https://iam.example.org/"
    assert told["account"]["name"] == "ada"
    assert (told["at"], told["set"], told["path"], told["z"]) == ("2026-05-03T00:00:00Z", ["a", "b"], "/x", "Zoë")
    assert plain(None) is None


def test_times_and_spans_are_short() -> None:
    assert moment(None) == "never"
    assert moment(datetime(2026, 5, 3, 12, tzinfo=UTC)) == "2026-05-03 12:00:00Z"
    assert [span(s) for s in (0, 59, 61, 3600, 90061, 86400 * 400)] == ["0s", "59s", "1m 1s", "1h", "1d 1h", "400d"]


def test_columns_align_and_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "UID"), [("ada", 20000), ("u20001", 1)])
    assert capsys.readouterr().out == "NAME    UID\nada     20000\nu20001  1\n"
    print_table(("NAME",), [], empty="nobody")
    assert capsys.readouterr().out == "nobody\n"


def in_terminal(code: str, **environment: str) -> str:
    """Run a piece of Python whose output is a terminal."""
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "COLUMNS": "60", **environment}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stdin=theirs, env=env, cwd=ROOT) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


TABLE = "from iam_bridge.cli.render import *; print_table(('NAME', 'WHY'), [('ada', '[bold]\\x1b[2J:smile: ' + 'long ' * 30)]); say('ok', 'good')"


def test_a_terminal_gets_colours_and_folded_cells_and_still_no_markup() -> None:
    told = in_terminal(TABLE)
    assert "\x1b[32mok\x1b[0m" in told
    assert "[bold]?[2J:smile:" in told
    assert "\x1b[2J" not in told
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", told).splitlines()) <= 60


def test_no_color_is_respected() -> None:
    assert "\x1b[3" not in in_terminal(TABLE, NO_COLOR="1")
    assert "\x1b[3" not in in_terminal(TABLE, TERM="dumb")


OUTPUTS = [
    ("a reader that is gone", "| true", {0, 141}, ""),
    ("a full disk", "> /dev/full", {1}, "cannot be written: No space left on device"),
    ("no output at all", ">&-", {0}, ""),
    ("no streams at all", ">&- 2>&- <&-", {0}, ""),
    ("an encoding that knows no umlaut", "| cat", {0}, ""),
]


@pytest.mark.parametrize(("redirect", "statuses", "told"), [o[1:] for o in OUTPUTS], ids=[o[0] for o in OUTPUTS])
def test_output_that_cannot_be_taken_is_no_stack_trace(redirect: str, statuses: set[int], told: str) -> None:
    program = Path(sys.executable).with_name("iam-bridge")
    done = subprocess.run(
        ["bash", "-c", f"{program} --help {redirect}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, check=False,
    )  # fmt: skip
    assert done.returncode in statuses
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_stream_of_ascii_gets_escapes() -> None:
    code = "from iam_bridge.cli.render import *; prepare_streams(); say('Zo\\u00eb')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout == "Zo\\xeb\n"
