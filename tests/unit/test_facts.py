"""What a plan asks of a directory that answers for names and numbers and lists none (sssd, nslcd)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from iam_bridge.ledger.ledger import Ledger
from iam_bridge.model.change import CreateAccount, CreateGroup, Plan
from iam_bridge.model.identity import Issuer, MemberSnapshot
from iam_bridge.settings import read_settings
from provisioner import facts, hostnames
from provisioner.facts import Site, make_plan
from provisioner.hostnames import HostPaths
from provisioner.stores.files import FilesStore
from tests.functional.site import FIRST, ISSUER, Scratch
from tests.unit.build import member

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)


def plan_beside(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, numbers: Collection[int] = (), names: Collection[str] = ()
) -> Plan:
    """Plan an account for ada on a host whose directory has these numbers and names."""

    def find(key: int | str) -> SimpleNamespace:
        if key in numbers or key in names:
            return SimpleNamespace(pw_uid=7, gr_gid=7)
        raise KeyError(key)

    nsswitch = folder / "nsswitch.conf"
    nsswitch.write_text("passwd: files sss\ngroup: files sss\n")
    monkeypatch.setattr(facts, "NSSWITCH", nsswitch)
    monkeypatch.setattr(hostnames, "pwd", SimpleNamespace(getpwall=list, getpwnam=find, getpwuid=find))
    monkeypatch.setattr(hostnames, "grp", SimpleNamespace(getgrall=list, getgrnam=find, getgrgid=find))
    settings = read_settings(Scratch(folder).settings)
    store = FilesStore(settings.accounts, journal=settings.paths.journal, today=lambda: 20000)
    people = MemberSnapshot(Issuer.parse(ISSUER), (member(),), frozenset({"hpc/users", "hpc/gpu"}), NOW, complete=True)
    with Ledger.open(settings.paths.ledger) as ledger:
        _, plan = make_plan(Site(settings, ledger, store, HostPaths(folder / "mail", folder / "cron")), (people,), NOW)
    return plan


def numbers_of(plan: Plan) -> list[int]:
    """Give the numbers that a plan would give."""
    accounts = [change.account for change in plan.changes if isinstance(change, CreateAccount)]
    groups = [change.gid for change in plan.changes if isinstance(change, CreateGroup)]
    return [*groups, *(number for account in accounts for number in (account.uid, account.gid))]


@pytest.mark.parametrize("count", [0, 1, 5, 40, 400])
def test_no_number_of_a_directory_is_given_however_many_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    busy = range(FIRST, FIRST + count)
    plan = plan_beside(tmp_path, monkeypatch, numbers=busy)
    assert not set(numbers_of(plan)) & set(busy)
    assert numbers_of(plan) or any("no number is given" in remark for remark in plan.remarks)


def test_a_name_of_a_directory_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_beside(tmp_path, monkeypatch, names={"ada", "hpcgpu"})
    (account,) = [change.account for change in plan.changes if isinstance(change, CreateAccount)]
    assert account.name.text == f"u{account.uid}"
    assert [change.group.text for change in plan.changes if isinstance(change, CreateGroup)] == ["hpcusers"]
