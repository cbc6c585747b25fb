"""Stores are opened by their URLs, and their errors become ours, without their texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from asyncbackup.errors import (
    SourceMissing,
    SourceUnreadable,
    StoreMisconfigured,
    TargetExists,
    TargetFull,
    TargetWriteFailed,
)
from asyncbackup.storage.access import Access, is_secret
from asyncbackup.storage.location import find_object
from asyncbackup.storage.object_store import StoredObject, open_object, reading, writing

SECRET = "sig=s3cr3t"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def opened(url: str, **options: str) -> StoredObject:
    location = find_object(url)
    assert location is not None
    return open_object(location, Access(options))


def store_of(url: str, **options: str) -> Any:
    return opened(url, **options).store


@pytest.mark.parametrize(
    ("url", "kind", "options"),
    [
        ("s3://box/vm1", S3Store, {}),
        ("gs://box/vm1", GCSStore, {"skip_signature": "true"}),
        ("az://box/vm1", AzureStore, {"account_name": "me"}),
    ],
)
def test_a_url_says_which_kind_of_store_it_is(url: str, kind: type, options: dict[str, str]) -> None:
    place = opened(url, **options)
    assert isinstance(place.store, kind)
    assert (place.key, place.name) == ("vm1", url)


def test_the_store_in_memory_is_the_one_that_was_handed_in() -> None:
    store, location = MemoryStore(), find_object("memory://box/vm1")
    assert location is not None
    assert open_object(location, Access(memory_store=store)).store is store


def test_options_go_to_the_store_or_to_its_client() -> None:
    store = store_of("s3://box/vm1", region="eu-west-1", timeout="9m", max_retries="3", retry_timeout="60")
    assert store.config["region"] == "eu-west-1"
    assert store.client_options["timeout"] == "9m"
    assert store.retry_config["max_retries"] == 3


@pytest.mark.parametrize("option", ["endpoint", "aws_endpoint_url", "ENDPOINT_URL"])
def test_plain_http_is_used_only_if_the_endpoint_says_so(option: str) -> None:
    assert store_of("s3://box/vm1", **{option: "http://store.example"}).client_options.get("allow_http")
    assert not store_of("s3://box/vm1", **{option: "https://store.example"}).client_options.get("allow_http")


def test_a_store_of_azure_without_an_account_is_an_error_that_says_how_to_name_it() -> None:
    with pytest.raises(StoreMisconfigured, match="AZURE_STORAGE_ACCOUNT_NAME is not set"):
        store_of("az://box/vm1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpiont": SECRET}, "'endpiont' is no option of a store with s3://"),
        ({"max_retries": SECRET}, "expected a number for max_retries"),
        ({"unsigned_payload": SECRET}, "is not good for a store with s3://"),
        ({"timeout": SECRET}, "is not good for a store with s3://"),
    ],
)
def test_a_wrong_option_is_an_error_that_does_not_show_its_value(options: dict[str, str], message: str) -> None:
    with pytest.raises(StoreMisconfigured, match=message) as caught:
        opened("s3://box/vm1", **options)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["abc123", "s3cr3t/that+nobody", "x" * 50])
def test_what_is_no_name_of_an_option_is_not_shown(name: str) -> None:
    """A key that was given in place of options, such as one that ends with ``=``."""
    with pytest.raises(StoreMisconfigured) as caught:
        opened("s3://box/vm1", **{name: ""})
    assert str(caught.value) == "what was given as KEY is no option of a store with s3://"


def test_nothing_shows_what_an_access_holds() -> None:
    assert SECRET not in repr(Access({"token": SECRET}, memory_store=MemoryStore()))
    assert SECRET not in repr(opened("s3://box/vm1", session_token=SECRET))


@pytest.mark.parametrize(
    "option",
    [
        "secret_access_key",
        "AWS_TOKEN",
        "account_key",
        "sas_token",
        "client_secret",
        "sse_customer_key_base64",
        "service_account_key",
    ],
)
def test_what_others_must_not_see_is_secret(option: str) -> None:
    assert is_secret(option)


@pytest.mark.parametrize(
    "option",
    ["endpoint", "region", "access_key_id", "web_identity_token_file", "sse_kms_key_id", "skip_signature", "timeout"],
)
def test_what_others_may_see_is_no_secret(option: str) -> None:
    assert not is_secret(option, "https://store.example")


@pytest.mark.parametrize(
    "url",
    [
        "http://me:password@proxy",
        "//me:password@proxy",
        "https://store.example/?sig=abc",
        "https://store.example/box?sv=2024-01-01&sig=abc",
        "https://store.example?X-Amz-Signature=abc",
        "https://store.example/#token=abc",
    ],
)
def test_a_password_or_a_signature_in_a_url_is_secret(url: str) -> None:
    assert is_secret("endpoint", url)


def raised_in_reading(error: Exception) -> Exception:
    with pytest.raises((SourceMissing, SourceUnreadable)) as caught, reading("s3://box/vm1"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (
            exceptions.PermissionDeniedError(f"GET /?{SECRET} <Code>AccessDenied</Code>"),
            "the store does not permit this (AccessDenied)",
        ),
        (exceptions.UnauthenticatedError(SECRET), "the store does not know these keys"),
        (exceptions.PreconditionError(SECRET), "was replaced meanwhile"),
        (exceptions.GenericError(f"GET /?{SECRET} - HTTP error: error sending request"), "the store cannot be reached"),
        (
            exceptions.GenericError(f"/?{SECRET}, after 4 retries, kind: Timeout"),
            "the store did not answer in time, and it was asked 5 times",
        ),
        (
            exceptions.GenericError(f"/?{SECRET} status code: 503 Service Unavailable: <Code>SlowDown</Code>"),
            "the store answered 503 Service Unavailable (SlowDown)",
        ),
        (exceptions.GenericError(f"Error performing token request: /?{SECRET}"), "no keys for the store were found"),
        (exceptions.GenericError(f"{SECRET} request or response body error IncompleteBody"), "the connection was cut"),
        (exceptions.GenericError(f"/?{SECRET} error sending request IncompleteMessage"), "the connection was cut"),
        (
            exceptions.GenericError(f"GET /?{SECRET} - Received redirect without LOCATION, this normally"),
            "the bucket is in another region: set AWS_REGION, or the endpoint",
        ),
        (
            exceptions.GenericError("Generic S3 error: Received non-partial response when range requested"),
            "the store does not heed which range is asked for",
        ),
        (
            exceptions.GenericError("Generic S3 error: Requested 10..50, got 11..51"),
            "the store does not heed which range is asked for",
        ),
        (
            exceptions.GenericError(f"Generic S3 error: Got invalid list response: {SECRET}"),
            "what answered does not speak as such a store does: see whether the endpoint is right",
        ),
        (
            exceptions.GenericError("Unable to extract metadata from headers: ETag Header missing from response"),
            "what answered does not speak as such a store does: see whether the endpoint is right",
        ),
        (exceptions.GenericError(SECRET), "the store cannot be used (GenericError)"),
    ],
)
def test_what_a_store_raises_is_explained_without_its_text(error: Exception, meaning: str) -> None:
    found = raised_in_reading(error)
    assert str(found) == f"s3://box/vm1: {meaning}"
    assert found.__suppress_context__


def test_an_object_that_is_not_found_is_missing() -> None:
    assert isinstance(raised_in_reading(FileNotFoundError(SECRET)), SourceMissing)


def test_our_own_errors_pass() -> None:
    with pytest.raises(SourceUnreadable, match="ours"), reading("s3://box/vm1"):
        raise SourceUnreadable("s3://box/vm1", "ours")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.AlreadyExistsError(SECRET), TargetExists),
        (exceptions.GenericError("<Code>QuotaExceeded</Code>"), TargetFull),
        (exceptions.GenericError("status code: 507 Insufficient Storage"), TargetFull),
        (exceptions.GenericError(SECRET), TargetWriteFailed),
        (FileNotFoundError(SECRET), TargetWriteFailed),
    ],
)
def test_what_a_store_raises_while_it_is_written_is_told_apart(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, writing("s3://box/vm1"):
        raise error
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
