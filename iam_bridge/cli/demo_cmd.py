"""`iam-bridge demo`: the whole story on an embedded IAM; touches nothing outside a scratch folder."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iam_bridge.errors import BridgeError, Exit

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command("demo")
def demo(
    plain: Annotated[bool, typer.Option("--plain", help="No colours, for a log.")] = False,
) -> None:
    """Tell the main job from end to end: accounts from an IAM group, a login by token, refusals, a leaver, a ban.

    As root, a real sshd lives in a private mount namespace on loopback; without root, one person logs in and the rest
    is shown by `login check`. Nothing is left behind.

    Example: iam-bridge demo
    """
    from iam_bridge.demo.cluster import what_is_missing

    rooted = os.geteuid() == 0
    if missing := what_is_missing(rooted=rooted):
        raise BridgeError("the demo cannot start", hint=missing)
    console = Console(no_color=plain or None, highlight=False, width=None if Console().is_terminal else 110)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iam-bridge-demo-") as folder:
        Path(folder).chmod(0o755)
        good = _tell(console, Path(folder), rooted=rooted)
    console.print(f"\n[dim]told in {time.monotonic() - start:.1f} s; nothing is left behind[/]")
    if good:
        console.print("[dim]next: docs/tutorial/first-steps.md, where you do it yourself in a folder[/]")
    else:
        console.print("[bold red]what is marked ✗ is not as it should be[/]")
        raise typer.Exit(Exit.FAILED)


def _tell(console: Console, folder: Path, *, rooted: bool) -> bool:
    from iam_bridge.demo.cluster import running_cluster
    from iam_bridge.demo.iam.remote import spawned_iam
    from iam_bridge.demo.scratch import make_site
    from iam_bridge.demo.screen import Screen
    from iam_bridge.demo.story import Story

    with spawned_iam(folder, "--data", "demo") as iam:
        iam.call("switch", include_attributes=["posix_username"])
        (folder / "ca.pem").chmod(0o644)
        site = make_site(folder, issuer=iam.issuer, rooted=rooted)
        with running_cluster(site) as cluster:
            cluster.make_key(folder / "key")
            return Story(Screen(console), iam, cluster, folder / "key").tell()
