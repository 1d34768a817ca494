"""`iam-bridge ledger reconcile`: what a restored ledger lost, as far as the host still tells."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from datetime import datetime

from iam_bridge.cli.render import say
from iam_bridge.errors import Exit, ViewError
from iam_bridge.ledger.banlist import read_lost_bans
from iam_bridge.ledger.view import View
from iam_bridge.model.account import Account
from provisioner.apply import tell_services
from provisioner.audit_facts import numbers_and_names_seen
from provisioner.facts import Site


def reconcile_site(site: Site, *, now: datetime, by: str) -> Exit:
    """Mark what may have been given, write lost bans down again, tell the services, and say what is left to do."""
    state, store = site.ledger.read_state(now), site.store.read()
    numbers, names = numbers_and_names_seen(state, store, site.settings.accounts)
    forgotten = _forgotten_people(site, names)
    known = site.ledger.bans(now, include_past=True)
    _, bans = read_lost_bans(site.settings.paths.bans, site.ledger.ledger_id, known, now)
    if not (state.stopped or numbers or names or bans):
        say("nothing to reconcile: the ledger knows every number of our range on this host", "good")
        return Exit.OK
    marked = site.ledger.reconcile(
        now, by, numbers_seen=numbers, names_seen=names, generation_seen=_generation_seen(site)
    )
    for ban in bans:
        site.ledger.add_ban(
            now, by, subject=ban.subject, name=ban.name, uid=ban.uid, reason=ban.reason, until=ban.until
        )
    tell_services(site, now)
    say(f"{marked.numbers} numbers and {marked.names} names are marked as given to somebody unknown", "good")
    if bans:
        say(f"{len(bans)} bans that the ledger had lost are written down again", "good")
    _print_forgotten(forgotten)
    say("locks by hand and approvals since the copy are not in it: see the log, and give them again", "change")
    return Exit.OK


def _generation_seen(site: Site) -> int:
    """Give the generation of the view that the services use, 0 where there is none of this ledger."""
    view = View(site.settings.paths.view)
    with suppress(ViewError), closing(view):
        view.reload_if_changed()
        if view.ledger_id == site.ledger.ledger_id:
            return view.generation
    return 0


def _forgotten_people(site: Site, names: Iterable[str]) -> list[Account]:
    """Find accounts of the host that the view still knows and the ledger does not."""
    view = View(site.settings.paths.view)
    with suppress(ViewError), closing(view):
        view.reload_if_changed()
        if view.ledger_id == site.ledger.ledger_id:
            rows = [view.by_name(name) for name in sorted(names)]
            return [row.account for row in rows if row is not None]
    return []


def _print_forgotten(people: Sequence[Account]) -> None:
    if not people:
        return
    say(
        f"{len(people)} people have accounts that this ledger does not know; to give them back, put these lines",
        "change",
    )
    say("into a file and run: iam-bridge map adopt --from FILE", "change")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("name", "issuer", "sub", "proof"))
    for account in people:
        table.writerow((account.name, account.subject.issuer, account.subject.sub, "the view of the lost ledger"))
    for line in text.getvalue().splitlines():
        say(line)
