"""The frame fuzzer in a short run, by both of its drivers, and that it notices a parser without its checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.frame_seeds import FOLDER, make_seeds

ROOT = Path(__file__).parents[2]


def fuzz(build: Path, *settings: str, module: Path = ROOT / "pam_module") -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = ["make", "-s", "-C", module, "fuzz", "RUNS=20000", f"BUILD={build}", *settings]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_seeds_are_what_the_script_makes() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == make_seeds()


def test_the_default_driver_finds_nothing(tmp_path: Path) -> None:
    done = fuzz(tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_driver_for_hosts_without_clang_finds_nothing(tmp_path: Path) -> None:
    done = fuzz(tmp_path, "CLANG=no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == f"{len(make_seeds())} seeds and {20000 // len(make_seeds()) * len(make_seeds())} mutations of them\n"
    )


@pytest.mark.parametrize(
    ("check", "without"),
    [
        ("n < 4 || get_u32(p) > n - 4", "n < 4"),
        ("n < 4 || get_u32(p) > n - 4", "get_u32(p) > n - 4"),
        ("    return n == 0;", "    return true;"),
        ("from.n < MAX_TEXT ? from.n : MAX_TEXT", "from.n"),
        ("from.at[i] <= '~'", "true"),
        ("min == 0 || min > max", "min > max"),
        ("o->ranges == MAX_RANGES || ", ""),
        ("fits && n <= MAX_ANSWERS - used", "fits && n <= MAX_ANSWERS"),
        ("fits && n <= MAX_ANSWERS - used", "fits"),
        (" && count < MAX_PARTS);", ");"),
        ("uid != 0 && i < o->ranges", "i < o->ranges"),
    ],
)
def test_a_check_that_is_taken_out_is_found(tmp_path: Path, check: str, without: str) -> None:
    for name in ("pam_module", "tests/fuzz"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("build", "__pycache__"))
    source = tmp_path / "pam_module" / "pam_iam.c"
    text = source.read_text()
    assert text.count(check) == 1
    source.write_text(text.replace(check, without))
    done = fuzz(tmp_path / "build", "CLANG=no-such-compiler", module=source.parent)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "does not hold" in done.stderr or "runtime error" in done.stderr
