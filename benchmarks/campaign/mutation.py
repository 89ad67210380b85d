"""Right folds made wrong in one way each, wherever it applies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.campaign.graph_faults import WIRING
from benchmarks.campaign.meaning_faults import MEANING
from benchmarks.campaign.number_faults import NUMBERS, Maker
from benchmarks.campaign.parameter_faults import READ
from benchmarks.campaign.subject import Mutant, Subject

MAKERS: Final[dict[str, Maker]] = {**NUMBERS, **READ, **WIRING, **MEANING}


def mutants(subject: Subject) -> Iterator[Mutant]:
    """Yield candidates, of one kind after the other, in a drawn order, twice."""
    names = [*MAKERS, *MAKERS]
    for place in subject.rng.permutation(len(names)):
        found = MAKERS[names[int(place)]](subject)
        if found is not None:
            yield found
