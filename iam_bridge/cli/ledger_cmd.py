"""`iam-bridge ledger`: look after the record of who is who."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iam_bridge.cli.audit import count_of, print_findings
from iam_bridge.cli.context import make_site, open_ledger, read_config, utc_now, who_asks, writing
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.render import print_json, say
from iam_bridge.errors import Exit
from iam_bridge.ledger.receipts import head_of
from iam_bridge.policy.audit import audit
from provisioner.audit_facts import gather, verify_chains

app = new_family("Look after the ledger.")

FIT = frozenset(
    {"row-missing", "uid-drift", "uid-shared", "gid-drift", "nss-uid", "nss-gid", "orphan", "home-owner", "no-owner"}
)
"""Findings of the audit that say whether numbers and owners fit the ledger; `map audit` tells the rest."""


@app.command(
    short_help="Check that the ledger is whole and fits the host.",
    epilog=example("iam-bridge ledger verify", "iam-bridge ledger verify --json"),
)
def verify(config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Check the chains of receipts, that nothing was given twice, and the fit with store, name service and homes.

    Compare the head that it prints with the one in the log: a chain that was cut at its end is whole in itself.
    Exit status 0: all holds; 1: something does not.
    """
    settings = read_config(config)
    with open_ledger(settings) as ledger:
        site = make_site(settings, ledger)
        with ledger.reading() as db:
            count, head = head_of(db)
        found = tuple(verify_chains(site))
        facts = gather(site, utc_now())
    found += tuple(f for f in audit(facts, settings.accounts, settings.login.rules) if f.code in FIT)
    if as_json:
        print_json({"receipts": count, "head": head, "findings": found})
    else:
        print_findings(found)
        say(f"{count} receipts, head {head}")
        say(count_of(found) if found else "the ledger holds", "bad" if found else "good")
    return Exit.FAILED if found else Exit.OK


@app.command(
    short_help="Let a ledger that was put back from a copy go on.", epilog=example("iam-bridge ledger reconcile")
)
def reconcile(config: Config = SETTINGS_FILE) -> Exit:
    """Let a ledger that was put back from a copy go on, or accept users of our range that it does not know.

    What may have been given since the copy is marked as given to somebody unknown, so that it is never given again.
    Bans that the services still know are written down again. People whom only the view knows are listed as rows for
    `map adopt`.
    """
    from iam_bridge.cli.reconcile import reconcile_site

    settings, by = read_config(config), f"ledger reconcile by {who_asks()}"
    with writing(settings, by) as site:
        return reconcile_site(site, now=utc_now(), by=by)


@app.command(
    short_help="Copy the ledger, also while it is in use.",
    epilog=example("iam-bridge ledger backup /var/backups/iam-bridge-$(date +%F).db"),
)
def backup(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A new file; one that is there is never replaced.")],
    config: Config = SETTINGS_FILE,
) -> Exit:
    """Copy the ledger, whole and consistent, while it may be in use; the copy has mode 0600."""
    with open_ledger(read_config(config)) as ledger:
        ledger.backup(to)
    say(f"the ledger is copied to {to}; after putting a copy back: iam-bridge ledger reconcile", "good")
    return Exit.OK
