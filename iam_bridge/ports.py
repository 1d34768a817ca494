"""What the core asks of the world outside, in small protocols."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from iam_bridge.model.identity import Issuer, MemberSnapshot
from iam_bridge.model.state import StoreReport, StoreSnapshot, Wanted


class Clock(Protocol):
    """Tells the time, always with its zone (UTC)."""

    def __call__(self) -> datetime: ...


class MemberSource(Protocol):
    """Lists the members of one issuer.

    Raises SourceUnavailable when there is no usable answer at all; an answer that is not whole comes back with
    `complete=False` and the reason.
    """

    @property
    def issuer(self) -> Issuer: ...

    def fetch_members(self) -> MemberSnapshot: ...


class AccountStore(Protocol):
    """Holds accounts where the operating system looks for them.

    `converge` makes the store say what is wanted of *ours* and touches nothing else; it is idempotent, writes nothing
    when there is nothing to do, and after an interruption at any point the next call completes the work. Both raise
    StoreError.
    """

    def read(self) -> StoreSnapshot: ...

    def converge(self, wanted: Wanted) -> StoreReport: ...
