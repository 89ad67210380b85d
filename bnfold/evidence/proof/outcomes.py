"""What comparing a value of two models can end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.comparer import Pair
from bnfold.evidence.proof.links import Gap, Link

SAME: Final = None
"""The relation of values that are the same in both models."""

UNMOVED: Final = "the result is the same for all numbers drawn: nothing was compared"

TOO_FAR: Final = "it hangs on too many nodes without a relation"

_ALIKE: Final = 1e-5
"""Two fits of one map agree within this; float16 noise is larger: real sizes decide there."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A value for which no relation was found.

    Attributes:
        name: Its name.
        gap: How far it is off; None if it could not be evaluated.
        nodes: The folded model's nodes that compute it from related values.
        maps: Those of these values that are not the same in both.
        why: Why it could not be evaluated.
    """

    name: str
    gap: Gap | None
    nodes: tuple[ir.Node, ...]
    maps: tuple[str, ...]
    why: str = ""

    @property
    def is_too_far(self) -> bool:
        """Whether it was not even tried."""
        return self.why == TOO_FAR


def is_unknown(outcome: Link | Lost | None) -> bool:
    """Return whether an attempt gave no answer."""
    return isinstance(outcome, Lost) and outcome.gap is None


def ways(
    pair: Pair | None, relations: Mapping[str, Link | None]
) -> tuple[tuple[ir.Node, ...], tuple[str, ...]]:
    """Return the nodes of the folded segment, and what it reads that is not the same."""
    if pair is None:
        return (), ()
    maps = tuple(read for read in pair.reads if relations.get(read) is not SAME)
    return pair.folded.nodes, maps


def differs(outcome: Link | Lost | None) -> bool:
    """Return whether a difference was found."""
    return isinstance(outcome, Lost) and outcome.gap is not None


def is_too_far(outcome: Link | Lost | None) -> bool:
    """Return whether a comparison was not even tried."""
    return isinstance(outcome, Lost) and outcome.is_too_far


def is_unmoved(outcome: Link | Lost | None) -> bool:
    """Return whether two values agreed, and were the same for all that was drawn."""
    return isinstance(outcome, Lost) and outcome.why == UNMOVED


def is_one_map(one: Link | Lost | None, other: Link | Lost | None) -> bool:
    """Return whether two sizes gave the same map, so that it does not hang on the size."""
    if not isinstance(one, Link) or not isinstance(other, Link) or one.axis != other.axis:
        return False
    pairs = ((one.scale, other.scale), (one.shift, other.shift))
    return all(
        a.shape == b.shape
        and bool(np.allclose(a, b, rtol=_ALIKE, atol=_ALIKE * np.abs(a).max()))
        for a, b in pairs
    )
