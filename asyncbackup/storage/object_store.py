"""Opens object stores, and raises what they raise as our own errors. obstore speaks to the stores, and asks again.

It is imported late: few starts need it. No message of it goes on: a URL in one may hold a signature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncbackup.errors import (
    ExtraMissing,
    SourceMissing,
    SourceUnreadable,
    StoreMisconfigured,
    TargetError,
    TargetExists,
    TargetFull,
    TargetWriteFailed,
)
from asyncbackup.storage.access import STORE_OPTIONS_VARIABLE, Access, read_store_options
from asyncbackup.storage.location import MEMORY, ObjectLocation, fault_of_object
from asyncbackup.storage.store_profile import read_profile

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_CLIENT_OPTIONS: Final = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_excludes",
        "proxy_url",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
"""Options of the HTTP client. All others are of the store, and of the names that obstore gives them."""

_CLIENT_DEFAULTS: Final = {"timeout": "2m"}
"""A part of 64 MiB takes longer than obstore's 30 s on a line of 20 Mbit/s."""

_MAX_RETRIES: Final = "max_retries"
_RETRY_TIMEOUT: Final = "retry_timeout"
"""Options that say how often, and for how many seconds, a request is sent again. By default: 10 times, 180 s."""

_ENDPOINT: Final = re.compile(r"(?:aws_|azure_storage_|azure_|google_)?(?:endpoint(?:_url(?:_s3)?)?|base_url)")
_ENDPOINT_VARIABLES: Final = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
)

_UNKNOWN_OPTION: Final = re.compile(r"[Kk]ey: '?([^'\s]*)")
_OPTION: Final = re.compile("[a-z_]{1,30}")
"""What may be the name of an option, and is shown: keys are longer, or have digits."""
_NO_ACCOUNT: Final = "Account must be specified"
_STATUS: Final = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z-]{1,30}){0,5})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_CUT: Final = r"IncompleteBody|IncompleteMessage|kind: Interrupted|ConnectionReset"

_RETRIES: Final = re.compile(r"after (\d{1,6}) retries")
_FULL: Final = re.compile(r"<Code>(?:\w*Quota\w*|EntityTooLarge)</Code>|status code: 507")
_MEANINGS: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"token request|/latest/api/token|security-credentials|InstanceCredentials",
            "no keys for the store were found",
        ),
        (r"<Code>NoSuchUpload", "the store has dropped what was sent so far"),
        (r"NoSuchBucket|ContainerNotFound|bucket does not exist|^FileNotFoundError", "there is no such bucket"),
        (r"redirect without LOCATION", "the bucket is in another region: set AWS_REGION, or the endpoint"),
        (r"Received non-partial response|error: Requested \d", "the store does not heed which range is asked for"),
        (
            r"[Ii]nvalid \w+ response|extract metadata from headers",
            "what answered does not speak as such a store does: see whether the endpoint is right",
        ),
        (r"^PreconditionError", "was replaced meanwhile"),
        (r"^UnauthenticatedError", "the store does not know these keys"),
        (r"^PermissionDeniedError", "the store does not permit this"),
        (r"status code: \d{3}", None),
        (r"kind: Timeout|TimedOut|timed out", "the store did not answer in time"),
        (_CUT, "the connection was cut"),
        (r"kind: Connect|error sending request|dns error|Connection refused", "the store cannot be reached"),
    )
)
"""What stands in obstore's errors, behind the name of its kind, and what that means. The first that fits counts."""

_NOT_DROPPED: Final = re.compile(r"performing DELETE(?!.*NoSuchUpload)", re.DOTALL)
_ANSWER_LOST: Final = re.compile(
    r"\?uploads=.*(?:IncompleteMessage|kind: (?:Timeout|Interrupted)|ConnectionReset)|multipart response", re.DOTALL
)
"""What stands in errors of an upload that the store may have begun without telling its number."""


class StoredObject(NamedTuple):
    """A place in an open store."""

    store: ObjectStore
    key: str
    name: str
    """What messages call it: its URL."""
    access: Access | None = None
    """How it was reached."""

    def beside(self, suffix: str) -> StoredObject:
        """Give the place of an object that belongs to this one."""
        return self._replace(key=self.key + suffix, name=self.name + suffix)

    def __repr__(self) -> str:
        return f"StoredObject({self.name!r})"

    async def find(self) -> ObjectMeta | None:
        """Ask what is there; None if nothing is. Raises what the store raises."""
        from obstore import head_async  # noqa: PLC0415 - few starts need it

        try:
            return await head_async(self.store, self.key)
        except FileNotFoundError:
            return None

    async def state(self) -> tuple[int, str | None, float] | None:
        """Give size, tag and time of the object, so that another one is told from it; None: there is none.

        Raises SourceUnreadable.
        """
        with reading(self.name):
            found = await self.find()
        return None if found is None else (found["size"], found["e_tag"], found["last_modified"].timestamp())

    async def remove(self) -> None:
        """Remove the object, if there is one. Raises TargetWriteFailed."""
        from obstore import delete_async  # noqa: PLC0415 - few starts need it

        with writing(self.name):
            if await self.find() is not None:
                await delete_async(self.store, self.key)


def open_object(location: ObjectLocation, access: Access | None) -> StoredObject:
    """Open the store of ``location``. This asks nothing of it yet, but may read files with keys, so it blocks.

    Raises ExtraMissing, and StoreMisconfigured if the options are none of the store's.
    """
    if fault := fault_of_object(location):
        raise StoreMisconfigured(f"{show_location(location)}: {fault}")
    access = access or Access()
    key = f"{location.bucket}/{location.key}" if location.scheme == MEMORY else location.key
    return StoredObject(open_store(location, access), key, str(location), access)


