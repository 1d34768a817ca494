"""Login nodes for the tests of the daemon."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.logind_process import Site, site
from tests.functional.site import IS_ROOT, Scratch


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that another account can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="logind-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def node(open_folder: Path) -> Iterator[Site]:
    """Give a login node whose daemon has not been started."""
    with site(open_folder) as made:
        yield made


@pytest.fixture
def running(node: Site) -> Site:
    """Give a login node whose daemon serves."""
    node.start()
    assert node.ready, node.log
    return node


@pytest.fixture
def scratch(open_folder: Path) -> Scratch:
    """Give a site in one folder whose members come from a file; nobody is a member yet."""
    return Scratch(open_folder)


@pytest.fixture
def filled(scratch: Scratch) -> Scratch:
    """Give a site with the accounts of ada and grace."""
    if not IS_ROOT:
        pytest.skip("NOT RUN: homes are given away, and only root can")
    return scratch.set_up()
