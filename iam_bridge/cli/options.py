"""The options that many commands share, and the shape of a command family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.settings import DEFAULT_PATH

CONFIG_VARIABLE = "IAM_BRIDGE_CONFIG"

Config = Annotated[
    Path,
    typer.Option(
        "--config",
        envvar=CONFIG_VARIABLE,
        show_envvar=False,
        metavar="FILE",
        show_default=False,
        help=f"\b\nThe settings file, else that of ${CONFIG_VARIABLE},\nelse {DEFAULT_PATH}.",  # a path is not folded
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
SETTINGS_FILE = DEFAULT_PATH
"""Default of `Config` parameters."""


def new_family(about: str) -> typer.Typer:
    """Make the typer app of a command family; commands are added by its `command` decorator."""
    family = typer.Typer(
        help=about,
        add_completion=False,
        rich_markup_mode=None,  # plain help: quick, and no text of ours is read as markup
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    family.callback()(_group_of_commands)
    return family


def _group_of_commands() -> None:
    """Keep a family with one command a family: typer makes a bare command of it otherwise."""


def example(*lines: str) -> str:
    """Write the epilog of a command's help; the mark keeps its lines as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
