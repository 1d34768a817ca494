"""The house stands on its floors: a module imports only from a lower floor or from its own unit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("iam_bridge", "pam_module", "provisioner")

# Longest prefix wins; a unit is the prefix itself, so modules of one unit may import each other.
FLOORS = {
    "iam_bridge": 0,
    "iam_bridge.errors": 0,
    "iam_bridge.model": 1,
    "iam_bridge.collector": 2,
    "iam_bridge.strict_yaml": 2,
    "iam_bridge.settings": 3,
    "iam_bridge.policy": 3,
    "iam_bridge.ports": 3,
    "iam_bridge.ledger": 4,
    "iam_bridge.iam": 4,
    "pam_module": 5,
    "provisioner": 5,
    "iam_bridge.demo": 6,
    "iam_bridge.cli": 7,
}
PURE = ("iam_bridge.model", "iam_bridge.policy")
NEVER_IN_PURE = {"time", "os", "socket", "subprocess", "logging", "random", "secrets"}
CLOCK_READERS = ("iam_bridge.cli", "iam_bridge.demo", "pam_module.logind", "pam_module.client")


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text())


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """Name every import of a module, wherever it stands; `from a import b` counts as a.b where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            base = node.module or ""
            for alias in node.names:
                below = ROOT / Path(*base.split("."), alias.name)
                yield f"{base}.{alias.name}" if below.with_suffix(".py").exists() or below.is_dir() else base


def unit_of(name: str) -> str:
    """Give the longest prefix on the table; settings_read and settings_sections belong to settings."""
    name = name.replace("iam_bridge.settings_", "iam_bridge.settings.")
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in FLOORS:
            return ".".join(parts[:length])
    raise AssertionError(f"{name} stands on no floor: add it to the table")


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in PACKAGES


MODULES = dict(modules())


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_go_down(name: str) -> None:
    here = unit_of(name)
    for imported in filter(is_ours, imports(name, MODULES[name])):
        there = unit_of(imported)
        assert there == here or FLOORS[there] < FLOORS[here], f"{name} imports {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(PURE)])
def test_pure_units_import_neither_effects_nor_third_parties(name: str) -> None:
    for imported in imports(name, MODULES[name]):
        top = imported.partition(".")[0]
        assert is_ours(imported) or top in sys.stdlib_module_names, f"{name} imports {imported}"
        assert top not in NEVER_IN_PURE, f"{name} imports {imported}"


def reads_clock(node: ast.AST) -> bool:
    """Tell whether a call asks for the time of day."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    base = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return (base, node.func.attr) in {
        ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"), ("time", "time"), ("time", "time_ns"),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(CLOCK_READERS)])
def test_only_the_composition_root_reads_the_clock(name: str) -> None:
    found = [node.lineno for node in ast.walk(MODULES[name]) if isinstance(node, ast.Call) and reads_clock(node)]
    assert not found, f"{name} reads the clock in lines {found}; take it as a parameter"


def test_nobody_imports_the_composition_root() -> None:
    for name, tree in MODULES.items():
        if not name.startswith("iam_bridge.cli"):
            assert not [i for i in imports(name, tree) if i.startswith("iam_bridge.cli")], name


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith((*PURE, "iam_bridge.ports"))])
def test_what_is_public_below_says_what_it_does(name: str) -> None:
    for node in MODULES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


def loaded_after(statement: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; {statement}; print(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["pam_module.logind", "pam_module.service", "pam_module.server"])
def test_the_login_path_loads_nothing_that_it_does_not_need(module: str) -> None:
    loaded = loaded_after(f"import {module}")
    assert not loaded & {"typer", "rich", "ldap3", "requests", "urllib3", "authlib", "starlette", "pydantic"}


def test_importing_the_package_does_nothing() -> None:
    assert not loaded_after("import iam_bridge") & {"yaml", "sqlite3", "cryptography", "joserfc"}
