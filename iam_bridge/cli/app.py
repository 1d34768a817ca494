"""The command `iam-bridge`: its families by name, each imported when it is called and not before."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from iam_bridge import __version__
from iam_bridge.cli.options import CONFIG_VARIABLE

FAMILIES: dict[str, tuple[str, str]] = {
    # name: (module with `app`, what it is for); one line each, in the order in which people meet them
    "demo": ("iam_bridge.cli.demo_cmd", "Tell the whole story on an embedded IAM; touches nothing of this host."),
    "config": ("iam_bridge.cli.config_cmd", "Check and show the settings; every problem with its line."),
    "doctor": ("iam_bridge.cli.doctor_cmd", "Look at sshd, PAM, NSS, modes, clock, keys: what to fix, in words."),
    "provision": ("iam_bridge.cli.provision", "Bring accounts in line with the IAM: plan, run, approve, status."),
    "map": ("iam_bridge.cli.map_cmd", "Say who is who and why; audit, lock, unlock, adopt."),
    "ban": ("iam_bridge.cli.ban", "Stop an identity everywhere: add, list, lift."),
    "login": ("iam_bridge.cli.login_cmd", "Try a login: check asks the daemon's decision, try the PAM stack."),
    "keys": ("iam_bridge.cli.keys_cmd", "Look after the issuers' signing keys: refresh, show."),
    "token": ("iam_bridge.cli.token_cmd", "Look into a token: show."),
    "ledger": ("iam_bridge.cli.ledger_cmd", "Look after the ledger: verify, reconcile, backup."),
}


class Families(TyperGroup):
    """Commands that are imported by name; `--help` shows their lines and imports none."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(FAMILIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in FAMILIES:
            return None
        module, _ = FAMILIES[cmd_name]
        command = typer.main.get_command(import_module(module).app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in FAMILIES.items()])


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"iam-bridge {__version__}")
        raise typer.Exit


def _root(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The settings file of any command that follows.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Before the command it counts like the variable, which is where commands look when they are given no --config.
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)


def build() -> Any:
    """Build the root command."""
    app = typer.Typer(
        cls=Families,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="One identity, from the IAM to the cluster.",
        epilog="\b\nExample:\n  iam-bridge provision plan\n\nManual: iam-bridge(8), docs/reference/commands.md",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    root: Any = typer.main.get_command(app)
    root.commands = dict.fromkeys(FAMILIES)  # what typer looks through for a name that was meant
    return root
