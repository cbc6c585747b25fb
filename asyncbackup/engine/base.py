"""The judge of bases: decides whether what is at hand is what a chain of backups stands on. Pure.

A base is known by identity and by nothing else: names, tags and ids are used again, and equal bytes in some places
prove nothing of the others. Callers find out what the chain says, and what the candidate says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from asyncbackup.errors import BaseUnproved, Relation, WrongSnapshot
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import ImageState


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``source``, a backup, says of a snapshot: its identity, and its size in bytes; None where it does not."""

    source: str
    identity: Identity | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a VDI in a cluster was restored as, besides what it is itself.

    ``doubt`` tells why it need not equal that now; empty where it is proved that it does. ``assumed``: this rests on
    what somebody vouched for earlier.
    """

    identity: Identity
    doubt: str = ""
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is at hand, called ``name`` in messages, of ``size`` bytes.

    Without an ``identity``, ``doubt`` tells why there is none. ``assumed``: its identity rests on what somebody vouched
    for earlier. A VDI that was restored has a ``lineage`` as well.
    """

    name: str
    size: int
    identity: Identity | None
    doubt: str = ""
    assumed: bool = False
    lineage: Lineage | None = None

    def equals(self, identity: Identity) -> bool:
        """Tell whether this is the snapshot ``identity``, or was restored as it."""
        return any(each.matches(identity) for each in (self.identity, self.lineage and self.lineage.identity) if each)


def describe_image(name: str, size: int, modified_ns: int, state: ImageState | None) -> Candidate:
    """Say what an image of ``size`` bytes, written last at ``modified_ns``, is by the state that stands beside it."""
    if state is None:
        return Candidate(name, size, None, "it has no state beside it that says what it is")
    if not state.is_of(size, modified_ns):
        return Candidate(name, size, None, f"it was written after it was {state.identity}")
    return Candidate(name, size, state.identity, assumed=state.assumed)


def all_assumed(*assumed: str | None) -> str | None:
    """Say in one text what was assumed; None if nothing was."""
    return "; ".join(filter(None, assumed)) or None


def judge_base(wanted: Wanted, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Decide whether ``candidate`` is the base that is ``wanted``.

    Gives what was assumed, in words; None: it is proved. With ``assume_base`` the caller vouches for what nothing says;
    what contradicts itself is refused nevertheless. Raises WrongSnapshot, BaseUnproved.
    """
    expected, got = wanted.identity, candidate.identity
    if expected is not None and got is not None and not got.matches(expected):
        return _judge_lineage(wanted, expected, candidate, assume_base=assume_base)
    _check_base_size(wanted, candidate)
    if expected is not None and got is not None:
        return f"{candidate.name} was made on a base that was assumed" if candidate.assumed else None
    doubt = candidate.doubt if got is None else f"{wanted.source} has no manifest that says what it was made against"
    if not assume_base:
        raise BaseUnproved(wanted.source, candidate.name, doubt)
    return f"{candidate.name} is {expected or f'what {wanted.source} is the difference to'}, although {doubt}"


def _judge_lineage(wanted: Wanted, expected: Identity, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Judge what is not itself the snapshot ``expected``: it may have been restored as that."""
    lineage = candidate.lineage
    if lineage is None or not lineage.identity.matches(expected):
        got = candidate.identity if lineage is None else lineage.identity
        raise WrongSnapshot(wanted.source, Relation.BASE, candidate.name, expected, got)
    _check_base_size(wanted, candidate)
    if lineage.doubt:
        if not assume_base:
            raise BaseUnproved(wanted.source, candidate.name, lineage.doubt)
        return f"{candidate.name} is {expected}, although {lineage.doubt}"
    return f"{candidate.name} was made on a base that was assumed" if lineage.assumed else None


def _check_base_size(wanted: Wanted, candidate: Candidate) -> None:
    if wanted.size is not None and wanted.size != candidate.size:
        raise WrongSnapshot(wanted.source, Relation.BASE, candidate.name, wanted.size, candidate.size)


def judge_compared(wanted: Wanted, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Decide whether ``candidate`` is to hold what a backup says: it is the snapshot, or the caller vouches for it.

    Vouching is for a VDI that was restored, whose identity is its own. Another snapshot of the VDI that was backed up
    never is the right one.
    What has another size holds something else, whoever vouches for it.
    Gives what was assumed, in words; None: it is proved, or nothing says otherwise. Raises WrongSnapshot.
    """
    expected, got, lineage = wanted.identity, candidate.identity, candidate.lineage
    if expected is None or got is None or got.matches(expected):
        _check_size(wanted, candidate)
        return None
    if lineage is not None and lineage.identity.matches(expected):
        # That it may have been written to since is what comparing them tells.
        _check_size(wanted, candidate)
        return f"{candidate.name} was made on a base that was assumed" if lineage.assumed else None
    are_siblings = (
        replace(expected, vdi_id=got.vdi_id, created=got.created).matches(got)
        and expected.created is not None
        and got.created is not None
    )
    if are_siblings or not assume_base:
        raise WrongSnapshot(
            wanted.source, Relation.CONTENT, candidate.name, expected, got, can_be_assumed=not are_siblings
        )
    _check_size(wanted, candidate)
    return f"{candidate.name} holds what {expected} held, although it is {got}"


def _check_size(wanted: Wanted, candidate: Candidate) -> None:
    if wanted.size not in (None, candidate.size):
        raise WrongSnapshot(wanted.source, Relation.CONTENT, candidate.name, wanted.size, candidate.size)
