"""Judges bases: decides whether a snapshot or an image is the base of a chain of backups. Pure.

A base is known only by its identity. Names, tags and ids are used again, and equal bytes in some places prove nothing
about other places. Callers read what the chain says about its base, and what the candidate says about itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from asyncbackup.errors import BaseUnproved, Relation, WrongSnapshot
from asyncbackup.format.identity import Identity
from asyncbackup.format.image import ImageState


@dataclass(frozen=True, slots=True)
class Wanted:
    """The identity of a snapshot and its size in bytes, as backup ``source`` says; None if it does not say it."""

    source: str
    identity: Identity | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The snapshot that a VDI in a cluster was restored from, in addition to its own identity.

    ``doubt`` says why the VDI may differ from that snapshot now; it is empty if the two are proved to be equal.
    ``assumed``: this depends on something that somebody vouched for earlier.
    """

    identity: Identity
    doubt: str = ""
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot or an image that may be the base. Messages call it ``name``; it has ``size`` bytes.

    If ``identity`` is None, ``doubt`` says why. ``assumed``: the identity depends on something that somebody vouched
    for earlier. A VDI that was restored has a ``lineage`` as well.
    """

    name: str
    size: int
    identity: Identity | None
    doubt: str = ""
    assumed: bool = False
    lineage: Lineage | None = None

    def equals(self, identity: Identity) -> bool:
        """Tell whether this is the snapshot ``identity``, or was restored from a backup of it."""
        return any(each.matches(identity) for each in (self.identity, self.lineage and self.lineage.identity) if each)


def judge_image(name: str, size: int, modified_ns: int, state: ImageState | None) -> Candidate:
    """Decide by the ``state`` beside an image which snapshot it equals. Its last change was at ``modified_ns``."""
    if state is None:
        return Candidate(name, size, None, "it has no state beside it that says what it is")
    if not state.is_of(size, modified_ns):
        return Candidate(name, size, None, f"it was written after it was {state.identity}")
    return Candidate(name, size, state.identity, assumed=state.assumed)


def all_assumed(*assumed: str | None) -> str | None:
    """Join all that was assumed into one text; None if nothing was assumed."""
    return "; ".join(filter(None, assumed)) or None


def judge_base(wanted: Wanted, candidate: Candidate, *, assume_base: bool) -> str | None:
    """Decide whether ``candidate`` is the base that is ``wanted``.

    Gives what was assumed, in words; None: the base is proved. With ``assume_base`` the caller vouches for a candidate
    that nothing proves. A candidate with another identity is refused nevertheless. Raises WrongSnapshot, BaseUnproved.
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
    """Judge a candidate that is not the snapshot ``expected`` itself: it may have been restored from a backup of it."""
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
    """Decide whether ``candidate`` should hold what a backup holds: it is the snapshot, or the caller vouches for it.

    The caller can vouch for a VDI that was restored, because that has an identity of its own. Another snapshot of the
    VDI that was backed up is refused, and so is a candidate of another size, even if the caller vouches for it. Gives
    what was assumed, in words; None: it is proved, or nothing contradicts it. Raises WrongSnapshot.
    """
    expected, got, lineage = wanted.identity, candidate.identity, candidate.lineage
    if expected is None or got is None or got.matches(expected):
        _check_size(wanted, candidate)
        return None
    if lineage is not None and lineage.identity.matches(expected):
        # If somebody wrote to it since, the comparison will show that.
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
