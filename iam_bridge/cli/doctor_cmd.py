"""`iam-bridge doctor`: everything on this host that a login depends on, and what to mend, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.context import read_config, utc_now
from iam_bridge.cli.doctor.daemon import check_daemon
from iam_bridge.cli.doctor.files import check_files, check_space
from iam_bridge.cli.doctor.host import Host
from iam_bridge.cli.doctor.issuers import check_clocks, check_keys
from iam_bridge.cli.doctor.sshd import check_sshd
from iam_bridge.cli.doctor.stack import check_stack
from iam_bridge.cli.doctor.view import check_view, read_view
from iam_bridge.cli.log_notes import logs_as_notes
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example
from iam_bridge.cli.render import print_json, print_table, say
from iam_bridge.errors import BridgeError, Exit, InvalidValue
from iam_bridge.model.rules import Settings
from iam_bridge.policy.doctor import Check, Mark, warning
from iam_bridge.policy.doctor_host import judge_nsswitch, judge_ranges, judge_user

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.command(epilog=example("iam-bridge doctor", "iam-bridge doctor --json"))
def doctor(
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Read /etc and the modules below DIR, not this host's; for images."),
    ] = None,
    config: Config = SETTINGS_FILE,
    as_json: Json = False,
) -> Exit:
    """Look at sshd, PAM, the name service, files, clock, keys, members and the daemon, and say what to mend.

    Nothing is changed; the issuers are asked for their metadata. As root it sees everything. With --root, sshd and the
    name service of this host are left alone, while the paths of the settings are taken as they are. Exit status 1:
    something is bad.
    """
    settings = read_config(config)
    if root is not None and not root.is_dir():
        raise InvalidValue(f"--root {root}: there is no such folder")
    with logs_as_notes():
        checks = list(_checks(Host(root, settings.accounts.folder), settings))
    if as_json:
        print_json(checks)
    else:
        _print(checks)
    return Exit.FAILED if any(check.verdict is Mark.BAD for check in checks) else Exit.OK


def _checks(host: Host, settings: Settings) -> Iterator[Check]:
    seen = read_view(settings)
    service, sshd = "sshd", list[Check]()
    try:
        service, sshd = check_sshd(host)
    except BridgeError as error:
        sshd = [_not_seen("sshd", error)]
    yield from sshd
    yield from _guarded(f"PAM {service}", lambda: check_stack(host, settings, service, seen.adopted))
    yield from _guarded("name service", lambda: _check_host(host, settings))
    yield from _guarded("files", lambda: check_files(host, settings))
    yield from _guarded("view", lambda: check_view(host, settings, seen, utc_now()))
    yield from _guarded("login daemon", lambda: [check_daemon(host, settings.login)])
    yield from check_keys(settings, utc_now)
    yield from check_clocks(settings, utc_now)
    yield check_space(settings)


def _guarded(what: str, look: Callable[[], list[Check]]) -> list[Check]:
    """Let one thing that cannot be looked at leave the others their turn."""
    try:
        return look()
    except BridgeError as error:
        return [_not_seen(what, error)]


def _not_seen(what: str, error: BridgeError) -> Check:
    return warning(what, error.message, error.hint or "it could not be judged")


def _check_host(host: Host, settings: Settings) -> list[Check]:
    checks = judge_nsswitch(host.read("/etc/nsswitch.conf") or "", settings.accounts.layout)
    accounts = settings.accounts
    checks += judge_ranges(host.read("/etc/login.defs") or "", accounts.uids, accounts.gids)
    checks.append(judge_user("login.user", settings.login.user, host.uid_of(settings.login.user)))
    for source in settings.sources:
        checks.append(judge_user(f"pull, {source.issuer}", source.user, host.uid_of(source.user)))
    return checks


_STYLES = {Mark.OK: "good", Mark.WARN: "change", Mark.BAD: "bad"}


def _print(checks: list[Check]) -> None:
    print_table(("", "what", "found"), [(check.verdict.value, check.what, check.found) for check in checks])
    open_ones = sorted((check for check in checks if check.fix and check.verdict is not Mark.OK), key=_worst_first)
    say()
    for check in open_ones:
        say(f"{check.verdict.value}: {check.what}: {check.found}", _STYLES[check.verdict])
        say(f"  -> {check.fix}")
    count = {mark: sum(check.verdict is mark for check in checks) for mark in Mark}
    say(f"{count[Mark.BAD]} bad, {count[Mark.WARN]} to look at, {count[Mark.OK]} ok")


def _worst_first(check: Check) -> int:
    return 0 if check.verdict is Mark.BAD else 1
