"""What a package installs around `provision run`: unit, timer, cron line and man page, each tried or checked."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from iam_bridge.cli.app import FAMILIES
from tests.functional.site import FIRST, IS_ROOT, PROGRAM, Scratch

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "packaging" / "systemd" / "iam-bridge-provision.service"
LOGIND = ROOT / "packaging" / "systemd" / "iam-bridge-logind.service"
TIMER = ROOT / "packaging" / "systemd" / "iam-bridge-provision.timer"
CRON = ROOT / "config" / "cron.d" / "iam-bridge"
MAN = ROOT / "packaging" / "man" / "iam-bridge.8"


def settings_of(unit: Path) -> list[tuple[str, str]]:
    lines = (line for line in unit.read_text().splitlines() if line and not line.startswith(("#", "[")))
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def capabilities() -> list[str]:
    """Give the capabilities that the unit leaves to a run, as setpriv(1) spells them."""
    (words,) = [value for key, value in settings_of(SERVICE) if key == "CapabilityBoundingSet"]
    return [word.removeprefix("CAP_").lower() for word in words.split()]


@pytest.mark.skipif(not IS_ROOT or not shutil.which("setpriv"), reason="root gives rights away here")
def test_the_rights_that_the_unit_leaves_are_enough(scratch: Scratch) -> None:
    bounds = ",".join(["-all", *(f"+{word}" for word in capabilities())])
    scratch.prefix = ("setpriv", f"--bounding-set={bounds}", "--inh-caps=-all", "--no-new-privs")
    scratch.set_up()
    uid = FIRST + 3
    assert (scratch.folder / "home" / "grace").stat().st_uid == uid
    leftover = scratch.folder / "home" / f".iam-bridge-{FIRST + 4}.tmp"
    leftover.mkdir(mode=0o700)
    (leftover / "file").touch()
    os.chown(leftover, FIRST + 4, FIRST + 4)
    with subprocess.Popen(["sleep", "300"], user=uid, group=uid, extra_groups=()) as process:
        scratch.people.remove("grace")
        scratch.people.put("linus")
        ran = scratch.bridge("provision", "run")
        assert ran.status == 0, ran.all
        assert process.wait(5) < 0
    assert not leftover.exists()
    assert scratch.rows("shadow")["grace"][7] == "1"


@pytest.mark.skipif(not IS_ROOT or not shutil.which("setpriv"), reason="root gives rights away here")
@pytest.mark.parametrize("right", capabilities())
def test_none_of_those_rights_is_there_for_nothing(scratch: Scratch, right: str) -> None:
    text = SERVICE.read_text()
    assert re.search(rf"^#.*\b{right.upper()}\b", text, re.MULTILINE), "the reason stands beside it"
    kept = ",".join(["-all", *(f"+{word}" for word in capabilities() if word != right)])
    prefix = ("setpriv", f"--bounding-set={kept}", "--inh-caps=-all", "--no-new-privs")
    scratch.people.put("ada")
    scratch.people.put("grace")
    if right in ("kill", "dac_override"):
        scratch.set_up()
        uid = FIRST + 3
        leftover = scratch.folder / "home" / f".iam-bridge-{FIRST + 4}.tmp"
        leftover.mkdir(mode=0o700)
        (leftover / "file").touch()
        os.chown(leftover, FIRST + 4, FIRST + 4)
        scratch.prefix = prefix
        with subprocess.Popen(["sleep", "300"], user=uid, group=uid, extra_groups=()) as process:
            scratch.people.remove("grace")
            scratch.people.put("linus")
            ran = scratch.bridge("provision", "run")
            process.kill()
    else:
        scratch.prefix = prefix
        ran = scratch.bridge("provision", "run")
    assert ran.status != 0, ran.all


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_understands_units_and_timer(tmp_path: Path) -> None:
    units = [tmp_path / service.name for service in (SERVICE, LOGIND)]
    for unit, service in zip(units, (SERVICE, LOGIND), strict=True):
        unit.write_text(service.read_text().replace("ExecStart=/usr/bin/iam-bridge", f"ExecStart={PROGRAM}"))
    timer = shutil.copy(TIMER, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units), str(timer)],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if "iam-bridge" in line]
    assert (done.returncode, told) == (0, [])


def test_every_opening_of_the_unit_says_why() -> None:
    lines = SERVICE.read_text().splitlines()
    openings = (
        "ReadWritePaths=",
        "ProtectHome=no",
        "ProtectProc=default",
        "RestrictAddressFamilies=",
        "StateDirectory=",
    )
    for number, line in enumerate(lines):
        if line.startswith(openings):
            above = lines[max(0, number - 4) : number]
            assert any(before.startswith("# Opening:") for before in above), line


def test_the_timer_waits_a_random_while_below_the_age_that_warns() -> None:
    timer = dict(settings_of(TIMER))
    assert timer["RandomizedDelaySec"] == "60s"
    assert timer["OnUnitInactiveSec"] == "5min"


def cron_line() -> tuple[list[str], str, str]:
    """Give the five fields, the user and the command of the cron line."""
    (line,) = [text for text in CRON.read_text().splitlines() if text.startswith("*")]
    fields = line.split(None, 6)
    return fields[:5], fields[5], fields[6]


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="where systemd runs the cron line does nothing")
def test_the_cron_line_runs_and_is_quiet_when_all_is_well(scratch: Scratch) -> None:
    times, user, command = cron_line()
    assert (times, user) == (["*/5", "*", "*", "*", "*"], "root")
    assert "%" not in command, "cron(5) makes a newline of it"
    bin_folder = scratch.folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "iam-bridge").symlink_to(PROGRAM)
    (bin_folder / "shuf").write_text("#!/bin/sh\necho 0\n")
    (bin_folder / "shuf").chmod(0o755)
    scratch.people.put("ada")
    env = scratch.environment(PATH=f"{bin_folder}:/usr/bin:/bin")
    if not IS_ROOT:
        pytest.skip("the line is root's")
    first = subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert "ada" in scratch.rows("passwd")
    scratch.people.path.unlink()
    again = subprocess.run(["/bin/sh", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 75
    assert "cannot be read" in again.stderr


def test_the_cron_file_ends_in_a_newline() -> None:
    assert CRON.read_text().endswith("\n"), "cron(8) passes over a last line without one"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_man_page_names_every_command(family: str) -> None:
    (line,) = [text for text in MAN.read_text().splitlines() if re.match(rf"\.It Ic {family}\b", text)]
    listed = set(re.findall(r"[a-z-]+", line.partition(" Cm ")[2]))
    command = typer.main.get_command(importlib.import_module(FAMILIES[family][0]).app)
    assert listed == set(getattr(command, "commands", {}))


@pytest.mark.skipif(not shutil.which("groff"), reason="no groff here")
def test_the_man_page_is_set_without_a_complaint() -> None:
    done = subprocess.run(
        ["groff", "-mandoc", "-Tascii", "-ww", "-z", str(MAN)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
