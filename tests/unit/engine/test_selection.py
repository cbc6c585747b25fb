from __future__ import annotations

from dataclasses import replace

import pytest

from asyncbackup.engine.catalog import Backup, Catalog, State, Stored
from asyncbackup.engine.selection import Beginning, choose_chain, find_contested, place_all
from asyncbackup.errors import ChainGap, NotStored, SnapshotAmbiguous
from tests.catalogs import catalog, identity, stored, subject

FULL = stored("full", 1, size=1000)
SECOND = stored("second", 2, 1)
THIRD = stored("third", 3, 2)


def chosen(*backups: Backup, snapshot: str = "3", base: str | None = None) -> list[str]:
    return [each.name for each in choose_chain(catalog(*backups), snapshot, base)]


def placed(*backups: Backup) -> dict[str, tuple[str | None, Beginning]]:
    return {
        each.backup.name: (each.before.backup.name if each.before else None, each.beginning)
        for each in place_all(backups)
    }


# What goes on what


def test_increments_stand_on_what_they_are_the_difference_to() -> None:
    assert placed(THIRD, SECOND, FULL) == {
        "full": (None, Beginning.FULL),
        "second": ("full", Beginning.FULL),
        "third": ("second", Beginning.FULL),
    }


def test_several_increments_may_stand_on_one_backup() -> None:
    assert placed(FULL, SECOND, stored("other", 3, 1))["other"] == ("full", Beginning.FULL)


def test_an_increment_stands_on_the_copy_of_its_base_that_costs_least() -> None:
    cheap = stored("cheap", 2, None, size=50)

    assert placed(FULL, SECOND, cheap, THIRD)["third"] == ("cheap", Beginning.FULL)


def test_an_increment_whose_base_is_missing_begins_a_chain() -> None:
    assert placed(FULL, THIRD, stored("fourth", 4, 3)) == {
        "full": (None, Beginning.FULL),
        "third": (None, Beginning.GAP),
        "fourth": ("third", Beginning.GAP),
    }


def test_increments_that_go_on_one_another_alone_are_told() -> None:
    found = placed(stored("on", 2, 1), stored("back", 1, 2))

    assert found == {"back": (None, Beginning.CIRCLE), "on": ("back", Beginning.CIRCLE)}


def test_an_increment_on_itself_is_a_circle() -> None:
    assert placed(stored("self", 2, 2)) == {"self": (None, Beginning.CIRCLE)}


def test_a_way_back_stands_behind_a_full_backup() -> None:
    assert placed(FULL, SECOND, stored("back", 1, 2))["back"] == ("second", Beginning.FULL)


def test_a_backup_of_another_size_than_the_base_had_is_not_it() -> None:
    resized = replace(SECOND, subject=replace(SECOND.subject, base_size=4 << 20))

    assert placed(FULL, resized)["second"] == (None, Beginning.GAP)


@pytest.mark.parametrize(
    ("cluster", "is_same"),
    [("2026-01-01T00:00:00.000000000Z", True), (None, True), ("2026-02-02T00:00:00.000000000Z", False)],
)
def test_snapshots_of_another_cluster_are_others(cluster: str | None, *, is_same: bool) -> None:
    first = Backup("full", 1, subject(identity(1, cluster="2026-01-01T00:00:00.000000000Z"), None))
    second = Backup("second", 1, subject(identity(2, cluster=cluster), identity(1, cluster=cluster)))

    assert (placed(first, second)["second"][0] == "full") == is_same


def test_a_chain_of_thousands_is_no_burden() -> None:
    chain = [stored("0", 1)]
    for number in range(1, 5000):
        before = chain[-1].identity
        to = replace(before, vdi_id=f"{number + 1:x}")
        chain.append(Backup(f"{number}", 1, subject(to, before)))

    assert len(place_all(chain[::-1])[-1].chain()) == 5000


