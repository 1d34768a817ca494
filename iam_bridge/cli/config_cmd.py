"""`iam-bridge config`: what would be believed, and every problem with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.context import read_config
from iam_bridge.cli.effective import document_of, duration
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import print_fields, print_json, say
from iam_bridge.errors import Exit, SettingsError
from iam_bridge.model.rules import GroupRule, Settings
from iam_bridge.settings_schema import make_schema

app = new_family("Check and show the settings.")

Named = Annotated[Path | None, typer.Argument(metavar="PATH", help="The settings file, instead of --config.")]


@app.command(
    short_help="Say what would be believed, or every problem.",
    epilog=example("iam-bridge config check", "iam-bridge config check ./iam-bridge.yaml --json"),
)
def check(path: Named = None, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Say what would be believed, or every problem with its line (exit status 2). Nothing is changed."""
    file = path or config
    try:
        settings = read_config(file)
    except SettingsError as error:
        if not as_json:
            raise
        print_json({"path": file, "ok": False, "problems": error.problems or (str(error),)})
        return Exit.USAGE
    if as_json:
        print_json({"path": file, "ok": True, "problems": []})
        return Exit.OK
    say(f"ok: {file}", "good")
    print_fields(_beliefs(settings))
    return Exit.OK


@app.command(
    short_help="Print the settings in effect.",
    epilog=example("iam-bridge config show", "iam-bridge config show --json"),
)
def show(config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Print the settings in effect, defaults filled in; no secret is ever read for it.

    The output is a settings file again. Of `exchange` and `gateway` nothing is in effect yet, so they are not in it.
    """
    import yaml

    document = document_of(read_config(config))
    if as_json:
        print_json(document)
        return Exit.OK
    for line in yaml.safe_dump(document, sort_keys=False, allow_unicode=False, width=1000).splitlines():
        say(line)
    return Exit.OK


@app.command(epilog=example("iam-bridge config schema > iam-bridge.schema.json"))
def schema() -> Exit:
    """Print a JSON Schema of the settings file, for editors."""
    print_json(make_schema())
    return Exit.OK


def _beliefs(settings: Settings) -> list[tuple[str, str]]:
    """Say in short who is believed, who gets an account and who may log in."""
    login, rules, accounts = settings.login, settings.login.rules, settings.accounts
    limits = settings.limits
    told = [("site", settings.site)]
    told += [
        ("tokens of", f"{entry.issuer} ({', '.join(entry.algorithms)}; {entry.validation})")
        for entry in settings.issuers.values()
    ]
    told.append(("made for", " or ".join(rules.audience)))
    told += [("members from", f"{source.issuer} by {source.kind}, as {source.user}") for source in settings.sources]
    told += [("group", _group(group)) for source in settings.sources for group in source.groups]
    told.append(("may log in", " or ".join(f"{need.group} at {need.issuer}" for need in rules.requires)))
    told.append(("not with members", f"older than {duration(rules.members_deny_s)}"))
    told.append(("accounts", f"uid {accounts.uids.low}-{accounts.uids.high} in {accounts.folder}, {accounts.home}"))
    told.append(("names from", ", then ".join((*accounts.name_sources, "u<uid>"))))
    told.append(("a day's locks", f"{limits.locks.most} people or {limits.locks.percent} %, whichever is more"))
    told.append(("a day's creations", f"{limits.creates.most} people or {limits.creates.percent} %, whichever is more"))
    told.append(("login daemon", f"{login.user} at {login.socket}"))
    return told


def _group(rule: GroupRule) -> str:
    effects = ["an account"] if rule.grants_account else []
    effects += [f"the unix group {rule.unix}" + (" (adopted)" if rule.adopt else "")] if rule.unix else []
    return f"{rule.iam} gives {' and '.join(effects)}"
