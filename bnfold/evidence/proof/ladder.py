"""Compare a value of two models on ever longer axes, and from ever further back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.extents import Sizes
from bnfold.evidence.proof.links import Gap, Link
from bnfold.evidence.proof.outcomes import (
    SAME,
    TOO_FAR,
    Lost,
    differs,
    is_one_map,
    is_too_far,
    is_unknown,
    ways,
)
from bnfold.evidence.proof.segments import SegmentJudge
from bnfold.evidence.proof.sides import TOO_LATE, CannotEvaluateError

LONGEST: Final = 48
"""Nodes of a segment that is tried for a value inside of the graph."""

_LADDER: Final = (
    (Sizes.SHORT, False),
    (Sizes.LONGER, False),
    (Sizes.REAL, False),
    (Sizes.REAL, True),
)
"""Sizes in turn; at last only from values all of whose sizes are known."""


@dataclass(slots=True)
class Ladder:
    """Finds how two values are related.

    Attributes:
        comparer: Both models, and the relations known so far.
        judge: Compares two segments on arrays of given sizes.
        solid: Names of related values all of whose sizes are known.
    """

    comparer: Comparer
    judge: SegmentJudge
    solid: set[str] = field(default_factory=set)

    def from_further_back(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int, turns: int
    ) -> Link | Lost | None:
        """Compare; if that fails from values that hang on one another, compare without these.

        Drawn apart, a value and one that is computed from it do not fit together: y = a + b
        is 2·a where b is 1·a, but not for every a and b.
        """
        whole = not stops
        if self._pair(original, folded, stops, limit) is None:  # fewer stops take more nodes
            return Lost(folded.name or "", None, (), (), TOO_FAR)
        outcome = self.compare(original, folded, stops, limit, whole=whole)
        first = outcome
        for _ in range(0 if self.judge.is_brief else turns):
            if not isinstance(outcome, Lost) or outcome.gap is None or self.judge.is_late:
                break
            pair = self._pair(original, folded, stops, limit)
            tied = set() if pair is None else self._tied(pair, stops)
            if not tied:
                break
            stops = stops - tied
            outcome = self.compare(original, folded, stops, limit, whole=whole)
        return SAME if outcome is SAME else first

    def _untied(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int
    ) -> Pair | None:
        """Return what computes two values from such as do not hang on one another."""
        while True:
            pair = self._pair(original, folded, stops, limit)
            tied = set() if pair is None else self._tied(pair, stops)
            if not tied:
                return pair
            stops = stops - tied

    def _tied(self, pair: Pair, stops: Collection[str]) -> set[str]:
        """Return the inputs of segments that are computed from others of them."""
        reads = set(pair.reads)
        found = set()
        for name in reads & set(stops):
            value = self.comparer.original.values.get(name)
            if value is None or value.producer() is None:
                continue
            behind = self.comparer.original.segment(value, reads - {name}, LONGEST)
            if behind is None or reads & set(behind.inputs):
                found.add(name)
        return found

    def compare(
        self,
        original: ir.Value,
        folded: ir.Value,
        stops: set[str],
        limit: int,
        *,
        whole: bool = False,
    ) -> Link | Lost | None:
        """Return how two values are related if the values ``stops`` are, as is known.

        Short axes are tried first. A map, or a difference, that is found there may hang on the
        sizes that a graph sees, so longer axes have to agree, or the real ones decide. Where a
        self-test leaves something unseen, longer axes are tried too.
        """
        found: Link | Lost | None = Lost(folded.name or "", None, (), (), TOO_FAR)
        looked: list[tuple[Pair | None, Sizes]] = []
        for sizes, known in _LADDER:
            if (whole and not known) or _is_needless(found, sizes, known=known):
                continue
            near = self.solid & stops if known else stops
            pair = self._pair(original, folded, near, limit)
            if differs(found) and self._is_one_of(looked, pair, sizes):
                continue  # another draw at these sizes does not unsay a difference
            looked.append((pair, sizes))
            # An exact map may hang on the size, as a shift that is summed up does; or one draw
            # shows it and another hides it, as a Relu that is shut does: so it is drawn anew.
            is_map = isinstance(found, Link) and not found.hazy
            doubted = is_map or differs(found)
            attempt, is_whole = self._attempt(folded, pair, sizes, doubted=doubted)
            if attempt is SAME and is_whole and (sizes is Sizes.REAL or not doubted):
                return SAME
            if (is_whole and is_one_map(found, attempt)) or (
                self.judge.is_brief
                and differs(attempt)  # to say where they part, these sizes do
            ):
                return attempt
            if not is_unknown(attempt) or (is_unknown(found) and not is_too_far(attempt)):
                found = attempt  # longer axes know better
        return found

    def confirmed(
        self,
        original: ir.Value,
        folded: ir.Value,
        stops: set[str],
        limit: int,
        differing: Collection[str],
    ) -> Lost | None:
        """Return how far apart two values are that seemed the same behind one that differs.

        What is off on the way may be no longer, as what a Clip bounds again; or a Relu that is
        shut hid it, for the few numbers drawn. Values that hang on one another are not drawn
        apart here either: for these, right folds differ.

        Args:
            original: The value of the one model.
            folded: The value of the other.
            stops: Names of values that are not computed.
            limit: How many nodes may compute them.
            differing: Names of values that were found to differ.
        """
        if not differing:  # in a right fold of a long graph: nothing is looked for
            return SAME
        pair = self._untied(original, folded, stops, limit)
        nodes = () if pair is None else pair.folded.nodes
        names = (value.name or "" for node in nodes for value in node.outputs)
        if not any(name in differing for name in names):
            return SAME
        return self._elsewhere(folded, pair, None)

    def unsaid(
        self, original: ir.Value, folded: ir.Value, limit: int, doubt: Lost | None
    ) -> Lost | None:
        """Return how far apart two outputs are for other inputs of the model; SAME if nothing.

        Drawn inputs of the whole model did wake what is new, and show no difference that was
        seen on the way. One set of inputs may have hidden it, so there are more.

        Args:
            original: The output of the one model.
            folded: The output of the other.
            limit: How many nodes may compute them.
            doubt: What was found before, and stays if these inputs show it again.
        """
        return self._elsewhere(folded, self._pair(original, folded, set(), limit), doubt)

    def _elsewhere(
        self, folded: ir.Value, pair: Pair | None, doubt: Lost | None
    ) -> Lost | None:
        try:
            found = None if pair is None else self.judge.differs_elsewhere(pair)
        except CannotEvaluateError:
            found = None
        if pair is None or found is None:
            return SAME
        return doubt or Lost(folded.name or "", found, *ways(pair, self.comparer.relations))

    def _is_one_of(
        self, looked: Iterable[tuple[Pair | None, Sizes]], pair: Pair | None, sizes: Sizes
    ) -> bool:
        """Return whether axes of these lengths were compared before."""
        lengths = self._lengths(pair, sizes)
        return any(self._lengths(*one) == lengths for one in looked)

    def _lengths(self, pair: Pair | None, sizes: Sizes) -> Mapping[str, tuple[int, ...]]:
        """Return how long the axes are on which a difference may hang: any but the batch."""
        shapes = {} if pair is None else self.comparer.shapes(pair, sizes)
        return {name: shape[1:] if len(shape) > 1 else shape for name, shape in shapes.items()}

    def _attempt(
        self, folded: ir.Value, pair: Pair | None, sizes: Sizes, *, doubted: bool
    ) -> tuple[Link | Lost | None, bool]:
        """Evaluate the segments of two values on arrays of these sizes.

        Returns:
            How they are related, and whether all that is new in them was shown to matter.
        """
        name = folded.name or ""
        if self.judge.is_late:
            return Lost(name, None, (), (), TOO_LATE), False
        if pair is None:
            return Lost(name, None, (), (), TOO_FAR), False
        nodes, maps = ways(pair, self.comparer.relations)
        try:
            verdict = self.judge.verdict(pair, sizes)
            if verdict is SAME and doubted and sizes is Sizes.REAL:
                verdict = self.judge.differs_elsewhere(pair)
        except CannotEvaluateError as error:
            return Lost(name, None, nodes, maps, str(error)), False
        if isinstance(verdict, Gap):
            return Lost(name, verdict, nodes, maps), False
        if verdict is not SAME and not self._spans(verdict, name):
            why = "it is mapped along an axis cut short"
            return Lost(name, None, nodes, maps, why), False
        return verdict, not any(self.judge.blind(pair))

    def _pair(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int
    ) -> Pair | None:
        """Return what computes two values from the same others, as near as possible.

        Where one side stops at a value and the other at one behind it, both go on: drawn
        apart, the two would not fit together.
        """
        found = None
        while True:
            one = self.comparer.original.segment(original, stops, limit)
            two = self.comparer.folded.segment(folded, stops, limit)
            if one is None or two is None:
                return found
            found = Pair(one, two)
            apart = (set(one.inputs) ^ set(two.inputs)) & stops
            if not apart:
                return found
            stops = stops - apart

    def _spans(self, link: Link, name: str) -> bool:
        """Return whether a map has an entry for all of an axis, not for a part cut short."""
        dims = self.comparer.dims.get(name)
        if link.axis is None or dims is None:
            return True
        return dims[link.axis] == link.scale.size


def _is_needless(found: Link | Lost | None, sizes: Sizes, *, known: bool) -> bool:
    """Return whether these sizes add nothing: there is no answer yet, or one of real sizes."""
    if sizes is Sizes.LONGER:
        return is_unknown(found)
    return known and found is not SAME and not is_unknown(found)
