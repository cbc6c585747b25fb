from __future__ import annotations

from pathlib import Path

import pytest

from asyncbackup.errors import ManifestUnplaced, OwnInput, TargetExists
from asyncbackup.storage import open_standard_output, open_target, publish
from asyncbackup.storage.publication import manifest_path
from tests.collecting import CollectingTarget
from tests.folders import left_in
from tests.streams import standard_output


async def test_a_file_and_its_manifest_are_opened_beside_one_another(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file") as (data, proof, _):
        assert proof is not None
        await data.append([b"data"])
        await proof.append([b"proof"])
        await publish(data, proof)

    assert (tmp_path / "file").read_bytes() == b"data"
    assert manifest_path(tmp_path / "file").read_bytes() == b"proof"


async def test_a_manifest_of_this_name_stays(tmp_path: Path) -> None:
    manifest_path(tmp_path / "file").write_bytes(b"mine")

    with pytest.raises(TargetExists, match=r"file\.manifest: exists already"):
        async with open_target(tmp_path / "file"):
            pytest.fail("opened")

    assert set(left_in(tmp_path)) == {"file.manifest"}


async def test_targets_that_are_open_already_replace_nothing() -> None:
    with pytest.raises(ValueError, match="expected a path to replace, got a target that is open already"):
        async with open_target(CollectingTarget(), replace=True, manifest=CollectingTarget()):
            pytest.fail("opened")


async def test_a_manifest_at_a_path_is_replaced_though_the_data_goes_to_an_open_target(tmp_path: Path) -> None:
    (tmp_path / "proof").write_bytes(b"old")

    async with open_target(CollectingTarget(), replace=True, manifest=tmp_path / "proof") as (data, proof, _):
        assert proof is not None
        await publish(data, proof)

    assert (tmp_path / "proof").read_bytes() == b""


async def test_a_manifest_is_not_named_where_none_is_written() -> None:
    with pytest.raises(ValueError, match="expected either a manifest or with_manifest=False"):
        async with open_target(CollectingTarget(), manifest=CollectingTarget(), with_manifest=False):
            pytest.fail("opened")


async def test_the_manifest_of_a_file_that_is_replaced_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    manifest_path(tmp_path / "file").write_bytes(b"old proof")

    async with open_target(tmp_path / "file", replace=True, with_manifest=False) as (data, proof, _):
        assert proof is None
        await data.append([b"new"])
        await data.complete()

    assert (tmp_path / "file").read_bytes() == b"new"
    assert not manifest_path(tmp_path / "file").exists()


async def test_what_goes_to_standard_output_has_its_manifest_where_it_is_told(tmp_path: Path) -> None:
    with standard_output(tmp_path / "out"):
        async with open_standard_output(tmp_path / "proof") as (data, proof, _):
            assert proof is not None
            await data.append([b"data"])
            await proof.append([b"proof"])
            await publish(data, proof)

    assert (tmp_path / "out").read_bytes() == b"data"
    assert (tmp_path / "proof").read_bytes() == b"proof"


async def test_a_manifest_of_standard_output_replaces_none_unless_told(tmp_path: Path) -> None:
    (tmp_path / "proof").write_bytes(b"mine")

    with standard_output(tmp_path / "out"), pytest.raises(TargetExists, match="proof: exists already"):
        async with open_standard_output(tmp_path / "proof"):
            pytest.fail("opened")

    assert (tmp_path / "proof").read_bytes() == b"mine"


async def test_what_goes_to_standard_output_needs_no_manifest(tmp_path: Path) -> None:
    with standard_output(tmp_path / "out"):
        async with open_standard_output(None) as (data, proof, _):
            assert proof is None
            await data.append([b"data"])
            await data.complete()

    assert set(left_in(tmp_path)) == {"out"}
    assert (tmp_path / "out").read_bytes() == b"data"


async def test_an_entered_target_is_passed_on_with_its_manifest() -> None:
    data, manifest = CollectingTarget(), CollectingTarget()

    async with open_target(data, manifest=manifest) as opened:
        assert opened == (data, manifest, None)

    assert not data.is_complete


async def test_an_entered_target_has_its_manifest_in_the_file_that_is_named(tmp_path: Path) -> None:
    async with open_target(data := CollectingTarget(), manifest=tmp_path / "proof") as opened:
        assert opened.manifest is not None
        await opened.manifest.append([b"proof"])
        await publish(opened.data, opened.manifest)

    assert data.is_complete
    assert (tmp_path / "proof").read_bytes() == b"proof"


async def test_the_manifest_of_a_file_goes_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ManifestUnplaced):
        async with open_target(tmp_path / "file", manifest=CollectingTarget()):
            pytest.fail("opened")

    assert not set(left_in(tmp_path))


async def test_a_manifest_that_is_abandoned_does_not_appear_with_its_file(tmp_path: Path) -> None:
    async with open_target(tmp_path / "file") as (data, manifest, _):
        assert manifest is not None
        await manifest.append([b"half of a proof"])
        await manifest.abandon()
        await data.append([b"data"])
        await publish(data)
        assert set(left_in(tmp_path)) >= {"file"}

    assert set(left_in(tmp_path)) == {"file"}


async def test_an_input_that_a_url_names_is_not_replaced_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "backup").write_bytes(b"old")

    with pytest.raises(OwnInput):
        async with open_target(tmp_path / "backup", replace=True, inputs=[f"file://{tmp_path}/backup"]):
            pass
