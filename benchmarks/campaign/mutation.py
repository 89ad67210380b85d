"""Right folds made wrong in one way each, wherever it applies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.campaign.graph_faults import WIRING
from benchmarks.campaign.meaning_faults import MEANING
from benchmarks.campaign.number_faults import NUMBERS, Maker
from benchmarks.campaign.parameter_faults import READ
from benchmarks.campaign.subject import Mutant, Subject

_STORED: Final[dict[str, Maker]] = {**NUMBERS, **READ, **WIRING}
MAKERS: Final[dict[str, Maker]] = {**_STORED, **MEANING}
_ONE_IN: Final = 8
"""So often a fold is first spoiled in what its nodes mean."""


def mutants(subject: Subject) -> Iterator[Mutant]:
    """Yield candidates, of one kind after the other, in a drawn order, twice.

    Kinds of meaning have draws of their own: seeds that found a fault before there were any
    still do.
    """
    apart = subject.rng.spawn(1)[0]
    if apart.integers(_ONE_IN) == 0:
        other = Subject(subject.original, subject.folded, apart)
        yield from _made(other, list(MEANING))
    yield from _made(subject, [*_STORED, *_STORED])


def _made(subject: Subject, names: Sequence[str]) -> Iterator[Mutant]:
    for place in subject.rng.permutation(len(names)):
        found = MAKERS[names[int(place)]](subject)
        if found is not None:
            yield found
