"""Name service caches that would show yesterday's accounts: nscd and sssd are told when the host's files changed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

SEEN_BY_NSS = (Path("/etc"), Path("/var/lib/extrausers"))
PROGRAMS = (Path("/usr/sbin/nscd"), Path("/usr/sbin/sss_cache"))
TIMEOUT_S = 10.0
# nscd(8): -i invalidates one table; sss_cache(8): -U and -G expire all users and groups.
_ARGUMENTS = {"nscd": (("-i", "passwd"), ("-i", "group")), "sss_cache": (("-U", "-G"),)}


def flush_caches(folder: Path, programs: Sequence[Path] = PROGRAMS) -> tuple[str, ...]:
    """Tell the caches of this host that accounts in `folder` changed; a sentence for each that could not be told.

    A scratch folder is no business of the host's caches. A cache that is not told is late, not wrong: it forgets by
    itself, so this is never a problem of the run.
    """
    if folder not in SEEN_BY_NSS:
        return ()
    calls = [(program, words) for program in programs if program.exists() for words in _ARGUMENTS[program.name]]
    return tuple(
        f"{program.name} was not told of the change ({why}); run: {program} {' '.join(words)}"
        for program, words in calls
        if (why := _run(program, words))
    )


def _run(program: Path, arguments: Sequence[str]) -> str:
    """Run a program by its whole path with an empty environment; say what went wrong."""
    try:
        ended = subprocess.run([program, *arguments], env={}, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    return f"status {ended.returncode}" if ended.returncode else ""
