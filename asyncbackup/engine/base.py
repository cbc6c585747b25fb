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
class Candidate:
    """What is at hand, called ``name`` in messages, of ``size`` bytes.

    Without an ``identity``, ``doubt`` tells why there is none. ``assumed``: its identity rests on what somebody vouched
    for earlier.
    """

    name: str
    size: int
    identity: Identity | None
    doubt: str = ""
    assumed: bool = False


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
        raise WrongSnapshot(wanted.source, Relation.BASE, candidate.name, expected, got)
    if wanted.size not in (None, candidate.size):
        raise WrongSnapshot(wanted.source, Relation.BASE, candidate.name, wanted.size, candidate.size)
    if expected is not None and got is not None:
        return f"{candidate.name} was made on a base that was assumed" if candidate.assumed else None
    doubt = candidate.doubt if got is None else f"{wanted.source} has no manifest that says what it was made against"
    if not assume_base:
        raise BaseUnproved(wanted.source, candidate.name, doubt)
    return f"{candidate.name} is {expected or f'what {wanted.source} is the difference to'}, although {doubt}"


def judge_compared(wanted: Wanted, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Decide whether ``candidate`` is to hold what a backup says: it is the snapshot, or the caller vouches for it.

    Vouching is for a VDI that was restored, whose identity is its own. Another snapshot of the VDI that was backed up
    never is the right one.
    What has another size holds something else, whoever vouches for it.
    Gives what was assumed, in words; None: it is proved, or nothing says otherwise. Raises WrongSnapshot.
    """
    expected, got = wanted.identity, candidate.identity
    if expected is None or got is None or got.matches(expected):
        _check_size(wanted, candidate)
        return None
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
