"""A cluster that is served, backups of it, and the command line to run on them; a module may have its own of each."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncbackup.sheep import MemoryStore
from tests.cli.command import Command, Served, disk_store, serving


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    """The disk of tests.disks, for tests that leave it as it is."""
    return disk_store()


@pytest.fixture(scope="module")
def served(store: MemoryStore) -> Iterator[Served]:
    with serving(store) as running:
        yield running


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    return Command(capfdbinary)


@pytest.fixture
def backups(command: Command, served: Served, tmp_path: Path) -> list[Path]:
    """A full backup of what is served, and its increment."""
    made = [tmp_path / "full", tmp_path / "increment"]
    for file, options in zip(made, (("-s", "a"), ("-s", "b", "-F", "a")), strict=True):
        assert command("backup", "disk", file, *options, "-p", served.port).code == 0
    return made


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Let -v end with the test: commands run in the process of the tests."""
    logger = logging.getLogger("asyncbackup")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
