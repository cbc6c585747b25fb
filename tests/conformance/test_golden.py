"""Our files are, byte for byte, what the reference clients wrote for the same scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import Cluster, Dialect, backup
from tests import scenarios


@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.value)
@pytest.mark.parametrize(("name", "base", "to"), scenarios.pairs())
async def test_backup_equals_the_reference_clients(
    cluster: Cluster, tmp_path: Path, *, name: str, base: str, to: str, dialect: Dialect
) -> None:
    scenario = scenarios.load(name)
    await scenarios.play(cluster, scenario)
    target = tmp_path / "file"

    await backup(cluster, scenario["vdi"], target, snapshot=to, base=base, dialect=dialect)

    assert target.read_bytes() == scenarios.expected(name, base, to, dialect)