def show_location(location: ObjectLocation) -> str:
    """Give the URL, but for what may be a password in it."""
    return f"{location.scheme}://" if "@" in location.bucket else str(location)


def open_store(location: ObjectLocation, access: Access) -> ObjectStore:
    """Open the store that ``location`` is in, whatever its key. Raises what ``open_object`` raises."""
    if location.scheme == MEMORY:
        if access.memory_store is None:
            raise StoreMisconfigured("memory:// is a store within one program, and this program has none")
        return access.memory_store
    if access.open_stores is None:
        return _open_new(location, access)
    where = location.scheme, location.bucket
    if where not in access.open_stores:
        # Two threads may open the same at the same time. Then one of them is used once.
        access.open_stores[where] = _open_new(location, access)
    return access.open_stores[where]


def _open_new(location: ObjectLocation, access: Access) -> ObjectStore:
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - few starts need it
    except ImportError as error:
        raise ExtraMissing("object-store", "obstore", "reads and writes object stores") from error
    given = _options_of(access)
    client: dict[str, Any] = _CLIENT_DEFAULTS | {key: given.pop(key) for key in _CLIENT_OPTIONS & given.keys()}
    retrying = _read_retry(given)
    config = (read_profile(os.environ) if location.scheme == "s3" else {}) | given
    if _is_plain_http(config, os.environ):
        client.setdefault("allow_http", "true")
    kinds: dict[str, Callable[..., ObjectStore]] = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}
    try:
        return kinds[location.scheme](location.bucket, config=config, client_options=client, retry_config=retrying)
    except (exceptions.BaseError, ValueError) as error:
        raise StoreMisconfigured(f"{_what_is_wrong(str(error))} a store with {location.scheme}://") from None


def _what_is_wrong(message: str) -> str:
    """Say what the library has against the options, without a value: that may be a secret."""
    if named := _UNKNOWN_OPTION.search(message):
        shown = f"'{named[1]}'" if _OPTION.fullmatch(named[1]) else "what was given as KEY"
        return f"{shown} is no option of"
    if _NO_ACCOUNT in message:
        return "AZURE_STORAGE_ACCOUNT_NAME is not set, which names the account of"
    return "an option or a variable of the environment is not good for"


def _options_of(access: Access) -> dict[str, str]:
    own = {}
    if access.has_travelled:
        try:
            own = read_store_options(os.environ)
        except ValueError as error:
            raise StoreMisconfigured(f"{error} in {STORE_OPTIONS_VARIABLE}") from None
    return own | {key.lower(): value for key, value in access.store_options.items()}


def _read_retry(given: dict[str, str]) -> dict[str, Any]:
    """Take the options about requests that are sent again. Raises StoreMisconfigured."""
    numbers = {key: given.pop(key) for key in (_MAX_RETRIES, _RETRY_TIMEOUT) if key in given}
    for key, value in numbers.items():
        if not re.fullmatch("[0-9]{1,6}", value):
            raise StoreMisconfigured(f"expected a number for {key}")
    found: dict[str, Any] = {key: int(value) for key, value in numbers.items() if key == _MAX_RETRIES}
    if _RETRY_TIMEOUT in numbers:
        found[_RETRY_TIMEOUT] = timedelta(seconds=int(numbers[_RETRY_TIMEOUT]))
    return found


def _is_plain_http(config: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    named = [value for key, value in config.items() if _ENDPOINT.fullmatch(key)]
    found = named or [environment[name] for name in _ENDPOINT_VARIABLES if environment.get(name)]
    return any(value.startswith("http://") for value in found)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise what a store raises as SourceMissing or SourceUnreadable of ``name``."""
    from obstore import exceptions  # noqa: PLC0415 - few starts need it

    try:
        yield
    except FileNotFoundError:
        raise SourceMissing(name) from None
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise SourceUnreadable(name, _explain(error)) from None


@contextmanager
def writing(name: str, otherwise: type[TargetError] = TargetWriteFailed) -> Iterator[None]:
    """Raise what a store raises as TargetExists, TargetFull or ``otherwise`` of ``name``."""
    from obstore import exceptions  # noqa: PLC0415 - few starts need it

    try:
        yield
    except exceptions.AlreadyExistsError:
        raise TargetExists(name) from None
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise (TargetFull if _FULL.search(str(error)) else otherwise)(name, _explain(error)) from None


def was_cut(error: BaseException) -> bool:
    """Tell whether the connection was cut in the middle of an answer. obstore repeats a listing only before that."""
    return re.search(_CUT, str(error)) is not None


def may_keep_parts(error: BaseException) -> bool:
    """Tell whether a store may still have parts of an upload that ended with ``error``.

    obstore has it drop them. That may fail, and it is not possible if the answer to the beginning was lost.
    """
    told = str(error)
    return bool(_NOT_DROPPED.search(told) or _ANSWER_LOST.search(told))


def _explain(error: Exception) -> str:
    """Say what a store's error means, in words that no secret can be in."""
    told = str(error)
    again, status, code = (pattern.search(told) for pattern in (_RETRIES, _STATUS, _CODE))
    meaning = next((words for pattern, words in _MEANINGS if pattern.search(f"{type(error).__name__}: {told}")), None)
    if meaning is None:
        meaning = f"the store answered {status[1]}" if status else f"the store cannot be used ({type(error).__name__})"
    in_brackets = f" ({code[1]})" if code else ""
    repeated = f", and it was asked {int(again[1]) + 1} times" if again else ""
    return f"{meaning}{in_brackets}{repeated}"
