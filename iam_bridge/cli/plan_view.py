"""A plan as people read it: `+` comes, `~` changes, `!` waits for an admin, `?` is turned away; and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iam_bridge.cli.render import say
from iam_bridge.ledger.receipts import line_of
from iam_bridge.model.change import (
    AdoptAccount,
    Change,
    CreateAccount,
    CreateGroup,
    JoinGroup,
    LeaveGroup,
    LockAccount,
    Parked,
    Plan,
    UnlockAccount,
    count_kinds,
    kind_of,
)

Row = tuple[str, str, str, str, str]
"""Sign, verb, name, number and the rest: why."""
_STYLES = {"+": "good", "~": "change", "!": "bad"}


def print_plan(plan: Plan, *, most: int | None = None) -> None:
    """Print what goes ahead, what waits and who is turned away; of a long list the first `most` lines only."""
    _print_rows([_row_of(change) for change in plan.changes], most)
    for parked in plan.parked:
        say(f"! {len(parked.changes)} changes wait: {parked.why}", "bad")
        _print_rows([("!", *_row_of(change)[1:]) for change in parked.changes], most, indent="  ")
        say(f"  to let the next run make them: iam-bridge provision approve {parked.digest}", "strong")
    for refusal in plan.refused[:most]:
        say(f"? {refusal.username} gets no account: {refusal.why} ({refusal.subject})", "change")
    _say_rest(len(plan.refused), most)
    say(summary_of(plan), "strong")


def _print_rows(rows: Sequence[Row], most: int | None, indent: str = "") -> None:
    shown = rows[:most]
    widths = [max((len(row[i]) for row in shown), default=0) for i in range(1, 4)]
    for sign, *cells, why in shown:
        facts = " ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        say(f"{indent}{sign} {facts}  {why}", _STYLES[sign])
    _say_rest(len(rows), most)


def _say_rest(count: int, most: int | None) -> None:
    if most is not None and count > most:
        say(f"  and {count - most} more", "dim")


def _row_of(change: Change) -> Row:
    verb, rule, record = kind_of(change), change.cause.rule, change.cause.record
    match change:
        case CreateGroup():
            return ("+", verb, change.group.text, f"gid {change.gid}", rule)
        case CreateAccount() | AdoptAccount():
            account = change.account
            groups = "".join(f"+{group} " for group in sorted(account.groups))
            return ("+", verb, account.name.text, f"uid {account.uid}", f"{groups}({rule})")
        case LockAccount():
            return ("~", verb, change.name.text, f"uid {change.uid}", f"{change.reason.value} ({rule}: {record})")
        case UnlockAccount():
            return ("~", verb, change.name.text, f"uid {change.uid}", f"was {change.reason.value} ({rule}: {record})")
        case JoinGroup():
            return ("~", verb, change.name.text, f"uid {change.uid}", f"+{change.group} ({rule})")
        case LeaveGroup():
            return ("~", verb, change.name.text, f"uid {change.uid}", f"-{change.group} ({rule}: {record})")


def summary_of(plan: Plan) -> str:
    """Count a plan in one line."""
    parts = [f"{count} {kind}" for kind, count in count_kinds(plan.changes).items()]
    waiting = sum(len(parked.changes) for parked in plan.parked)
    parts += [f"{waiting} parked"] if waiting else []
    parts = parts or ["nothing to do"]
    parts += [f"{len(plan.refused)} refused"] if plan.refused else []
    return ", ".join(parts)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Give a plan as JSON objects."""
    return {
        "changes": [line_of(change) for change in plan.changes],
        "parked": [_parked_to_json(parked) for parked in plan.parked],
        "refused": plan.refused,
        "remarks": plan.remarks,
    }


def _parked_to_json(parked: Parked) -> dict[str, Any]:
    return {"digest": parked.digest, "why": parked.why, "changes": [line_of(change) for change in parked.changes]}
