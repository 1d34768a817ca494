"""One table of verdicts, read from both sides: what C was compiled with is what Python says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pam_module.wire import Phase, Reply, Status, read_verdicts
from tests.pam.conftest import LOCAL, OURS, Bench
from tests.pam.libpam import Pam, Transaction, whole
from tests.pam.stand_in import in_phase, permits, says

DUMP = """
#include <stdio.h>
#include <stddef.h>
#include <security/pam_modules.h>
#include "verdicts.h"
int main(void)
{
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        for (int phase = 1; phase <= PHASES; phase++)
            printf("%d %s %d %s %d\\n", verdicts[i].code, verdicts[i].name, phase, phase_names[phase],
                   verdicts[i].pam[phase - 1]);
    return 0;
}
"""
STEPS = {
    Phase.AUTH: Transaction.authenticate,
    Phase.ACCOUNT: Transaction.acct_mgmt,
    Phase.OPEN_SESSION: Transaction.open_session,
    Phase.CLOSE_SESSION: Transaction.close_session,
}


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    """The values of the PAM_ names as the installed header has them."""
    text = subprocess.run(
        ["cc", "-E", "-dM", "-include", "security/pam_modules.h", "-x", "c", "/dev/null"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {name: int(value) for name, value in re.findall(r"^#define (PAM_\w+) (\d+)$", text, re.MULTILINE)}


def test_c_and_python_have_the_same_table(module: Path, tmp_path: Path, numbers: dict[str, int]) -> None:
    source = tmp_path / "dump.c"
    source.write_text(DUMP)
    subprocess.run(["cc", "-I", module.parent, source, "-o", tmp_path / "dump"], check=True)
    dumped = subprocess.run([tmp_path / "dump"], check=True, capture_output=True, text=True).stdout.splitlines()
    expected = [
        f"{status:d} {status.name.lower()} {phase:d} {phase.name.lower()} {numbers[word or 'PAM_AUTHINFO_UNAVAIL']}"
        for status, words in read_verdicts().items()
        for phase, word in words.items()
    ]
    assert dumped == expected
    assert len(dumped) == len(Status) * len(Phase)


def test_every_status_has_a_row_and_only_permit_is_success() -> None:
    table = read_verdicts()
    assert set(table) == set(Status)
    successes = {(s, p) for s, words in table.items() for p, word in words.items() if word == "PAM_SUCCESS"}
    assert successes == {(Status.PERMIT, phase) for phase in STEPS} | {(Status.PROMPT, Phase.WHO)}


def test_the_harness_has_the_numbers_of_the_header(numbers: dict[str, int]) -> None:
    assert {value.name: value.value for value in Pam} == {value.name: numbers[f"PAM_{value.name}"] for value in Pam}


@pytest.mark.parametrize("phase", STEPS, ids=lambda phase: phase.name)
@pytest.mark.parametrize("status", Status, ids=lambda status: status.name)
def test_the_module_returns_what_the_table_says(
    bench: Bench, status: Status, phase: Phase, numbers: dict[str, int]
) -> None:
    # With return=… of every value mapped to die, what the module returned is what the application sees.
    line = f"[success=ok ignore=ignore default=die] {bench.module} {bench.options()}"
    after = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n"
    (bench.confdir / "iam").write_text(f"auth {line}\naccount {line}\nsession {line}\n{after}")
    reply = Reply(status, OURS.pw_uid, OURS.pw_name)
    bench.serve(in_phase(phase, says({phase: reply}), permits(OURS.pw_name, OURS.pw_uid)))
    word = read_verdicts()[status][phase] or "PAM_AUTHINFO_UNAVAIL"
    expected = Pam.SUCCESS if word == "PAM_IGNORE" else numbers[word]
    user = LOCAL.pw_name if status is Status.FOREIGN else OURS.pw_name  # nobody of ours is left to others
    assert STEPS[phase](bench.start(user, whole(b"token"))) == expected


@pytest.mark.parametrize(
    "row",
    [
        "8\tnew\tPAM_SUCCESS",
        "0\tnew" + "\tPAM_IGNORE" * 5,
        "256\tnew" + "\tPAM_IGNORE" * 5,
        "1\tnew" + "\tPAM_IGNORE" * 5,
    ],
    ids=["too few columns", "code zero", "a code above a byte", "a code twice"],
)
def test_a_row_that_cannot_be_right_stops_the_build(tmp_path: Path, row: str) -> None:
    source = Path(__file__).parents[2] / "pam_module"
    table = tmp_path / "verdicts.tsv"
    table.write_text((source / "verdicts.tsv").read_text() + row + "\n")
    done = subprocess.run(["awk", "-f", source / "verdicts.awk", table], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"verdicts.tsv:{len(Status) + 2}: ")
