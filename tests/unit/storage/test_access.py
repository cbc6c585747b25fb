from __future__ import annotations

import pickle

from asyncbackup.storage import Access
from asyncbackup.storage.location import ObjectLocation
from asyncbackup.storage.object_store import open_store

OPTIONS = {
    "endpoint": "http://127.0.0.1:1",
    "region": "us-east-1",
    "access_key_id": "id",
    "secret_access_key": "secret",
}

HERE = ObjectLocation("s3", "here", "a")


def test_a_store_is_opened_for_each_object_unless_stores_are_shared() -> None:
    apart, shared = Access(OPTIONS), Access(OPTIONS).sharing_stores()

    assert open_store(HERE, apart) is not open_store(HERE, apart)
    assert open_store(HERE, shared) is open_store(HERE._replace(key="b"), shared)
    assert open_store(HERE, shared) is not open_store(HERE._replace(bucket="there"), shared)


def test_who_shares_stores_goes_on_sharing_the_same() -> None:
    shared = Access(OPTIONS).sharing_stores()

    assert shared.sharing_stores() is shared


def test_nothing_that_is_secret_is_shown() -> None:
    shared = Access(OPTIONS, ("key",)).sharing_stores()
    open_store(HERE, shared)

    assert repr(shared) == "Access()"


def test_no_store_that_is_open_goes_to_another_process() -> None:
    shared = Access(OPTIONS, ("key",)).sharing_stores()
    open_store(HERE, shared)

    taken = pickle.loads(pickle.dumps(shared))

    assert taken == shared
    assert taken.open_stores is None
