"""A view that is damaged, older, foreign or writable by others is not believed; the one in use stays."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iam_bridge.errors import ViewError
from iam_bridge.ledger.ledger import Ledger
from iam_bridge.ledger.view import View
from iam_bridge.ledger.view_format import APPLICATION_ID
from iam_bridge.ledger.view_write import write_view
from tests.unit.build import account
from tests.unit.ledgers import commit, create, lock, unlock, with_accounts

PEOPLE = [account(f"s-{n}", f"u{n}", 20000 + n) for n in range(60)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with with_accounts(tmp_path, PEOPLE) as ledger:
        yield ledger


@pytest.fixture
def path(ledger: Ledger, tmp_path: Path) -> Path:
    path = tmp_path / "view" / "view.db"
    write_view(ledger, path)
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ViewError) as caught:
        View(path).reload_if_changed()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_view_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for cut in [*range(0, len(whole), 512), 1, 99, 101, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        assert "is damaged" in _refusal(path)
    path.write_bytes(whole + b"\0" * 4096)
    assert "is damaged" in _refusal(path)
    path.write_bytes(whole)
    View(path).reload_if_changed()


def test_one_wrong_byte_anywhere_is_noticed_when_the_file_is_opened(path: Path) -> None:
    whole = path.read_bytes()
    for place in [*range(100), *range(100, len(whole), 97)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        assert "is damaged" in _refusal(path)


def _sealed(path: Path) -> None:
    """Give a file the checksum that a whole view has; what it holds must then be refused for itself."""
    data = bytearray(path.read_bytes())
    data[60:64] = bytes(4)
    data[60:64] = zlib.crc32(data).to_bytes(4, "big")
    path.write_bytes(data)


def _sql(*statements: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with sqlite3.connect(path, isolation_level=None) as db:
            for statement in statements:
                db.execute(statement)
        db.close()
        _sealed(path)

    return run


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(16384))


def _text(path: Path) -> None:
    path.write_text("root:x:0:0:root:/root:/bin/bash\n" * 500)


def _another_program(path: Path) -> None:
    path.unlink()
    _sql("CREATE TABLE t (x)")(path)


def _only_our_number(path: Path) -> None:
    path.unlink()
    _sql(f"PRAGMA application_id = {APPLICATION_ID}", "CREATE TABLE t (x)")(path)


def _in_use_by_wal(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "random bytes": (_garbage, "is damaged"),
    "a text": (_text, "is damaged"),
    "another program's database": (_another_program, "is no view of IAM bridge"),
    "our number and nothing else": (_only_our_number, "is damaged"),
    "a later format": (_sql("UPDATE meta SET value = '2' WHERE key = 'format'"), "format that this program"),
    "no generation": (_sql("DELETE FROM meta WHERE key = 'generation'"), "format that this program"),
    "a generation that is none": (_sql("UPDATE meta SET value = '-1' WHERE key = 'generation'"), "format that this"),
    "no ledger": (_sql("UPDATE meta SET value = '' WHERE key = 'ledger'"), "format that this program"),
    "no issuers": (_sql("DROP TABLE issuers"), "is damaged"),
    "no accounts": (_sql("DROP TABLE accounts"), "is damaged"),
    "an issuer that is none": (_sql("UPDATE issuers SET url = 'http://evil.example/'"), "is damaged"),
    "a time that is none": (_sql("UPDATE issuers SET taken_at = 'now'"), "is damaged"),
    "changed by another program": (_in_use_by_wal, "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=str)
def test_what_is_no_view_is_refused(path: Path, case: str) -> None:
    spoil, words = BAD[case]
    spoil(path)
    assert words in _refusal(path)


ROWS = {
    "a lock that we do not know": "UPDATE accounts SET locks = 'nope'",
    "an issuer that is not there": "UPDATE accounts SET issuer_id = 99",
    "groups that are no JSON": "UPDATE accounts SET iam_groups = '{'",
    "groups that are a number": "UPDATE accounts SET iam_groups = '7'",
    "groups that are lists": "UPDATE accounts SET iam_groups = '[[]]'",
    "a missing column": "ALTER TABLE accounts DROP COLUMN shell",
}


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_a_row_that_is_none_denies(path: Path, case: str) -> None:
    _sql(ROWS[case])(path)
    view = View(path)
    view.reload_if_changed()
    with pytest.raises(ViewError) as caught:
        view.by_name("u7")
    assert "\n" not in str(caught.value)


def _folder_of_all(path: Path) -> None:
    path.parent.chmod(0o777)


def _file_of_all(path: Path) -> None:
    path.chmod(0o646)


def _file_of_a_group(path: Path) -> None:
    path.chmod(0o664)


def _link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path) -> None:
    path.unlink()


UNSAFE = [_folder_of_all, _file_of_all, _file_of_a_group, _link, _pipe, _folder, _missing, _garbage]


@pytest.mark.parametrize("spoil", UNSAFE, ids=lambda f: f.__name__[1:])
def test_what_others_could_have_written_is_refused_and_the_one_in_use_stays(
    path: Path, spoil: Callable[[Path], None]
) -> None:
    view = View(path)
    view.reload_if_changed()
    assert view.problem == ""
    shutil.copy(path, path.with_name("good"))
    os.replace(path.with_name("good"), path)  # so that what is spoilt is not the file that is open
    spoil(path)
    _refusal(path)
    for _ in range(2):
        view.reload_if_changed()
        assert view.by_name("u7") is not None
        assert str(path.parent) in view.problem


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_is_refused(path: Path) -> None:
    os.chown(path, 65534, 65534)
    assert "belongs to uid 65534" in _refusal(path)
    os.chown(path, 0, 0)
    os.chown(path.parent, 65534, 65534)
    assert "belongs to uid 65534" in _refusal(path)


def _no_descriptor(*_arguments: object, **_options: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files")


def _no_database(*_arguments: object, **_options: object) -> sqlite3.Connection:
    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    raise error


@pytest.mark.parametrize("trouble", ["no descriptors", "no database", "a folder of all"])
def test_what_was_wrong_around_a_new_view_and_is_mended_needs_no_other_view(
    ledger: Ledger, path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(path)
    view.reload_if_changed()
    commit(ledger, lock(PEOPLE[7]))
    write_view(ledger, path)
    with monkeypatch.context() as bad:
        if trouble == "no descriptors":
            bad.setattr(os, "open", _no_descriptor)
        elif trouble == "no database":
            bad.setattr(sqlite3, "connect", _no_database)
        else:
            path.parent.chmod(0o777)
        view.reload_if_changed()
        assert view.problem
    path.parent.chmod(0o755)
    view.reload_if_changed()
    row = view.by_name("u7")
    assert row is not None
    assert not row.account.is_open, "the lock of the new view holds"


def test_an_older_view_does_not_take_the_place_of_the_one_in_use(ledger: Ledger, path: Path) -> None:
    shutil.copy(path, path.with_name("old"))
    commit(ledger, lock(PEOPLE[7]))
    write_view(ledger, path)
    view = View(path)
    view.reload_if_changed()
    os.replace(path.with_name("old"), path)
    view.reload_if_changed()
    row = view.by_name("u7")
    assert row is not None
    assert not row.account.is_open, "the lock still holds"
    assert "is older than the one in use" in view.problem
    commit(ledger, create(account("s-new", "new", 20100)))
    write_view(ledger, path)
    view.reload_if_changed()
    assert view.by_name("new") is not None
    assert view.problem == ""


def test_the_view_of_another_ledger_does_not_take_its_place(path: Path, tmp_path: Path) -> None:
    view = View(path)
    view.reload_if_changed()
    with with_accounts(tmp_path / "other", [account("s-evil", "u7", 20007)]) as other:
        for _ in range(5):
            commit(other, lock(account("s-evil", "u7", 20007)))
            commit(other, unlock(account("s-evil", "u7", 20007)))
        path.unlink()
        write_view(other, path)
    view.reload_if_changed()
    row = view.by_name("u7")
    assert row is not None
    assert row.account.subject == PEOPLE[7].subject
    assert "of another ledger" in view.problem


def test_a_service_that_starts_before_the_first_run_waits_for_it(ledger: Ledger, tmp_path: Path) -> None:
    late = tmp_path / "late" / "view.db"
    view = View(late)
    for _ in range(2):
        with pytest.raises(ViewError, match="No such file"):
            view.reload_if_changed()
    write_view(ledger, late)
    view.reload_if_changed()
    assert view.by_name("u7") is not None


def test_a_bad_file_is_looked_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _garbage(path)
    view = View(path)
    with pytest.raises(ViewError):
        view.reload_if_changed()
    monkeypatch.setattr("iam_bridge.ledger.view._check_whole", None)
    with pytest.raises(ViewError, match="is damaged"):
        view.reload_if_changed()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Give a folder that other accounts can reach; pytest's own are closed, and closed again by each worker."""
    folder = Path(tempfile.mkdtemp(prefix="view-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_unprivileged_service_reads_what_root_wrote(ledger: Ledger, reachable: Path) -> None:
    path = reachable / "view" / "view.db"
    write_view(ledger, path, gid=65534)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            view = View(path)
            view.reload_if_changed()
            row = view.by_name("u7")
            os._exit(0 if row and row.account == PEOPLE[7] and row.members_taken_at is None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["view.db", "view.fresh"]
