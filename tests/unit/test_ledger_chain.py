"""Receipts as JSON lines: a chain that goes on after a crash and shows every change made to it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from iam_bridge.errors import BridgeError, LedgerError, RunLocked
from iam_bridge.ledger.chain import GENESIS, LINE_MAX, ChainWriter, hash_of, verify_lines
from tests.unit.build import NOW

RECORD: dict[str, str | int] = {
    "at": "2026-05-03T12:00:00.000000Z",
    "kind": "login",
    "verdict": "permit",
    "uid": 20000,
    "text": "zoë ☃",
}


def _write(path: Path, count: int = 3) -> None:
    writer = ChainWriter.open(path, now=NOW)
    for number in range(count):
        writer.append({**RECORD, "number": number})
    writer.close()


def _records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_carries_the_hash_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    _write(path)
    lines = _records(path)
    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert [line["prev"] for line in lines] == [GENESIS, lines[0]["hash"], lines[1]["hash"]]
    for line in lines:
        assert line.pop("hash") == hash_of(line)
    assert lines[1]["text"] == "zoë ☃"
    assert path.read_bytes().isascii()
    assert verify_lines(path) == ()
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    _write(path)
    writer = ChainWriter.open(path, now=NOW)
    assert (writer.seq, writer.head) == (3, _records(path)[-1]["hash"])
    writer.append(RECORD)
    writer.sync()
    writer.close()
    assert [line["seq"] for line in _records(path)] == [1, 2, 3, 4]
    assert verify_lines(path) == ()


def test_wherever_a_line_is_torn_the_chain_goes_on_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    _write(path)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last + 1, len(whole)):
        path.write_bytes(whole[:cut])
        (tmp_path / "receipts.jsonl.torn").unlink(missing_ok=True)
        ChainWriter.open(path, now=NOW).close()
        lines = _records(path)
        assert [line["seq"] for line in lines] == [1, 2, 3]
        assert lines[2]["kind"] == "torn"
        assert f"{cut - last} bytes" in str(lines[2]["detail"])
        assert (tmp_path / "receipts.jsonl.torn").read_bytes() == whole[last:cut] + b"\n", "nothing is lost"
        assert verify_lines(path) == ()


@pytest.mark.parametrize(
    "damage", [bytes(4096), b"{}\n", b'{"seq":4}\n\n\n', b"\xff\n" * 100], ids=["zeros", "no hash", "blank", "binary"]
)
def test_a_damaged_tail_is_moved_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "receipts.jsonl"
    _write(path)
    with path.open("ab") as file:
        file.write(damage)
    ChainWriter.open(path, now=NOW).close()
    assert [line["seq"] for line in _records(path)] == [1, 2, 3, 4]
    assert verify_lines(path) == ()
    assert (tmp_path / "receipts.jsonl.torn").read_bytes() == damage + b"\n"


@pytest.mark.parametrize("content", [b"hello", b"\0" * 100_000, b"x\n" * 500_000], ids=["text", "zeros", "long"])
def test_a_file_without_a_receipt_is_kept_and_a_new_chain_says_where(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "receipts.jsonl"
    for number in range(2):
        path.write_bytes(content)
        path.chmod(0o600)
        ChainWriter.open(path, now=NOW).close()
        aside = tmp_path / ("receipts.jsonl.damaged" + (f".{number}" if number else ""))
        assert aside.read_bytes() == content
        (line,) = _records(path)
        assert line["prev"] == GENESIS
        assert str(aside) in str(line["detail"])
        assert verify_lines(path) == ()


def _flip(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b"permit", b"denied")


def _drop(lines: list[bytes]) -> None:
    del lines[1]


def _swap(lines: list[bytes]) -> None:
    lines[1], lines[2] = lines[2], lines[1]


def _forge(lines: list[bytes]) -> None:
    record = json.loads(lines[1])
    record["verdict"] = "denied"
    record.pop("hash")
    body = json.dumps(record, sort_keys=True, separators=(",", ":"))
    lines[1] = (body[:-1] + f',"hash":"{hash_of(record)}"}}\n').encode()


def _renumber(lines: list[bytes]) -> None:
    record = json.loads(lines[-1])
    record["seq"] += 1
    record.pop("hash")
    body = json.dumps(record, sort_keys=True, separators=(",", ":"))
    lines[-1] = (body[:-1] + f',"hash":"{hash_of(record)}"}}\n').encode()


def _space(lines: list[bytes]) -> None:
    lines[1] = lines[1].replace(b":", b": ", 1)


def _tear(lines: list[bytes]) -> None:
    lines[-1] = lines[-1][:-20]


def _insert(lines: list[bytes]) -> None:
    lines.insert(2, b"x" * (LINE_MAX * 3) + b"\n")


@pytest.mark.parametrize(
    "spoil", [_flip, _drop, _swap, _forge, _renumber, _space, _tear, _insert], ids=lambda f: f.__name__[1:]
)
def test_every_tampering_is_found(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "receipts.jsonl"
    _write(path, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    spoil(lines)  # type: ignore[operator]
    path.write_bytes(b"".join(lines))
    findings = verify_lines(path)
    assert findings
    assert all(finding.hint and str(path) in finding.what for finding in findings)


def test_a_file_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    (finding,) = verify_lines(tmp_path / "none")
    assert finding.code == "receipts-unreadable"


@pytest.mark.parametrize(
    "record",
    [{"seq": 1}, {"prev": "x"}, {"hash": "x"}, {"x": float("nan")}, {"x": object()}, {"x": "y" * LINE_MAX}],
    ids=["seq", "prev", "hash", "not a number", "no JSON", "too long"],
)
def test_a_record_that_is_none_is_refused_and_the_chain_goes_on(tmp_path: Path, record: dict[str, str]) -> None:
    path = tmp_path / "receipts.jsonl"
    writer = ChainWriter.open(path, now=NOW)
    writer.append(RECORD)
    with pytest.raises(LedgerError):
        writer.append(record)
    writer.append(RECORD)
    writer.close()
    assert [line["seq"] for line in _records(path)] == [1, 2]
    assert verify_lines(path) == ()


@pytest.mark.parametrize("written", [0, 1, 40], ids="{} bytes fit".format)
def test_a_full_disk_leaves_no_half_line(tmp_path: Path, written: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "receipts.jsonl"
    writer = ChainWriter.open(path, now=NOW)
    writer.append(RECORD)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:written]))
    with pytest.raises(LedgerError, match="takes no receipt"):
        writer.append(RECORD)
    monkeypatch.undo()
    writer.append(RECORD)
    writer.close()
    assert [line["seq"] for line in _records(path)] == [1, 2]
    assert verify_lines(path) == ()


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    writer = ChainWriter.open(path, now=NOW)
    with pytest.raises(RunLocked, match="another process"):
        ChainWriter.open(path, now=NOW)
    writer.close()
    ChainWriter.open(path, now=NOW).close()


def test_what_others_may_write_is_no_file_for_receipts(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    path.touch()
    path.chmod(0o622)
    with pytest.raises(BridgeError, match="can be written by others"):
        ChainWriter.open(path, now=NOW)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError):
        ChainWriter.open(path, now=NOW)
    with pytest.raises(LedgerError, match="cannot be used for receipts"):
        ChainWriter.open(tmp_path / "no" / "folder", now=NOW)
    assert not (tmp_path / "elsewhere").exists()


def test_killed_while_it_writes_the_chain_holds(tmp_path: Path) -> None:
    path = tmp_path / "receipts.jsonl"
    for _ in range(5):
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            writer = ChainWriter.open(path, now=NOW)
            while True:
                writer.append(RECORD)
                os.write(tell, b"x")
        os.read(ready, 20)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(tell)
        os.close(ready)
    ChainWriter.open(path, now=NOW).close()
    assert len(_records(path)) > 5
    assert verify_lines(path) == ()
