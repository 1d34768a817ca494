"""`config check`, `show` and `schema`: every problem in one run, everything in effect, and never a secret."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from iam_bridge.cli.effective import duration
from iam_bridge.settings import parse_settings, read_settings
from tests.functional.command_line import ROOT, call, spawn
from tests.unit.test_config_file import WHOLE
from tests.unit.test_settings import BAD, GOOD

Capsys = pytest.CaptureFixture[str]
SECRET = "hunter2-canary"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text(SECRET)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "iam-bridge.yaml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_a_good_file_is_told_in_short(tmp_path: Path, capsys: Capsys) -> None:
    path = write(tmp_path, GOOD)
    ran = call(capsys, "config", "check", path)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert lines[0] == f"ok: {path}"
    assert "tokens of          https://iam.example.org/ (RS256, ES256; offline)" in lines
    assert "group              hpc/gpu gives the unix group gpu" in lines
    assert "may log in         hpc/users at https://iam.example.org/" in lines
    assert call(capsys, "config", "check", "--config", path).out == ran.out


@pytest.mark.parametrize(("sentence", "change", "line", "said"), BAD, ids=[row[0] for row in BAD])
def test_a_problem_is_shown_with_its_line(
    tmp_path: Path, capsys: Capsys, sentence: str, change: tuple[str, str], line: int, said: str
) -> None:
    ran = call(capsys, "config", "check", write(tmp_path, GOOD.replace(*change, 1)))
    assert (ran.status, ran.out) == (2, "")
    assert [shown for shown in ran.err.splitlines() if shown.startswith(f"  line {line}: ") and said in shown], ran.err


def test_all_problems_come_in_one_run(tmp_path: Path, capsys: Capsys) -> None:
    text = (
        GOOD.replace("RS256, ES256", "none").replace("[https://login.hpc.example.org]", "[]").replace("20000", "20", 1)
    )
    ran = call(capsys, "config", "check", write(tmp_path, text))
    assert ran.err.startswith(f"iam-bridge: {tmp_path}/iam-bridge.yaml: 3 problems in the settings\n")
    assert len(ran.err.splitlines()) == 4
    said = call(capsys, "config", "check", write(tmp_path, text), "--json")
    assert (said.status, len(said.json()["problems"]), said.json()["ok"]) == (2, 3, False)


def test_as_json_a_good_file_has_no_problems(tmp_path: Path, capsys: Capsys) -> None:
    assert call(capsys, "config", "check", write(tmp_path, GOOD), "--json").json()["problems"] == []


def test_hostile_text_in_a_file_cannot_steer_the_terminal(tmp_path: Path, capsys: Capsys) -> None:
    text = GOOD.replace("version: 1", 'version: 1\n"\\e[31mkey\\n": 1\n"\u202e": 2')
    ran = call(capsys, "config", "check", write(tmp_path, text))
    assert ran.status == 2
    assert all(char.isprintable() or char == "\n" for char in ran.err)


FILES = [
    ("a file that is missing", None, 0, "No such file"),
    ("a file that others may write", GOOD, 0o666, "writable by others"),
    ("an empty file", "", 0o644, "the file is empty"),
    ("a file that is no YAML", "a: [", 0o644, "no YAML"),
    ("a file that is no mapping", "[1]", 0o644, "must be a mapping"),
]


@pytest.mark.parametrize(("sentence", "text", "mode", "said"), FILES, ids=[row[0] for row in FILES])
def test_a_file_that_cannot_be_believed(
    tmp_path: Path, capsys: Capsys, sentence: str, text: str | None, mode: int, said: str
) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    ran = call(capsys, "config", "check", path)
    assert (ran.status, said in ran.err) == (2, True), ran.err
    assert said in call(capsys, "config", "check", path, "--json").out


def test_a_pipe_in_place_of_the_file_does_not_hang(tmp_path: Path, capsys: Capsys) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert call(capsys, "config", "check", tmp_path / "pipe").status == 2


@pytest.mark.parametrize("text", [GOOD, WHOLE], ids=["defaults", "nothing at its default"])
def test_what_is_shown_is_a_settings_file_that_says_the_same(
    tmp_path: Path, secret: Path, capsys: Capsys, text: str
) -> None:
    path = write(tmp_path, text.replace("/SECRET", str(secret)))
    ran = call(capsys, "config", "show", "--config", path)
    assert ran.status == 0
    assert replace(parse_settings(ran.out, path), path=path) == read_settings(path)
    as_json = call(capsys, "config", "show", "--config", path, "--json").json()
    assert replace(parse_settings(json.dumps(as_json), path), path=path) == read_settings(path)


def test_no_secret_is_ever_shown(tmp_path: Path, secret: Path, capsys: Capsys) -> None:
    path = write(tmp_path, WHOLE.replace("/SECRET", str(secret)))
    for words in (("check",), ("show",), ("show", "--json")):
        ran = call(capsys, "config", *words, "--config", path)
        assert ran.status == 0
        assert SECRET not in ran.all


def test_the_schema_is_json_and_needs_no_settings() -> None:
    schema = spawn("config", "schema").json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["login"]["properties"]["audience"]["minItems"] == 1


def test_the_shipped_file_misses_its_secret_alone(tmp_path: Path, capsys: Capsys) -> None:
    path = write(tmp_path, (ROOT / "config" / "iam-bridge.yaml").read_text().replace("/etc/iam-bridge", str(tmp_path)))
    ran = call(capsys, "config", "check", path, "--json")
    assert [problem.split(": ", 2)[2] for problem in ran.json()["problems"]] == [
        f"the secret file {tmp_path}/sync.secret does not exist"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1, "1s"), (60, "1m"), (90, "90s"), (3600, "1h"), (86400, "1d"), (5.0, "5s")]
)
def test_durations_are_written_as_they_are_read(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_command_of_the_family_has_an_example(capsys: Capsys) -> None:
    for words in (("config", "check"), ("config", "show"), ("config", "schema"), ("doctor",), ("keys", "show"),
                  ("keys", "refresh"), ("token", "show")):  # fmt: skip
        assert f"iam-bridge {' '.join(words)}" in call(capsys, *words, "--help").out.partition("Example:")[2]


HOW_TO = (ROOT / "docs" / "how-to" / "install-on-a-login-node.md").read_text()


def test_the_way_to_install_names_commands_and_files_that_exist(capsys: Capsys) -> None:
    commands = re.findall(r"^iam-bridge (?!logind)([a-z]+(?: [a-z]+)?)", HOW_TO, re.MULTILINE)
    assert {"config check", "doctor", "keys refresh", "login check", "login try", "provision plan"} <= set(commands)
    for words in commands:
        ran = call(capsys, *words.split(), "--help")
        assert ran.status == 0, words
    for file in re.findall(r"\b(?:config|packaging)/[\w./-]+\b", HOW_TO):
        assert (ROOT / file).exists(), file
