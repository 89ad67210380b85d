"""How much of what is new in a folded model its comparison was shown to notice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnfold.evidence.proof.lockstep import Lockstep
from bnfold.evidence.proof.mutations import Target
from bnfold.evidence.proof.segments import Key
from bnfold.evidence.proof.selftest import Coverage

_NAMED: Final = 3
"""So many channels are named; whoever looks for one needs the first."""


@dataclass(frozen=True, slots=True)
class Share:
    """What was shown, over all constants that are new and that an output hangs on.

    Attributes:
        channels: How many channels they have.
        shown: How many of them were seen to matter in a comparison.
        unshown: The constants of which some were not, in words.
    """

    channels: int
    shown: int
    unshown: tuple[str, ...]


def share_of(walk: Lockstep) -> Share:
    """Count what self-tests showed of every constant that the outputs hang on."""
    targets = {
        target.key: target for target in walk.novelties(list(walk.folded.model.graph.outputs))
    }
    found = {key: walk.judge.shown_of(key) for key in targets}
    known = [one for one in found.values() if one is not None]
    unseen = sum(one is None for one in found.values())
    return Share(
        sum(one.shown.size for one in known) + unseen,
        sum(int(one.shown.sum()) for one in known),
        tuple(_words(targets.values(), found)),
    )


def _words(targets: Iterable[Target], found: Mapping[Key, Coverage | None]) -> Iterator[str]:
    """Say which channels were never seen to matter, and of what."""
    for target in targets:
        coverage = found[target.key]
        node = target.node.name or target.node.op_type
        what = f"{target.name!r} of {node}"
        if coverage is None:
            yield f"{what} lies in no segment that could be compared"
        elif not coverage.shown.all():
            missed = np.flatnonzero(~coverage.shown)
            named = ", ".join(map(str, missed[:_NAMED].tolist()))
            more = ", …" if missed.size > _NAMED else ""
            yield (
                f"{missed.size} of {coverage.shown.size} channels of {what} ({named}{more})"
                " change nothing that was compared"
            )
        elif coverage.read is not None and not coverage.read.all():
            silent = int((~coverage.read).sum())
            yield f"{what} reads {silent} channels that were zero in all that was drawn"
        elif coverage.tap is False:
            yield f"no single element of {what} changes anything that was compared"
