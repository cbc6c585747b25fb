"""The command line, run against a real cluster, writes what the reference clients wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup import Dialect
from tests import scenarios
from tests.clusters import MISSING, RealCluster

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


@pytest.mark.parametrize(("name", "base", "to"), scenarios.pairs())
def test_backup_equals_the_golden_files(played: RealCluster, tmp_path: Path, name: str, base: str, to: str) -> None:
    for dialect in Dialect:
        target = tmp_path / dialect.value
        ran = played.asyncbackup("backup", "-s", to, "-F", base, "--format", dialect.value, name_of(name), target)

        assert ran.returncode == 0, ran.stderr
        assert target.read_bytes() == scenarios.expected(name, base, to, dialect)


@pytest.mark.parametrize(("name", "base", "to"), scenarios.pairs())
def test_dog_writes_the_golden_file_and_so_do_we_into_a_pipe(
    played: RealCluster, name: str, base: str, to: str
) -> None:
    golden = scenarios.expected(name, base, to, Dialect.DOG)

    assert played.dog("vdi", "backup", "-s", to, "-F", base, name_of(name)) == golden
    assert played.asyncbackup("backup", "-s", to, "-F", base, name_of(name), "-").stdout == golden


def name_of(scenario: str) -> str:
    vdi: str = scenarios.load(scenario)["vdi"]
    return vdi
