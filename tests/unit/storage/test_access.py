from __future__ import annotations

import pickle
from typing import Any

import pytest

from asyncbackup.errors import StoreMisconfigured
from asyncbackup.storage import Access
from asyncbackup.storage.access import STORE_OPTIONS_VARIABLE
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


def test_no_store_that_is_open_and_no_secret_goes_to_another_process() -> None:
    shared = Access(OPTIONS, ("key",)).sharing_stores()
    open_store(HERE, shared)

    pickled = pickle.dumps(shared)

    public = {key: value for key, value in OPTIONS.items() if key != "secret_access_key"}
    taken = pickle.loads(pickled)
    assert taken == Access(public, ("key",))
    assert taken.open_stores is None
    assert b"secret" not in pickled


def test_another_process_has_secrets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, "secret_access_key=theirs region=elsewhere")
    taken = pickle.loads(pickle.dumps(Access(OPTIONS)))

    assert open_config(taken) == OPTIONS | {"secret_access_key": "theirs", "bucket": "here"}
    assert open_config(Access({"region": "r"}))["region"] == "r"


def test_secrets_of_another_process_that_cannot_be_read_are_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORE_OPTIONS_VARIABLE, "s3cr3t")
    taken = pickle.loads(pickle.dumps(Access(OPTIONS)))

    with pytest.raises(StoreMisconfigured, match=f"expected KEY=VALUE in {STORE_OPTIONS_VARIABLE}$"):
        open_store(HERE, taken)


def open_config(access: Access) -> dict[str, str]:
    store: Any = open_store(HERE, access)
    return {key.removeprefix("aws_"): value for key, value in store.config.items()}
