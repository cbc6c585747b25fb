"""What it takes to get at backups that are not plain files: in object stores, or encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import MemoryStore, ObjectStore


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

    def __reduce__(self) -> tuple[type[Access], tuple[object, ...]]:
        """Take it to another process without what is open here, which may hold keys of this machine's environment."""
        return Access, (self.store_options, self.identities)

    def sharing_stores(self) -> Access:
        """Give what opens each store once: to open one takes 10 ms, and its first request a connection."""
        return self if self.open_stores is not None else replace(self, open_stores={})
