"""The measurements measure what they say; how fast anything is, no test says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from pam_module.wire import Reply, Request, Status, encode_reply
from tests.bench import __main__ as bench
from tests.bench import context, verdict
from tests.bench.load import auth_request, compile_c, put_load, write_frames
from tests.bench.measure import bent_by, quantile, slope, timed
from tests.bench.table import MAIN_JOB, Line, Row, show_number, write_rows
from tests.bench.watch import watched
from tests.pam.stand_in import Behaviour, StandIn

ROOT = Path(__file__).parents[2]
FIELDS = {"table", "name", "value", "unit", "beside", "ratio", "must", "met"}
TABLE = {
    "verdict": 2,
    "transaction": 1,
    "parts": 1,
    "throughput": 3,
    "hang": 2,
    "scale": 2,
    "start": 1,
    "pull": 2,
    "apply": 3,
}


def test_every_line_of_the_table_has_rows() -> None:
    lines = {name: len(one.lines) for name, one in bench.MEASUREMENTS.items()}
    assert lines == TABLE
    names = [line.name for one in bench.MEASUREMENTS.values() for line in one.lines]
    assert len(set(names)) == len(names)


# In a process of its own, because it forks. Few people and tokens, so that it takes a second.
SMALL = """
import sys
from tests.bench import __main__ as bench, context, verdict
context.MANY, verdict.TOKENS, verdict.WARM_UP = 20, 20, 2
sys.exit(bench.main(["verdict", "--out", sys.argv[1]]))
"""


def test_the_cheapest_measurement_fills_its_lines(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bench.json"
    done = subprocess.run(
        [sys.executable, "-c", SMALL, out], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())
    assert [row["name"] for row in rows] == [line.name for line in verdict.LINES]
    assert all(row["must"] in done.stdout for row in rows)
    for row in rows:
        assert row.keys() == FIELDS
        assert row["table"] == MAIN_JOB
        assert row["value"] > 0
        assert row["ratio"] > 1, "a verdict includes the check that runs beside it"
        assert isinstance(row["met"], bool)


def test_a_measurement_that_fails_gives_rows_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_context: context.Context) -> list[Row]:
        raise RuntimeError("no such luck")

    lines = (Line("one", "ms", "value", "<", 1), Line("two", "ms", "value", "<", 1))
    monkeypatch.setitem(bench.MEASUREMENTS, "verdict", bench.Measurement(lines, fail))
    rows = bench.take(["verdict"], Console(quiet=True))
    assert [(row.name, row.value, row.met) for row in rows] == [("one", None, False), ("two", None, False)]
    assert all("no such luck" in row.beside for row in rows)


JUDGED = [
    (Line("a value below its bound", "ms", "value", "<", 2), 1.9, None, "value < 2 ms", True),
    (Line("a value on a strict bound", "ms", "value", "<", 2), 2.0, None, "value < 2 ms", False),
    (Line("a value on its bound", "ms", "value", "<=", 2), 2.0, None, "value <= 2 ms", True),
    (Line("a rate above its bound", "/s", "value", ">=", 2000), 2500, 0.1, "value >= 2000 /s", True),
    (Line("a rate below its bound", "/s", "value", ">=", 2000), 1999, 9.0, "value >= 2000 /s", False),
    (Line("a ratio, whatever the value", "ms", "ratio", "<=", 4), 1e6, 4.0, "ratio <= 4", True),
    (Line("a ratio above its bound", "ms", "ratio", "<=", 4), 0.001, 4.1, "ratio <= 4", False),
    (Line("a ratio that nobody gave", "ms", "ratio", "<=", 4), 0.001, None, "ratio <= 4", False),
    (Line("a count of nothing", "", "value", "<=", 0), 0, None, "value <= 0", True),
]


@pytest.mark.parametrize(("line", "value", "ratio", "must", "met"), JUDGED, ids=[case[0].name for case in JUDGED])
def test_a_row_is_judged_by_its_own_bound(line: Line, value: float, ratio: float | None, must: str, met: bool) -> None:
    row = line.measured(value, "beside", ratio)
    assert (row.must, row.met) == (must, met)


def test_rows_are_written_as_json_that_keeps_small_numbers(tmp_path: Path) -> None:
    line = Line("what", "s", "ratio", "<=", 0.05)
    write_rows(tmp_path / "b.json", [line.measured(0.00012345678, "x", 0.004567891), line.not_measured("why")])
    first, second = json.loads((tmp_path / "b.json").read_text())
    assert (first["value"], first["ratio"], first["met"]) == (0.0001235, 0.004568, True)
    assert (second["value"], second["ratio"], second["met"], second["beside"]) == (
        None,
        None,
        False,
        "not measured: why",
    )


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.1234, "0.123"), (12.345, "12.3"), (3472.4, "3,472"), (40, "40")]
)
def test_numbers_are_shown_short(value: float | None, text: str) -> None:
    assert show_number(value) == text


def test_a_slope_is_the_rise_of_the_line_and_its_noise_what_lies_off_it() -> None:
    straight = [(4, 100.0), (8, 120.0), (12, 140.0), (16, 160.0)]
    assert slope(straight) == pytest.approx(5)
    assert bent_by(straight) == pytest.approx(0)
    assert bent_by([(0, 0.0), (1, 3.0), (2, 0.0)]) == pytest.approx(2)


def test_a_quantile_is_a_value_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (51, 100, 100)


def test_a_span_counts_the_processor_of_children() -> None:
    with timed() as span:
        subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], check=True)
    assert span.cpu_s > 0
    assert span.wall_s > 0


def test_every_way_to_write_into_a_folder_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    path.write_text("x")
    with watched(tmp_path) as none:
        path.read_text()
    assert none == []
    writes: list[Callable[[], object]] = [
        partial(path.write_text, "y"),
        partial(os.chmod, path, 0o600),
        (tmp_path / "passwd.new").touch,
        partial(os.rename, tmp_path / "passwd.new", path),
        partial(os.utime, path),
        path.unlink,
    ]
    for write in writes:
        with watched(tmp_path) as changes:
            write()
        assert changes
        assert all(name.startswith("passwd") for name in changes)


def permit_all_but(refused: bytes) -> Behaviour:
    """Let everybody in but the one who presents this."""

    def behave(connection: socket.socket, request: Request, _over: threading.Event) -> None:
        status = Status.DENY if request.secret == refused else Status.PERMIT
        connection.sendall(encode_reply(Reply(status, 20001, "ada")))

    return behave


def test_the_load_sends_each_frame_once_and_counts_who_is_let_in(tmp_path: Path) -> None:
    program = compile_c(Path(context.__file__).with_name("load.c"), tmp_path)
    path, frames = tmp_path / "s", tmp_path / "frames"
    write_frames(frames, (auth_request("ada", 20001, f"token-{n}") for n in range(30)))
    with StandIn(path, permit_all_but(b"token-25")) as daemon:
        result = put_load(program, path, frames, first=5, count=20, clients=4)
        assert (result.permits, result.others) == (20, 0)
        assert 0 < result.median_us <= result.p99_us
        assert sorted(one.secret for one in daemon.requests) == sorted(b"token-%d" % n for n in range(5, 25))
        with pytest.raises(RuntimeError, match="1 of 2 good tokens were not let in"):
            put_load(program, path, frames, first=24, count=2, clients=4)


@pytest.mark.parametrize(
    ("first", "count", "why"), [(0, 1, "connect"), (2, 2, "too few frames")], ids=["no daemon", "no such frames"]
)
def test_a_load_that_cannot_be_put_says_why(tmp_path: Path, first: int, count: int, why: str) -> None:
    program = compile_c(Path(context.__file__).with_name("load.c"), tmp_path)
    write_frames(tmp_path / "frames", (auth_request("ada", 20001, f"token-{n}") for n in range(3)))
    with pytest.raises(RuntimeError, match=why):
        put_load(program, tmp_path / "s", tmp_path / "frames", first=first, count=count, clients=1)
