"""sshd's settings: what its files say in the order in which it reads them, and what it says itself."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from iam_bridge.cli.doctor.host import Host
from iam_bridge.policy.doctor import Check, warning
from iam_bridge.policy.doctor_sshd import DROP_IN, SshdLine, first_values, judge_sshd, parse_sshd, value_of

FOLDER = "/etc/ssh"
DEPTH_MAX = 16  # servconf.c SERVCONF_MAX_DEPTH
TIMEOUT_S = 10


def check_sshd(host: Host) -> tuple[str, list[Check]]:
    """Look at sshd's settings; give the PAM service that it uses, and the checks. Raises Unreadable."""
    if host.read(f"{FOLDER}/sshd_config") is None:
        fix = "doctor reads /etc/ssh/sshd_config; without sshd nobody logs in by ssh"
        return "sshd", [warning("sshd", f"{FOLDER}/sshd_config does not exist", fix)]
    lines = list(_read(host, f"{FOLDER}/sshd_config", depth=0))
    effective, complaint = _ask_sshd(host)
    has_drop_in = host.path(f"{FOLDER}/{DROP_IN}").exists()
    checks = judge_sshd(lines, effective, has_drop_in=has_drop_in)
    if complaint:
        checks.append(warning("sshd -T", complaint, "what is said of sshd comes from its files alone"))
    return value_of("pamservicename", first_values(lines), effective), checks


def _read(host: Host, file: str, *, depth: int) -> Iterator[SshdLine]:
    """Give the settings of a file, those of included files where the Include stands."""
    for line in parse_sshd(host.read(file) or "", file):
        if line.keyword != "include":
            yield line
            continue
        for pattern in line.value.split() if depth < DEPTH_MAX else ():
            for inner in _matching(host, pattern):
                for found in _read(host, inner, depth=depth + 1):
                    yield replace(found, is_conditional=True) if line.is_conditional else found


def _matching(host: Host, pattern: str) -> list[str]:
    """Name the files of a pattern as the host names them, sorted as glob(3) sorts them."""
    absolute = pattern if pattern.startswith("/") else f"{FOLDER}/{pattern}"
    found = sorted(glob.glob(str(host.path(absolute))))
    if host.root is None:
        return found
    return ["/" + str(Path(path).relative_to(host.root)) for path in found]


def _ask_sshd(host: Host) -> tuple[dict[str, str], str]:
    """Ask `sshd -T` what it makes of its files; empty, with the reason, where it cannot be asked."""
    if host.root is not None:
        return {}, ""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        return {}, "there is no sshd on this host"
    if os.geteuid() != 0:
        return {}, "it needs root"
    try:
        done = subprocess.run(
            [program, "-T"], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, f"it could not be run ({type(error).__name__})"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        return {}, said[-1] if said else f"it ended with status {done.returncode}"
    effective: dict[str, str] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        effective.setdefault(keyword, value)
    return effective, ""
