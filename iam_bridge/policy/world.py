"""Everything that the decision on accounts looks at, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from iam_bridge.model.identity import MemberSnapshot, Subject
from iam_bridge.model.rules import AccountRules, SourceRules
from iam_bridge.model.state import HostNames, LedgerState, StoreSnapshot


@dataclass(frozen=True, slots=True)
class World:
    """Members, rules, ledger, store and host; `reserved` are the system's own names, `banned` who a ban holds for."""

    snapshots: tuple[MemberSnapshot, ...]
    sources: tuple[SourceRules, ...]
    ids: AccountRules
    ledger: LedgerState
    store: StoreSnapshot
    host: HostNames
    reserved: frozenset[str]
    banned: frozenset[Subject]