def test_thousands_that_all_could_stand_on_one_another_are_no_burden() -> None:
    assert len(place_all([stored(f"{number}", 1, 1) for number in range(5000)])) == 5000


# The chain to a snapshot


def test_a_chain_leads_from_a_full_backup_to_the_snapshot() -> None:
    assert chosen(THIRD, SECOND, FULL) == ["full", "second", "third"]
    assert chosen(THIRD, SECOND, FULL, snapshot="2") == ["full", "second"]


def test_of_several_chains_the_one_with_the_least_bytes_is_taken() -> None:
    assert chosen(FULL, SECOND, THIRD, stored("jump", 3, 1, size=199)) == ["full", "jump"]
    assert chosen(FULL, SECOND, THIRD, stored("jump", 3, 1, size=201)) == ["full", "second", "third"]
    assert chosen(FULL, SECOND, THIRD, stored("new", 3, size=1199)) == ["new"]


def test_of_equal_chains_the_one_of_fewer_files_is_taken() -> None:
    assert chosen(FULL, SECOND, THIRD, stored("jump", 3, 1, size=200)) == ["full", "jump"]


def test_what_may_lack_objects_is_taken_only_where_nothing_else_leads_there() -> None:
    lacking = stored("lacking", 3, 1, size=1, may_lack=True)

    assert chosen(FULL, lacking, SECOND, THIRD) == ["full", "second", "third"]
    assert chosen(FULL, lacking) == ["full", "lacking"]


def test_what_is_damaged_is_taken_only_where_nothing_else_leads_there() -> None:
    damaged = replace(stored("damaged", 3, 1, size=1), is_damaged=True)

    assert chosen(FULL, damaged, SECOND, THIRD) == ["full", "second", "third"]
    assert chosen(FULL, damaged) == ["full", "damaged"]


def test_what_is_damaged_is_preferred_to_what_may_lack_objects() -> None:
    damaged = replace(stored("damaged", 3, 1), is_damaged=True)

    assert chosen(FULL, damaged, stored("lacking", 3, 1, may_lack=True)) == ["full", "damaged"]


def test_a_damaged_backup_of_the_base_itself_is_not_what_says_that_it_is_there_already() -> None:
    files = catalog(replace(SECOND, is_damaged=True), stored("new", 2))

    assert [each.name for each in choose_chain(files, "2", identity(2))] == ["new"]


def test_where_there_is_one_way_nothing_is_contested() -> None:
    assert find_contested(catalog(FULL, SECOND, THIRD, stored("other", 4, 1)), [FULL, SECOND, THIRD]) == []


def test_all_up_to_the_last_snapshot_with_another_backup_is_contested() -> None:
    assert find_contested(catalog(FULL, SECOND, THIRD, stored("cheap", 2)), [FULL, SECOND, THIRD]) == [FULL, SECOND]


def test_a_base_that_is_named_begins_the_chain() -> None:
    assert chosen(FULL, SECOND, THIRD, base="1") == ["second", "third"]
    assert chosen(SECOND, THIRD, base="vm:1") == ["second", "third"]
    assert [each.name for each in choose_chain(catalog(FULL, SECOND, THIRD), "3", identity(2))] == ["third"]


def test_to_the_base_itself_leads_what_says_that_it_is_there_already() -> None:
    assert [each.name for each in choose_chain(catalog(FULL, SECOND, stored("new", 2)), "2", identity(2))] == ["second"]


def test_a_gap_is_told_with_what_is_missing() -> None:
    with pytest.raises(ChainGap) as caught:
        chosen(FULL, THIRD, stored("fourth", 4, 3), snapshot="4")

    assert str(caught.value) == (
        f"no backups in folder lead to {identity(4)}: third is the difference to {identity(2)}, "
        "and no backup there is of that"
    )


