"""A script of faults: which request meets which one. Decides only; the server carries out.

As text, for a command line: ``REQUEST[/OID]@N[+]:FAULT[=VALUE]``

- ``REQUEST``: an opcode's name in any case (``read_obj``) or ``any``; ``OID``: 16 hex digits at most
- ``N``: the number of such a request, from 1; ``+``: this one and all later ones
- ``FAULT``: one of ``delay=SECONDS``, ``reorder=REPLIES``, ``error=RESULT``, ``short=BYTES``, ``long=BYTES``,
  ``wrong-id``, ``reset``, ``cut=BYTES``, ``garbage=BYTES``, ``stall``

such as ``read_obj@3:error=EIO``, ``any@10:reset``, ``read_obj/00abcdef00000007@1+:delay=0.5``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from asyncbackup.wire.constants import SECTOR_SIZE, Opcode, Result

_PATTERN: Final = re.compile(
    r"(?P<request>\w+)(?:/(?P<oid>[0-9a-fA-F]{1,16}))?@(?P<nth>[0-9]+)(?P<onwards>\+?):(?P<fault>[a-z-]+)(?:=(?P<value>.+))?"
)


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer after ``seconds``; later requests are answered meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reorder:
    """Hold the answer until ``replies`` later ones went out on the connection: for ever, if no more are asked for."""

    replies: int


@dataclass(frozen=True, slots=True)
class Error:
    """Answer with ``result``, and do not carry the request out."""

    result: Result


@dataclass(frozen=True, slots=True)
class Short:
    """Answer with the first ``length`` bytes of the payload, which the header admits."""

    length: int = SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class Long:
    """Answer with ``length`` more bytes of payload than there are, which the header admits."""

    length: int = SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class WrongId:
    """Answer with an id that no request has."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection in place of an answer; earlier answers may be lost with it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection after the header and ``length`` bytes of the payload."""

    length: int = SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class Garbage:
    """Send ``length`` random bytes, always the same ones for a ``seed``, in place of an answer."""

    length: int = SECTOR_SIZE
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Stall:
    """Never answer, and leave the connection open."""


Action = Delay | Reorder | Error | Short | Long | WrongId | Reset | Cut | Garbage | Stall


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the ``nth`` request (from 1) of those that match; with ``onwards`` to all later ones, too.

    ``opcode`` None matches every request, ``oid`` None every object. All connections count together.
    """

    action: Action
    opcode: Opcode | None = None
    nth: int = 1
    onwards: bool = False
    oid: int | None = None

    def __post_init__(self) -> None:
        if self.nth < 1:
            raise ValueError(f"requests are counted from 1, got {self.nth}")

    def matches(self, opcode: int, oid: int | None) -> bool:
        return self.opcode in {None, opcode} and self.oid in {None, oid}

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read a fault from its text form (above). Raises ValueError that says what is wrong with it."""
        match = _PATTERN.fullmatch(text.strip())
        if not match:
            raise ValueError(f"expected a fault such as 'read_obj@3:error=EIO' or 'any@10:reset', got '{text}'")
        oid = match["oid"]
        try:
            return cls(
                _parse_action(match["fault"], match["value"]),
                _parse_opcode(match["request"]),
                int(match["nth"]),
                bool(match["onwards"]),
                None if oid is None else int(oid, 16),
            )
        except ValueError as error:
            raise ValueError(f"fault '{text}': {error}") from error


class FaultScript:
    """Counts requests, and gives the fault of each one: the first in the script that is due."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self._seen = [0] * len(self._faults)

    def decide(self, opcode: int, oid: int | None) -> Action | None:
        """Take note of a request, and give what is to happen to it; None: nothing. ``oid`` None: about no object."""
        decided: Action | None = None
        for number, fault in enumerate(self._faults):
            if not fault.matches(opcode, oid):
                continue
            self._seen[number] += 1
            is_due = self._seen[number] == fault.nth or (fault.onwards and self._seen[number] > fault.nth)
            if is_due and decided is None:
                decided = fault.action
        return decided


def _parse_opcode(name: str) -> Opcode | None:
    if name.lower() == "any":
        return None
    if name.upper() not in Opcode.__members__:
        raise ValueError(f"no request is named '{name}'; there are any, {', '.join(Opcode.__members__).lower()}")
    return Opcode[name.upper()]


def _parse_result(value: str) -> Result:
    if value.upper() in Result.__members__:
        return Result[value.upper()]
    try:
        return Result(int(value, 0))
    except ValueError:
        raise ValueError(f"expected a result such as EIO or 0x03, got '{value}'") from None


def _parse_seconds(value: str) -> float:
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"expected seconds, got '{value}'")
    return seconds


def _parse_count(value: str) -> int:
    count = int(value)
    if count < 0:
        raise ValueError(f"expected a number from 0 on, got '{value}'")
    return count


_VALUELESS: Final[dict[str, Callable[[], Action]]] = {
    "short": Short,
    "long": Long,
    "wrong-id": WrongId,
    "reset": Reset,
    "cut": Cut,
    "garbage": Garbage,
    "stall": Stall,
}
_WITH_VALUE: Final[dict[str, Callable[[str], Action]]] = {
    "delay": lambda value: Delay(_parse_seconds(value)),
    "reorder": lambda value: Reorder(_parse_count(value)),
    "error": lambda value: Error(_parse_result(value)),
    "short": lambda value: Short(_parse_count(value)),
    "long": lambda value: Long(_parse_count(value)),
    "cut": lambda value: Cut(_parse_count(value)),
    "garbage": lambda value: Garbage(_parse_count(value)),
}


def _parse_action(name: str, value: str | None) -> Action:
    if name not in _VALUELESS and name not in _WITH_VALUE:
        raise ValueError(f"no fault is named '{name}'; there are {', '.join(sorted({**_WITH_VALUE, **_VALUELESS}))}")
    if value is None:
        if name not in _VALUELESS:
            raise ValueError(f"{name} needs a value: {name}=…")
        return _VALUELESS[name]()
    if name not in _WITH_VALUE:
        raise ValueError(f"{name} takes no value, got '{value}'")
    return _WITH_VALUE[name](value)
