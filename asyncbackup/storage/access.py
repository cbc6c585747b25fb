"""What it takes to get at backups that are not plain files: in object stores, or encrypted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from obstore.store import MemoryStore, ObjectStore

STORE_OPTIONS_VARIABLE: Final = "ASYNCBACKUP_STORE_OPTIONS"
"""The variable with options of object stores that nobody else may see."""

_SECRET: Final = re.compile(r"secret|token|password|sas|key")
_NO_SECRET: Final = re.compile(r".*(?:_id|_file|_path|_uri|_enabled|_url)|disable_.*|skip_.*|use_.*")

_IN_URL_OF_SECRET: Final = frozenset("@?#")


def is_secret(option: str, value: str = "") -> bool:
    """Tell whether nobody else may see the value of a store's option.

    Its name says so, or its URL has more than a place: what stands before ``@`` may be a password, and a query or a
    fragment may be a signature.
    """
    name = option.lower()
    return bool(_SECRET.search(name) and not _NO_SECRET.fullmatch(name)) or not _IN_URL_OF_SECRET.isdisjoint(value)


def read_store_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the options in STORE_OPTIONS_VARIABLE. Raises ValueError, which shows no value."""
    return dict(map(parse_store_option, environment.get(STORE_OPTIONS_VARIABLE, "").split()))


def parse_store_option(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``. Raises ValueError, which does not show it: the value may be a secret."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError("expected KEY=VALUE")
    return key.lower(), value


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at what is stored. What it holds is secret, or leads to secrets: no message shows it."""

    store_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options of the object stores, such as the endpoint. What is lacking comes from the environment."""
    identities: tuple[str, ...] = field(default=(), repr=False)
    """Paths of the files with the keys that decrypt."""
    memory_store: MemoryStore | None = field(default=None, repr=False)
    """The store that memory:// URLs mean, for programs and tests. It lives as long as its owner keeps it."""
    open_stores: dict[tuple[str, str], ObjectStore] | None = field(default=None, repr=False, compare=False)
    """Stores that are open, by scheme and bucket, to be used again; None: each object opens its store."""

    has_travelled: bool = field(default=False, repr=False, compare=False)
    """Whether it came from another process. Then the options of this one's STORE_OPTIONS_VARIABLE hold as well."""

    def __reduce__(self) -> tuple[type[Access], tuple[object, ...]]:
        """Take it to another process, without what is open here, and without secrets: each process has its own."""
        options = {key: value for key, value in self.store_options.items() if not is_secret(key, value)}
        return Access, (options, self.identities, None, None, True)

    def sharing_stores(self) -> Access:
        """Give what opens each store once: to open one takes 10 ms, and its first request a connection."""
        return self if self.open_stores is not None else replace(self, open_stores={})
