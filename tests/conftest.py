"""What holds for the whole suite: skips are loud and counted (none in CI), and no token is in anything captured."""

from __future__ import annotations

import os
import re

import pytest

# A JWS of three parts that is long enough to be a real one; RFC 7515 3.1.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{15,}")
_skipped: list[str] = []
_leaks: list[str] = []


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note skips, and captured output in which a token shows (design, invariant 8); a failure may show what it must."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)
    if report.passed and any(TOKEN.search(text) for _, text in report.sections):
        _leaks.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what did not run."""
    if _skipped:
        terminalreporter.section(f"NOT RUN: {len(_skipped)} tests, reasons below", sep="!", red=True)
    for nodeid in _leaks:
        terminalreporter.line(f"A TOKEN SHOWS in the captured output of {nodeid}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail for a leak anywhere, and for a skip in CI, which lacks nothing."""
    if _leaks or (_skipped and os.environ.get("CI")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