@pytest.mark.parametrize("snapshot", ["1", "2", "3", "4"])
def test_a_circle_is_told_with_its_backups_alone(snapshot: str) -> None:
    circle = stored("a", 1, 3), stored("b", 2, 1), stored("c", 3, 2), stored("0-on-it", 4, 3)

    with pytest.raises(ChainGap, match="these go on one another in a circle: ") as caught:
        chosen(*circle, stored("unrelated", 9), snapshot=snapshot)

    assert " ".join(caught.value.circle) in ("a c b", "c b a", "b a c")


def test_what_goes_on_a_circle_does_not_belong_to_it() -> None:
    # It is the oldest, so that the search for circles begins with it.
    with pytest.raises(ChainGap) as caught:
        chosen(stored("on-it", 1, 3), stored("b", 2, 3), stored("c", 3, 2), snapshot="1")

    assert caught.value.circle == ("c", "b")


def test_a_backup_on_itself_is_a_circle_of_one() -> None:
    with pytest.raises(ChainGap) as caught:
        chosen(stored("self", 2, 2), snapshot="2")

    assert str(caught.value) == f"no backups in folder lead to {identity(2)}: these go on one another in a circle: self"


def test_a_backup_that_would_fill_the_gap_if_it_were_whole_is_told() -> None:
    files = Catalog.of(
        "folder",
        [
            Stored("third", 1, State.GOOD, "m", THIRD.subject),
            Stored("second", 0, State.NO_DATA, "second.manifest", SECOND.subject),
        ],
    )

    with pytest.raises(ChainGap, match=r"except for second \(no data\)$"):
        choose_chain(files, "3")


def test_a_base_that_nothing_leads_from_is_told() -> None:
    with pytest.raises(ChainGap, match="no backups in folder lead from 7 to snapshot 3"):
        chosen(FULL, SECOND, THIRD, base="7")


def test_a_snapshot_that_no_backup_is_of_is_told_with_those_that_there_are() -> None:
    with pytest.raises(NotStored) as caught:
        chosen(FULL, SECOND)

    assert str(caught.value) == "folder has no backup of a snapshot '3'; it has vm:2, vm:1"


def test_that_encrypted_ones_might_be_of_it_is_told() -> None:
    files = Catalog.of("folder", [Stored("a", 1, State.ENCRYPTED, "m")])

    with pytest.raises(NotStored, match="1 backup there is encrypted, so its snapshot is not known"):
        choose_chain(files, "3")


def test_that_an_encrypted_one_might_fill_the_gap_is_told() -> None:
    files = Catalog.of(
        "folder", [Stored("a", 1, State.ENCRYPTED, "m"), Stored("third", 1, State.GOOD, "m", THIRD.subject)]
    )

    for base in (None, identity(1)):
        with pytest.raises(ChainGap, match=r"; 1 backup there is encrypted, so its snapshot is not known$"):
            choose_chain(files, "3", base)


def test_a_snapshot_of_several_vdis_is_ambiguous_until_the_vdi_is_named() -> None:
    both = [
        Backup("a", 1, subject(identity(1, "vm", tag="mon"), None)),
        Backup("b", 1, subject(identity(2, "db", tag="mon"), None)),
    ]

    with pytest.raises(SnapshotAmbiguous) as caught:
        chosen(*both, snapshot="mon")

    assert caught.value.choices == ("vm:mon", "db:mon")
    assert [chosen(*both, snapshot=choice) for choice in caught.value.choices] == [["a"], ["b"]]


@pytest.mark.parametrize("same_id", [False, True])
def test_a_tag_that_was_used_again_is_ambiguous_until_the_id_or_the_time_is_named(*, same_id: bool) -> None:
    second = replace(identity(2, tag="mon"), id=1 if same_id else 2)
    both = [Backup("a", 1, subject(identity(1, tag="mon"), None)), Backup("b", 1, subject(second, None))]

    with pytest.raises(SnapshotAmbiguous) as caught:
        chosen(*both, snapshot="mon")

    assert [chosen(*both, snapshot=choice) for choice in caught.value.choices] == [["a"], ["b"]]
