"""Which object an attribute is in, and what becomes of it. dog against both servers tells the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from asyncbackup.sheep import MemoryStore
from asyncbackup.sheep.attributes import Attributes
from asyncbackup.sheep.volumes import Refused
from asyncbackup.wire.attributes import Attribute
from asyncbackup.wire.constants import Flag, Result
from asyncbackup.wire.oid import attribute_oid

VDI = 0x70DBEC
CREATE, DELETE, EXCLUSIVE = Flag.ATTR_CREATE, Flag.ATTR_DELETE, Flag.ATTR_EXCLUSIVE

Handle = Callable[[Attribute, int], int]


@pytest.fixture(params=[False, True], ids=["read first", "overwritten"])
def overwrites(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def handle(store: MemoryStore, *, overwrites: bool) -> Handle:
    return partial(Attributes(store, overwrites=overwrites).handle, VDI)


def value_at(store: MemoryStore, attr_id: int) -> bytes:
    view = store.get(attribute_oid(VDI, attr_id))
    assert view is not None
    return Attribute.unpack(view).value


def test_the_id_is_the_one_that_a_real_server_gives(handle: Handle) -> None:
    assert handle(Attribute("vm", "k", b"v1"), CREATE) == 0x888D78A7


def test_what_is_found_is_what_was_written_last(handle: Handle, store: MemoryStore) -> None:
    handle(Attribute("vm", "k", b"first"), CREATE)
    handle(Attribute("vm", "k", b"second"), CREATE)

    assert value_at(store, handle(Attribute("vm", "k"), 0)) == b"second"


@pytest.mark.parametrize("flags", [0, DELETE, EXCLUSIVE])
def test_what_is_not_there_is_not_found(handle: Handle, flags: int) -> None:
    with pytest.raises(Refused) as refused:
        handle(Attribute("vm", "k"), flags)

    assert refused.value.result is Result.NO_OBJ


def test_what_was_deleted_is_not_found(handle: Handle) -> None:
    handle(Attribute("vm", "k", b"v"), CREATE)
    handle(Attribute("vm", "k"), DELETE)

    with pytest.raises(Refused):
        handle(Attribute("vm", "k"), 0)


def test_what_is_there_is_not_made_again_where_it_must_be_new(handle: Handle) -> None:
    handle(Attribute("vm", "k", b"v"), CREATE | EXCLUSIVE)

    with pytest.raises(Refused) as refused:
        handle(Attribute("vm", "k", b"v"), CREATE | EXCLUSIVE)

    assert refused.value.result is Result.VDI_EXIST


@pytest.mark.parametrize("other", [Attribute("vm", "l"), Attribute("vn", "k"), Attribute("vm", "k", snap_id=1)])
def test_another_name_or_key_is_another_attribute(handle: Handle, other: Attribute) -> None:
    handle(Attribute("vm", "k", b"v"), CREATE)

    with pytest.raises(Refused):
        handle(other, 0)


def test_where_the_place_of_an_attribute_is_taken_it_goes_to_the_next(
    handle: Handle, store: MemoryStore, *, overwrites: bool
) -> None:
    first = handle(Attribute("vm", "k", b"v"), CREATE)
    handle(Attribute("vm", "k"), DELETE)

    again = handle(Attribute("vm", "k", b"w"), CREATE)

    # From 0.9 on nothing is read before what is written without care goes there.
    assert again == (first if overwrites else first + 1)
    assert value_at(store, handle(Attribute("vm", "k"), 0)) == b"w"
