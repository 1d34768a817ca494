"""`iam-bridge map audit`, run and shown."""

from __future__ import annotations

from iam_bridge.cli.context import make_site, open_ledger, utc_now
from iam_bridge.cli.render import print_json, print_table, say
from iam_bridge.errors import Exit
from iam_bridge.model.rules import Settings
from iam_bridge.policy.audit import audit
from iam_bridge.policy.findings import AuditFinding
from provisioner.audit_facts import gather


def find_everything(settings: Settings) -> tuple[AuditFinding, ...]:
    """Gather and compare; raise BridgeError where there is nothing to compare."""
    with open_ledger(settings) as ledger:
        facts = gather(make_site(settings, ledger), utc_now())
    return audit(facts, settings.accounts, settings.login.rules)


def run_audit(settings: Settings, *, as_json: bool) -> Exit:
    """Print one row per finding; give 1 where there is any."""
    found = find_everything(settings)
    if as_json:
        print_json(found)
    else:
        print_findings(found)
        say(count_of(found) if found else "no findings: all is as it should be", "bad" if found else "good")
    return Exit.FAILED if found else Exit.OK


def count_of(found: tuple[AuditFinding, ...]) -> str:
    """Count findings in words."""
    return f"{len(found)} finding{'' if len(found) == 1 else 's'}"


def print_findings(found: tuple[AuditFinding, ...]) -> None:
    """Print findings as a table."""
    if found:
        rows = [(finding.code, finding.who or "-", finding.what, finding.todo) for finding in found]
        print_table(("FINDING", "WHO", "WHAT", "WHAT TO DO"), rows)
