"""The versions of the protocol that a server speaks, and what depends on its release. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncbackup.wire.constants import INTERNAL_VERSIONS, PUBLIC_VERSIONS
from asyncbackup.wire.messages import Message

_TRIMMING: Final = frozenset({0x07, 0x08})
"""Internal versions of the releases (0.5.1 to 0.7) that trim zero sectors off a READ_OBJ answer."""

_LAST_OF_OLD_DELETION: Final = 0x06
_FIRST_OF_COPY_POLICIES: Final = 0x08
_FIRST_OF_OBJECT_SIZES: Final = 0x0A


@dataclass(slots=True)
class Versions:
    """What a server speaks, as far as is known."""

    internal: int | None = None
    """The internal version, which tells the release; None if it is none that is known."""
    public: int = PUBLIC_VERSIONS[0]

    def for_message(self, message: Message) -> int:
        """Give the version to send ``message`` in."""
        if message.is_internal:
            return self.internal or INTERNAL_VERSIONS[0]
        return self.public

    def use_older(self) -> None:
        """Send public requests in the older version from now on: the server knows no newer one."""
        self.public = PUBLIC_VERSIONS[-1]

    @property
    def may_trim(self) -> bool:
        """Whether READ_OBJ answers may lack zero sectors at their ends. Those of an unknown release may."""
        return self.internal is None or self.internal in _TRIMMING

    @property
    def takes_object_sizes(self) -> bool:
        """Whether VDIs choose their object size (1.0). Other releases want 0 in that place of a request."""
        return self.internal is None or self.internal >= _FIRST_OF_OBJECT_SIZES

    @property
    def takes_copy_policies(self) -> bool:
        """Whether objects can be coded and not only copied (0.8). Other releases want 0 in that place of a request."""
        return self.internal is None or self.internal >= _FIRST_OF_COPY_POLICIES

    @property
    def deletes_as_of_old(self) -> bool:
        """Whether VDIs are deleted under the old opcode (to 0.5.0)."""
        return self.internal is not None and self.internal <= _LAST_OF_OLD_DELETION
