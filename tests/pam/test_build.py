"""What the module is made from and what it shows to others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def read_elf(tool: str, *arguments: str | Path) -> str:
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout


def test_only_the_pam_functions_are_exported(module: Path) -> None:
    lines = read_elf("nm", "-D", "--defined-only", module).splitlines()
    phases = {"authenticate", "setcred", "acct_mgmt", "open_session", "close_session"}
    assert {line.split()[-1] for line in lines} == {f"pam_sm_{phase}" for phase in phases}


def test_only_libpam_and_libc_are_needed(module: Path) -> None:
    needed = re.findall(r"\(NEEDED\).*\[(lib\w+)\.so", read_elf("readelf", "-d", module))
    assert sorted(needed) == ["libc", "libpam"]


def test_the_module_is_hardened(module: Path) -> None:
    assert re.search(r"FLAGS.*(BIND_NOW|NOW)", read_elf("readelf", "-d", module))
    headers = read_elf("readelf", "-lW", module)
    assert "GNU_RELRO" in headers
    assert re.search(r"GNU_STACK.* RW ", headers)
    imports = read_elf("nm", "-D", "--undefined-only", module)
    assert "__stack_chk_fail" in imports
    assert "explicit_bzero" in imports


def test_check_exports_agrees(module: Path) -> None:
    subprocess.run(["make", "-s", "-C", module.parents[1], "check-exports"], check=True)


def test_the_source_stays_thin(module: Path) -> None:
    lines = (module.parents[1] / "pam_iam.c").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("/*", "*"))]
    assert len(code) < 485
