"""`iam-bridge map audit` on real files: each thing that is broken is found, named, and nothing else is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.functional.site import FIRST, IS_ROOT, LAST, Scratch

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="homes are given away")

ADA = FIRST + 2


def edit(site: Scratch, name: str, old: str, new: str) -> None:
    """Do what an editor does to a file of the host."""
    text = site.etc(name).read_text()
    assert old in text
    site.etc(name).write_text(text.replace(old, new))


def replace_home(site: Scratch) -> None:
    home = site.folder / "home" / "ada"
    home.rmdir()
    home.symlink_to("/etc")


def leave_leftover(site: Scratch) -> None:
    (site.folder / "home" / "old-ada").mkdir()
    os.chown(site.folder / "home" / "old-ada", ADA, ADA)


def leave_unowned(site: Scratch) -> None:
    (site.folder / "home" / "gone").mkdir()
    os.chown(site.folder / "home" / "gone", FIRST + 900, FIRST + 900)


def expire(site: Scratch) -> None:
    rows = site.etc("shadow").read_text().splitlines()
    rows = [":".join([*row.split(":")[:7], "10000", ""]) if row.startswith("ada:") else row for row in rows]
    site.etc("shadow").write_text("\n".join(rows) + "\n")


def unlock_in_shadow(site: Scratch) -> None:
    assert site.bridge("map", "lock", "ada", "--reason", "x").status == 0
    rows = site.etc("shadow").read_text().splitlines()
    rows = [":".join([*row.split(":")[:7], "", ""]) if row.startswith("ada:") else row for row in rows]
    site.etc("shadow").write_text("\n".join(rows) + "\n")


def suspend_list(site: Scratch) -> None:
    site.people.path.unlink()
    assert site.bridge("provision", "run").status == 75


def refuse_somebody(site: Scratch) -> None:
    site.settings.write_text(site.settings.read_text().replace(f"[{FIRST}, {LAST}]", f"[{FIRST}, {FIRST + 3}]"))
    site.people.put("linus")
    assert site.bridge("provision", "run").status == 0


BREAKAGES: list[tuple[str, Callable[[Scratch], object], str]] = [
    (
        "a row is gone",
        lambda s: edit(s, "passwd", f"ada:x:{ADA}", f"xda:x:{ADA}"),
        "row-missing nss-missing uid-shared",
    ),
    ("another uid", lambda s: edit(s, "passwd", f"ada:x:{ADA}:", "ada:x:1234:"), "nss-uid uid-drift"),
    ("another gid", lambda s: edit(s, "passwd", f"ada:x:{ADA}:{ADA}", f"ada:x:{ADA}:100"), "gid-drift nss-gid"),
    (
        "a shell that is none",
        lambda s: edit(s, "passwd", "home/ada:/bin/bash", "home/ada:/usr/bin/evil"),
        "shell-drift",
    ),
    ("another home", lambda s: edit(s, "passwd", "home/ada:", "home/adb:"), "home-drift"),
    ("no shadow row", lambda s: edit(s, "shadow", "ada:", "#da:"), "shadow-missing"),
    ("an expiry of somebody else", expire, "expiry-not-ours"),
    ("locked here, open in shadow", unlock_in_shadow, "lock-missing"),
    ("taken out of a group", lambda s: edit(s, "group", "ada,grace", "grace"), "right-no-member"),
    (
        "put into a group",
        lambda s: edit(s, "group", f"hpcgpu:*:{FIRST + 1}:", f"hpcgpu:*:{FIRST + 1}:ada"),
        "member-no-right",
    ),
    ("another gid of a group", lambda s: edit(s, "group", f"hpcusers:*:{FIRST}", "hpcusers:*:1234"), "group-drift"),
    ("a group is gone", lambda s: edit(s, "group", "hpcusers:", "xpcusers:"), "group-missing"),
    ("no home", lambda s: (s.folder / "home" / "ada").rmdir(), "home-missing"),
    ("a link for a home", replace_home, "home-no-folder"),
    ("a home of root's", lambda s: os.chown(s.folder / "home" / "ada", 0, 0), "home-owner"),
    ("a home that others write", lambda s: (s.folder / "home" / "ada").chmod(0o777), "home-open"),
    ("a second home", leave_leftover, "leftover"),
    ("files of nobody", leave_unowned, "no-owner"),
    (
        "a stranger of our range",
        lambda s: edit(s, "passwd", "nobody:x", f"stray:x:{FIRST + 800}:1::/:/bin/sh\nnobody:x"),
        "orphan",
    ),
    (
        "the same number twice",
        lambda s: edit(s, "passwd", "nobody:x", f"stray:x:{ADA}:1::/:/bin/sh\nnobody:x"),
        "uid-shared",
    ),
    ("no answer of the source", suspend_list, "list-incomplete"),
    ("no number left", refuse_somebody, "no-account"),
    ("no view", lambda s: (s.folder / "view" / "view.db").unlink(), "view-unusable"),
    ("no ban list", lambda s: (s.folder / "view" / "bans").unlink(), "bans-unusable"),
    ("a ban list of others", lambda s: (s.folder / "view" / "bans").chmod(0o666), "bans-unusable"),
    ("a journal that was left", lambda s: (s.folder / "state" / "journal").write_text("x"), "journal"),
]


@pytest.mark.parametrize(("breakage", "codes"), [b[1:] for b in BREAKAGES], ids=[b[0] for b in BREAKAGES])
def test_what_is_broken_is_found_and_nothing_else(
    filled: Scratch, breakage: Callable[[Scratch], object], codes: str
) -> None:
    clean = filled.bridge("map", "audit", nss=True)
    assert (clean.status, clean.out) == (0, "no findings: all is as it should be\n")
    breakage(filled)
    ran = filled.bridge("map", "audit", "--json", nss=True)
    assert ran.status == 1
    found = ran.json()
    assert sorted({row["code"] for row in found}) == sorted(codes.split()), found
    assert all(row["what"] and row["todo"] for row in found)


def test_who_is_banned_and_still_runs_is_found(filled: Scratch) -> None:
    assert filled.bridge("ban", "add", "ada").status == 0
    with subprocess.Popen(["sleep", "300"], user=ADA, group=ADA, extra_groups=()) as process:
        ran = filled.bridge("map", "audit", nss=True)
        assert ran.status == 1
        assert "it is banned, and 1 processes run" in ran.out
        assert filled.bridge("provision", "run").status == 0
        assert process.wait(5) < 0
    assert filled.bridge("map", "audit", nss=True).status == 0


def test_more_groups_than_nfs_carries_are_found(filled: Scratch) -> None:
    lines = "".join(f"extra{n}:x:{7000 + n}:ada\n" for n in range(16))
    filled.etc("group").write_text(filled.etc("group").read_text() + lines)
    ran = filled.bridge("map", "audit", nss=True)
    assert ran.status == 1
    assert "it is in 17 groups" in ran.out


def test_a_name_service_that_looks_elsewhere_is_one_finding(filled: Scratch) -> None:
    found = filled.bridge("map", "audit", "--json").json()
    assert [row["code"] for row in found] == ["nss-blind"]
    assert "nsswitch.conf" in found[0]["todo"]


def test_a_pipe_gets_plain_columns_without_colours(filled: Scratch) -> None:
    (filled.folder / "home" / "ada").chmod(0o777)
    ran = filled.bridge("map", "audit", nss=True)
    head, row, count = ran.out.splitlines()
    assert head.split() == ["FINDING", "WHO", "WHAT", "WHAT", "TO", "DO"]
    assert row.startswith("home-open  ada")
    assert (count, "\x1b" in ran.out) == ("1 finding", False)


def test_what_the_audit_tells_to_do_repairs_it(filled: Scratch) -> None:
    edit(filled, "group", "ada,grace", "grace")
    unlock_in_shadow(filled)
    assert filled.bridge("map", "audit", nss=True).status == 1
    assert filled.bridge("provision", "run").status == 0
    assert filled.bridge("map", "audit", nss=True).status == 0


def test_an_audit_before_the_first_run_names_it(scratch: Scratch) -> None:
    ran = scratch.bridge("map", "audit")
    assert ran.status == 1
    assert "provision run" in ran.err
