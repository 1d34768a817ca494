"""The caches of the name service are told of changes to the host's own files, and of no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner import caches
from provisioner.caches import flush_caches


@pytest.fixture
def programs(tmp_path: Path) -> list[Path]:
    made = []
    for name in ("nscd", "sss_cache"):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >> {tmp_path}/calls\n')
        path.chmod(0o755)
        made.append(path)
    return made


def test_both_caches_are_told(programs: list[Path], tmp_path: Path) -> None:
    assert flush_caches(Path("/etc"), programs) == ()
    assert (tmp_path / "calls").read_text().split("\n") == ["nscd -i passwd", "nscd -i group", "sss_cache -U -G", ""]


def test_a_scratch_folder_is_no_business_of_theirs(programs: list[Path], tmp_path: Path) -> None:
    assert flush_caches(tmp_path, programs) == ()
    assert not (tmp_path / "calls").exists()


def test_a_cache_that_is_not_there_needs_no_word(tmp_path: Path) -> None:
    assert flush_caches(Path("/etc"), [tmp_path / "nscd"]) == ()


def test_a_cache_that_fails_or_hangs_is_a_remark(programs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    programs[0].write_text("#!/bin/sh\nexit 3\n")
    programs[1].write_text("#!/bin/sh\nexec sleep 5\n")
    monkeypatch.setattr(caches, "TIMEOUT_S", 0.2)
    remarks = flush_caches(Path("/var/lib/extrausers"), programs)
    assert len(remarks) == 3
    assert "status 3" in remarks[0]
    assert "TimeoutExpired" in remarks[2]
