"""The command itself: families by name, errors as sentences with their status, and a quick start."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from iam_bridge.cli import main
from iam_bridge.cli.app import FAMILIES
from iam_bridge.cli.options import new_family
from iam_bridge.errors import (
    BridgeError,
    InvalidValue,
    LedgerError,
    RefusedByGuard,
    RunLocked,
    SettingsError,
    SourceUnavailable,
)

PROGRAM = str(Path(sys.executable).with_name("iam-bridge"))


def commands_of(family: str) -> list[list[str]]:
    """Give every command of a family as arguments."""
    command = typer.main.get_command(importlib.import_module(FAMILIES[family][0]).app)
    below = getattr(command, "commands", {})
    return [[family, name] for name in below] or [[family]]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_command_has_help_with_an_example(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands_of(family):
        assert main([*arguments, "--help"]) == 0
        told = capsys.readouterr().out
        assert f"iam-bridge {' '.join(arguments)}" in told
        assert "Example" in told, arguments
        assert all(len(line) <= 120 for line in told.splitlines())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_says_in_the_list_what_it_is_for(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert FAMILIES[family][1] in " ".join(capsys.readouterr().out.split())


def test_listing_the_families_imports_none() -> None:
    code = "import sys; from iam_bridge.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {module for module, _ in FAMILIES.values()}
    assert not loaded & {"rich", "sqlite3", "requests", "joserfc", "cryptography"}


@pytest.mark.parametrize("arguments", [["--version"], ["map", "--help"], ["ban", "list", "--help"]], ids=" ".join)
def test_a_command_loads_no_more_than_it_needs_to_explain_itself(arguments: list[str]) -> None:
    code = f"import sys; from iam_bridge.cli import main; main({arguments!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"requests", "urllib3", "joserfc", "authlib", "uvicorn", "starlette", "pam"}


ERRORS: list[tuple[BaseException, int]] = [
    (BridgeError("what", hint="next"), 1),
    (LedgerError("what", hint="next"), 1),
    (InvalidValue("what", hint="next"), 2),
    (SettingsError("what", hint="next"), 2),
    (RefusedByGuard("what", hint="next"), 3),
    (SourceUnavailable("what", hint="next"), 75),
    (RunLocked("what", hint="next"), 75),
]


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Give a list whose only entry the command `boom now` raises."""
    errors: list[BaseException] = []
    family = new_family("Raise.")

    @family.command("now")
    def now() -> None:
        raise errors[0]

    module = type(sys)("boom")
    module.app = family  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "boom", module)
    monkeypatch.setitem(FAMILIES, "boom", ("boom", "Raise."))
    return errors


@pytest.mark.parametrize(("error", "status"), ERRORS, ids=[type(e).__name__ for e, _ in ERRORS])
def test_an_error_of_ours_is_a_sentence_a_hint_and_its_status(
    raising: list[BaseException], error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    raising.append(error)
    assert main(["boom", "now"]) == status
    assert capsys.readouterr() == ("", "iam-bridge: what\n  -> next\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), OSError(5, "secret"), AssertionError("secret")])
def test_any_other_error_is_one_sentence_too(
    raising: list[BaseException],
    error: BaseException,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raising.append(error)
    assert main(["boom", "now"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"iam-bridge: internal error ({type(error).__name__})\n  -> ")
    assert "IAM_BRIDGE_TRACE=1" in told.err
    assert "Traceback" not in told.err
    monkeypatch.setenv("IAM_BRIDGE_TRACE", "1")
    assert main(["boom", "now"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet(raising: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    raising.append(KeyboardInterrupt())
    assert main(["boom", "now"]) == 130
    assert capsys.readouterr() == ("", "\n")


USAGE = [
    ("no such command", ["nope"], "No such command"),
    ("no such command of a family", ["map", "nope"], "No such command"),
    ("no such option", ["map", "list", "--nope"], "No such option"),
    ("an argument too many", ["map", "list", "x"], "unexpected extra argument"),
    ("an argument too few", ["map", "show"], "Missing argument"),
    ("a number that is none", ["provision", "plan", "--initial", "x"], "integer"),
    ("a family without a command", ["map"], "Missing command"),
    ("control characters", ["\x1b[2J"], "No such command"),
]


@pytest.mark.parametrize(("arguments", "told"), [u[1:] for u in USAGE], ids=[u[0] for u in USAGE])
def test_wrong_usage_is_2_and_names_the_help(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert "--help" in err
    assert "\x1b" not in err
    assert len(err.splitlines()) == 2


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_an_interrupt_of_a_real_process_is_130() -> None:
    code = """if True:
        import os, signal, sys
        import iam_bridge.cli.run_command as command
        command.build = lambda: os.kill(os.getpid(), signal.SIGINT)
        sys.exit(__import__("iam_bridge.cli").cli.main(["map", "list"]))"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (130, False)


DOCS = sorted(path for path in (Path(__file__).parents[2] / "docs").rglob("*.md"))
SAID = re.compile(r"^(?:[#$] )?iam-bridge (.*)$", re.MULTILINE)


def commands_said(path: Path) -> list[list[str]]:
    """Give the commands in the code blocks of a page."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in SAID.findall(block)]
    return [shlex.split(line.replace("...", "x"), comments=True) for line in lines]


@pytest.mark.parametrize("path", DOCS, ids=[path.stem for path in DOCS])
def test_every_command_that_the_docs_show_is_one(path: Path) -> None:
    for said_words in commands_said(path):
        words = said_words[2:] if said_words[0] == "--config" else said_words
        if words[0].startswith("-"):
            continue
        command: Any = typer.main.get_command(importlib.import_module(FAMILIES[words[0]][0]).app)
        rest = words[1:]
        if hasattr(command, "commands"):
            assert rest, f"{path.name}: {words} is a family"
            assert rest[0] in command.commands, f"{path.name}: {words}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        said = {word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"}
        assert said <= known, f"{path.name}: {words}"
