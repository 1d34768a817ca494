"""Killed at any step, the ledger is as before or as after; the next opening needs no help."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iam_bridge.ledger import db as db_module
from iam_bridge.ledger import files
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.view import View
from iam_bridge.ledger.view_write import write_view
from tests.unit.build import GPU, NOW, account
from tests.unit.ledgers import GROUPS, create, join, lock, open_ledger, with_accounts

ADA, BOB = account(), account("s-bob", "bob", 20001)
KILLED = 77


class _Dying(sqlite3.Connection):
    """A connection whose process dies just before its nth statement, or just after it."""

    left = 0
    after = False

    def _step(self, run: Callable[[], Any]) -> Any:
        type(self).left -= 1
        if type(self).left == 0 and not type(self).after:
            os._exit(KILLED)
        done = run()
        if type(self).left == 0:
            os._exit(KILLED)
        return done

    def execute(self, *args: Any) -> Any:
        return self._step(lambda: super(_Dying, self).execute(*args))

    def executemany(self, *args: Any) -> Any:
        return self._step(lambda: super(_Dying, self).executemany(*args))


def _run_and_die(path: Path, step: int, *, after: bool, work: Callable[[Ledger], None]) -> bool:
    """Do the work in a child that dies at a statement; tell whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            real = sqlite3.connect
            sqlite3.connect = lambda *args, **kw: real(*args, **kw, factory=_Dying)  # type: ignore[assignment]
            _Dying.left, _Dying.after = step, after
            work(Ledger.open(path))
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED), f"step {step}: the child failed"
    return status == 0


@pytest.mark.parametrize("after", [False, True], ids=["before a statement", "after a statement"])
def test_a_commit_is_whole_or_not_there(tmp_path: Path, after: bool) -> None:
    with with_accounts(tmp_path, [ADA]) as ledger:
        path = ledger.path
        run_id = ledger.start_run(NOW, "x")
        ledger.add_ban(NOW, "root", name="bob")
        before = ledger.read_state(NOW)
        (tmp_path / "pristine").mkdir(mode=0o700)
        ledger.backup(tmp_path / "pristine" / "ledger.db")

    def work(opened: Ledger) -> None:
        opened.commit(run_id, [create(BOB), lock(ADA), join(ADA, GPU)], now=NOW, saved_expiry={ADA.name: ""}, by="x")

    work(Ledger.open(tmp_path / "pristine" / "ledger.db"))
    with Ledger.open(tmp_path / "pristine" / "ledger.db") as done:
        whole = done.read_state(NOW)
    outcomes = []
    for step in range(1, 200):
        ended = _run_and_die(path, step, after=after, work=work)
        with Ledger.open(path) as ledger:
            state = ledger.read_state(NOW)
            assert ledger.verify() == ()
        assert state in (before, whole), f"step {step}"
        outcomes.append(state == whole)
        if state == whole:
            break
        assert not ended, f"step {step}: the work ended and is not there"
    assert outcomes[-1], "the commit was reached"
    assert len(outcomes) > 20, "the steps were iterated over"


def test_a_ledger_killed_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.db"
    for step in range(1, 200):
        _run_and_die(path, step, after=False, work=lambda ledger: None)
        if path.exists():
            break
    assert step > 20
    with open_ledger(tmp_path) as ledger:
        ledger.commit(0, [*GROUPS, create(ADA)], now=NOW, saved_expiry={}, by="x")
        assert ledger.verify() == ()


STEPS_OF_A_REPLACEMENT = ("os.fchmod", "os.fsync", "os.rename", "sync_folder")


@pytest.mark.parametrize("name", STEPS_OF_A_REPLACEMENT)
def test_a_view_killed_while_it_was_written_is_the_old_or_the_new_one(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view_path = tmp_path / "view" / "view.db"
    with with_accounts(tmp_path, [ADA]) as ledger:
        write_view(ledger, view_path)
        path = ledger.path
    pid = os.fork()
    if pid == 0:
        ledger = Ledger.open(path)
        ledger.commit(0, [create(BOB)], now=NOW, saved_expiry={}, by="x")
        owner, attribute = (os, name[3:]) if name.startswith("os.") else (files, name)
        monkeypatch.setattr(owner, attribute, lambda *args: os._exit(KILLED))
        write_view(ledger, view_path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED
    view = View(view_path)
    view.reload_if_changed()
    renamed = name == "sync_folder"
    assert (view.by_name("bob") is not None) == renamed
    with Ledger.open(path) as ledger:
        write_view(ledger, view_path)
    view.reload_if_changed()
    assert view.by_name("bob") is not None
    assert sorted(path.name for path in view_path.parent.iterdir()) == ["view.db", "view.fresh"], (
        "nothing is left behind"
    )


def test_a_failed_commit_statement_ends_the_transaction(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger, ledger.reading() as db:
        db.execute("COMMIT")
        with contextlib.suppress(ZeroDivisionError), db_module.transaction(db):
            db.execute("INSERT INTO issuers (url) VALUES ('x')")
            raise ZeroDivisionError
        assert not db.in_transaction
        assert db.execute("SELECT count(*) FROM issuers").fetchone() == (0,)
