"""`iam-bridge provision`: bring accounts in line with what the IAM says."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from iam_bridge.cli.context import (
    make_site,
    open_ledger,
    open_ledger_or_empty,
    pull_everybody,
    read_config,
    sole_run,
    utc_now,
    who_asks,
    writing,
)
from iam_bridge.cli.options import SETTINGS_FILE, Config, Json, example, new_family
from iam_bridge.cli.plan_view import plan_to_json, print_plan
from iam_bridge.cli.render import moment, note, print_json, print_table, say, span
from iam_bridge.cli.session_view import has_failed, print_sessions
from iam_bridge.errors import Exit
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.records import SourceRow
from iam_bridge.model.rules import Settings
from provisioner.facts import make_plan
from provisioner.locked_sessions import end_locked_sessions
from provisioner.run import Pulled, RunReport
from provisioner.run import run as run_once

app = new_family("Bring accounts in line with the IAM.")

SHOWN_MAX = 40
"""Lines of a list that a run shows; `plan` shows all."""
RUNS_SHOWN = 10

Initial = Annotated[
    int | None,
    typer.Option("--initial", min=0, metavar="N", help="Let a first run make up to N accounts, whatever limits say."),
]


@app.command(epilog=example("iam-bridge provision plan", "iam-bridge provision plan --initial 500 --json"))
def plan(initial: Initial = None, config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Show what a run would do, and write nothing.

    + comes, ~ changes, ! waits for an admin's word, ? gets no account. Exit status 0: nothing to do; 4: something is;
    75: a source gave no whole answer, and nothing is to do as far as is known.
    """
    settings = read_config(config)
    pulled = pull_everybody(settings)
    with open_ledger_or_empty(settings) as ledger:
        _, due = make_plan(make_site(settings, ledger), pulled.snapshots, utc_now(), initial=initial)
    if as_json:
        print_json(plan_to_json(due) | {"unavailable": pulled.unavailable})
    else:
        _note_all(pulled, due.remarks)
        print_plan(due)
    if not pulled.snapshots:
        return Exit.UNAVAILABLE
    if due.changes or due.parked:
        return Exit.PENDING
    return Exit.UNAVAILABLE if pulled.unavailable else Exit.OK


def _note_all(pulled: Pulled, remarks: tuple[str, ...]) -> None:
    for sentence in (*pulled.unavailable, *remarks):
        note(sentence)


@app.command(
    short_help="Do what the plan says.",
    epilog=example("iam-bridge provision run --quiet", "iam-bridge provision run --initial 500"),
)
def run(
    initial: Initial = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing unless something is wrong or waits.")] = False,
    config: Config = SETTINGS_FILE,
) -> Exit:
    """Pull the members, decide, and make ledger, view, accounts and homes say the same.

    A second run right after finds nothing to do and writes nothing to the store. Exit status 0: done; 1: something
    could not be done; 3: changes wait for `approve`; 75: a source gave no whole answer, or another run is at work.
    """
    settings = read_config(config)
    by = f"provision run by {who_asks()}"
    with sole_run(settings, by):
        pulled = pull_everybody(settings)
        with writing(settings, by, create=True) as site:
            report = run_once(site, pulled, now=utc_now(), by=by, initial=initial)
            ended = end_locked_sessions(site.ledger.read_state(utc_now()).accounts.values())
    status = report.exit_status
    if any(map(has_failed, ended)):
        status = Exit.FAILED
    if not quiet or status != Exit.OK:
        _print_report(report)
        print_sessions(ended)
    return status


def _print_report(report: RunReport) -> None:
    for sentence in (*report.unavailable, *report.plan.remarks, *report.applied.remarks):
        note(sentence)
    print_plan(report.plan, most=SHOWN_MAX)
    if report.applied.homes:
        say(f"{len(report.applied.homes)} homes made")
    for problem in report.applied.problems:
        say(f"! {problem}", "bad")


@app.command(
    short_help="Let the next run make parked changes.", epilog=example("iam-bridge provision approve 3f0c2a9d51be")
)
def approve(
    digest: Annotated[str, typer.Argument(help="The digest that `plan`, `run` or `status` shows.")],
    config: Config = SETTINGS_FILE,
) -> Exit:
    """Let the next run, within 24 hours, make parked changes, as far as they are still due then."""
    settings = read_config(config)
    with writing(settings, f"provision approve {digest[:40]} by {who_asks()}") as site:
        count = site.ledger.approve(digest, utc_now(), who_asks())
    say(f"{count} changes approved; the next run makes what is still due of them: iam-bridge provision run", "good")
    return Exit.OK


@app.command(
    short_help="Show the last runs, the sources, and what waits.", epilog=example("iam-bridge provision status")
)
def status(config: Config = SETTINGS_FILE, as_json: Json = False) -> Exit:
    """Show the last runs, how old each source's list is, what waits, and whether numbers may be given."""
    settings = read_config(config)
    with open_ledger(settings) as ledger:
        found = _gather(ledger, settings)
    if as_json:
        print_json(found)
    else:
        _print_status(found, utc_now(), settings)
    return Exit.OK


def _gather(ledger: Ledger, settings: Settings) -> dict[str, Any]:
    known = {source.issuer: source for source in ledger.sources()}
    never = [SourceRow(rules.issuer, None, 0, None, "") for rules in settings.sources if rules.issuer not in known]
    return {
        "site": settings.site,
        "ledger": ledger.ledger_id,
        "generation": ledger.generation(),
        "stopped": ledger.check_anchors(),
        "sources": [*known.values(), *never],
        "parked": ledger.parked(),
        "runs": ledger.runs(RUNS_SHOWN),
    }


def _print_status(found: dict[str, Any], now: datetime, settings: Settings) -> None:
    say(f"{found['site']}: ledger {found['ledger'][:12]}, generation {found['generation']}", "strong")
    if found["stopped"]:
        say(f"! no number is given: {found['stopped']}", "bad")
    rows = [(s.issuer, s.members, _age(s.taken_at, now), moment(s.attempted_at), s.reason) for s in found["sources"]]
    print_table(("SOURCE", "MEMBERS", "LAST WHOLE LIST", "LAST ASKED", "REASON"), rows)
    for parked in found["parked"]:
        say(f"! {len(parked.lines)} changes to {parked.people} people wait since {moment(parked.since)}", "bad")
        say(f"    {parked.why}", "dim")
        say(f"    iam-bridge provision approve {parked.digest}", "strong")
    runs = [(run.run_id, moment(run.started_at), run.command, _outcome(run)) for run in found["runs"]]
    print_table(("RUN", "STARTED", "BY", "OUTCOME"), runs, empty="no run yet")


def _age(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else f"{span((now - at).total_seconds())} ago"


def _outcome(run: Any) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in run.counts.items())
    word = run.outcome or ("interrupted or at work" if run.finished_at is None else "done")
    return f"{word}: {counts}" if counts else str(word)
