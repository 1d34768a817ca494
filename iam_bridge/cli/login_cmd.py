"""`iam-bridge login`: the daemon's decision without PAM, and a login through this host's real PAM stack."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.context import read_config, utc_now
from iam_bridge.cli.decision import Decision, decide
from iam_bridge.cli.log_notes import logs_as_notes
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import note, print_fields, print_json, say
from iam_bridge.cli.token_input import TokenFile, read_token
from iam_bridge.errors import Exit, InvalidValue, Reason
from pam_module.wire import Phase

app = new_family("Ask whether somebody may log in, and why.")

NAME_MAX = 1024  # what the PAM module passes on of a name (MAX_USER)


class CheckedPhase(Enum):
    """The phases that can be asked about."""

    AUTH = "auth"
    ACCOUNT = "account"


User = Annotated[str, typer.Argument(metavar="USER", help="The account name to log in under.")]
AskedPhase = Annotated[
    CheckedPhase,
    typer.Option("--phase", help="auth looks at a token; account is what logins by key and certificate pass too."),
]


@app.command(
    short_help="Say what the login daemon would decide, without PAM.",
    epilog=example(
        "iam-bridge login check ada --token-file token",
        "oidc-token --aud https://login.hpc.example.org me | iam-bridge login check ada --token-file -",
        "iam-bridge login check ada --phase account",
    ),
)
def check(
    user: User,
    token_file: TokenFile = None,
    phase: AskedPhase = CheckedPhase.AUTH,
    config: Config = SETTINGS_FILE,
    as_json: Json = False,
) -> Exit:
    """Say what the login daemon would decide: permit, or deny with the reason; without PAM, and without a receipt.

    It reads what the daemon reads (view, ban list, kept keys) and asks an issuer only where the daemon would. Exit
    status 0: permitted; 3: not. `foreign` is an account that is none of ours: other PAM modules decide about it.
    """
    _check_name(user)
    if phase is CheckedPhase.ACCOUNT and token_file is not None:
        raise InvalidValue("the account phase looks at no token", hint="leave --token-file out, or take --phase auth")
    settings = read_config(config)
    secret = read_token(token_file) if phase is CheckedPhase.AUTH else b""
    with logs_as_notes() as notes:
        decision = decide(settings, Phase[phase.name], user, secret, utc_now)
        notes.said(decision.detail)
    if as_json:
        print_json(decision)
    else:
        _say_decision(decision)
    if decision.reason == Reason.NO_VIEW.value and os.geteuid() != 0:
        note("the view is for root and the services: run it as root, or as a member of the group iam-bridge-view")
    return Exit.OK if decision.verdict == "permit" else Exit.REFUSED


def _say_decision(decision: Decision) -> None:
    match decision.verdict:
        case "permit":
            say(f"permit {decision.name} {decision.uid} ({decision.rule})", "good")
            if decision.remarks:
                say(f"  remarks: {decision.remarks}", "change")
        case "foreign":
            say(f"foreign: {decision.name} is no account of ours; the other PAM modules decide", "change")
        case _:
            say(f"deny: {decision.reason}: {decision.text}", "bad")
            if decision.detail:
                say(f"  because: {decision.detail}", "dim")


@app.command(
    name="try",
    short_help="Log in through this host's real PAM stack.",
    epilog=example(
        "iam-bridge login try ada --token-file token",
        "iam-bridge login try ada --token-file token --service sshd-iam-bridge",
    ),
)
def try_login(
    user: User,
    token_file: TokenFile = None,
    service: Annotated[str, typer.Option("--service", metavar="NAME", help="The PAM service to go through.")] = "sshd",
    confdir: Annotated[
        Path | None,
        typer.Option("--confdir", metavar="DIR", help="Take service files from this folder instead of /etc/pam.d."),
    ] = None,
    as_json: Json = False,
) -> Exit:
    """Log in through this host's real PAM stack, auth and account phase, and show what each answered; as root.

    Every prompt is answered with the token. No session is opened, but the stack does whatever its modules do (count
    failures, wait). Lines with @include read /etc/pam.d even with --confdir. Exit status 0: the stack said yes; 3: it
    said no; 75: something that it needs did not answer.
    """
    from iam_bridge.cli.pam_trial import run_trial

    _check_name(user)
    trial = run_trial(user, read_token(token_file), service, confdir)
    if as_json:
        print_json(trial)
    else:
        say("permit" if trial.permitted else f"deny: {trial.said}", "good" if trial.permitted else "bad")
        print_fields([*trial.phases.items(), *(("prompt", text) for text in trial.prompts)])
        print_fields(("message", line) for text in trial.messages for line in text.splitlines())
    if trial.exit_status is Exit.UNAVAILABLE and os.geteuid() != 0:
        note("the login daemon answers the uids of login.peers only, root's where nothing else is said: run it as root")
    return trial.exit_status


def _check_name(user: str) -> None:
    if not user or "\0" in user or len(os.fsencode(user)) > NAME_MAX:
        raise InvalidValue(f"a login name has 1 to {NAME_MAX} bytes", hint="name the account to log in under")
