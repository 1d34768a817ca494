"""What was ended of somebody's sessions, and what is left, as people read it."""

from __future__ import annotations

from collections.abc import Iterable

from iam_bridge.cli.render import moment, say
from provisioner.sessions import SessionReport


def has_failed(report: SessionReport) -> bool:
    """Tell whether something went wrong, or something of theirs still runs (not what root runs for them)."""
    return bool(report.problems) or any(process.belonging == "theirs" for process in report.left)


def print_sessions(reports: Iterable[SessionReport]) -> None:
    """Print, for each account, what was ended, what still runs, what could start later, and what went wrong."""
    for report in reports:
        if report.dry_run:
            say(f"{report.name}: {len(report.processes)} processes would be ended")
        else:
            say(f"{report.name}: {len(report.ended)} processes ended, {len(report.left)} left")
        for process in report.processes:
            state = f"ended ({process.ended})" if process.ended else "still runs"
            line = f"    {process.pid} {process.command}, since {moment(process.started_at)}"
            say(line if report.dry_run else f"{line}: {state}", "" if process.ended or report.dry_run else "bad")
        for path in report.later:
            say(f"    {path} could start something again: remove it if that must not be", "change")
        for problem in report.problems:
            say(f"    {problem}", "bad")
