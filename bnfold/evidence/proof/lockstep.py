"""Walk through two graphs side by side and show, value by value, what they have in common.

Values of the same name are candidates. One is *the same* in both models if the segments that
compute it, from values already known to be related, give the same numbers for drawn inputs.
A segment is evaluated in float64 with unrounded tensors, so agreement means agreement of
functions: two different affine functions agree on drawn inputs with probability zero, and
float64 resolves differences of 1e-9. A value may also be an affine map of its counterpart (a
scale under way from one weight to another); what follows is then judged with that relation.

So the proof is by induction from the inputs to the outputs, needs no relation to be told, and
never runs a whole model. Nothing is exposed or changed in the graphs to do so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.draws import (
    BATCH,
    Dims,
    Sizes,
    Style,
    dimensions,
    draw,
    shape_of,
    styles_for,
)
from bnfold.evidence.proof.impulses import MOST, impulses, is_affine
from bnfold.evidence.proof.links import EXACT, Array, Gap, Link, fits, gap
from bnfold.evidence.proof.sides import CannotEvaluateError, NudgedSide, Segment, Side
from bnfold.evidence.proof.storage import MORE_NUDGES, NUDGES, Trial, weigh
from bnfold.inputs.drawing import Binding, Case, draw_inputs
from bnfold.inputs.drawing import Style as InputStyle
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import inputs_of
from bnfold.model.graphs import graphs_of, subgraphs_of

SAME: Final = None
"""The relation of values that are the same in both models."""

_LONGEST: Final = 48
"""Nodes of a segment that is tried for a value inside of the graph."""

_ENOUGH: Final = 0.5
_MATRIX: Final = 2
_TOO_FAR: Final = "it hangs on too many nodes without a relation"
TOO_LATE: Final = "the time was up"


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
        return self.why == _TOO_FAR


@dataclass(slots=True)
class Lockstep:
    """The walk: which values are related, and how.

    Attributes:
        original: The one model.
        folded: The other.
        is_same: Says of a node of the folded model whether it is the same, byte for byte.
        same_tensors: Initializers that are the same in both.
        rounded: Initializers of the folded model whose unrounded elements are not known.
        coarsest: Half an ulp of one, in the coarsest type of these.
        seed: Of all draws.
        deadline: By the monotonic clock; what is not compared by then stays open.
        relations: What was found, by value name: `SAME`, or a map.
        lost: Values with none, in graph order.
        with_impulses: Whether affine segments are probed by every impulse too.
        probed: How many were.
        windows: How many segments were evaluated.
        same_nodes: How many nodes needed no evaluation.
    """

    original: Side
    folded: Side
    is_same: Callable[[ir.Node], bool]
    same_tensors: frozenset[str]
    rounded: frozenset[str] = frozenset()
    coarsest: float = 0.0
    seed: int = 0
    deadline: float = math.inf
    with_impulses: bool = False
    probed: int = 0
    relations: dict[str, Link | None] = field(default_factory=dict)
    lost: dict[str, Lost] = field(default_factory=dict)
    windows: int = 0
    same_nodes: int = 0
    _stops: set[str] = field(default_factory=set)
    _solid: set[str] = field(default_factory=set)
    _hazy: set[str] = field(default_factory=set)
    _dims_by_name: Mapping[str, Dims] = field(default_factory=dict)
    _inputs: Mapping[str, Array] = field(default_factory=dict)
    _nudged: list[NudgedSide] = field(default_factory=list)

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline

    def run(self) -> None:
        """Walk from the inputs to the outputs."""
        self._prepare()
        for node in self.folded.model.graph:
            if all(self.folded.is_constant(value) for value in node.outputs):
                self.same_nodes += self.is_same(node)
            elif self.is_same(node) and self._reads_the_same(node):
                self.same_nodes += 1
                for value in node.outputs:
                    self._relate(value.name or "", SAME)
            else:
                for value in node.outputs:
                    self._try(value)

    def _prepare(self) -> None:
        model = self.original.model
        slots = with_hints(inputs_of(model), model)
        case = Case(Binding(batch=BATCH), InputStyle.NORMAL)
        self._inputs = draw_inputs(slots, case, self.seed)
        self._dims_by_name = dimensions(model, self._inputs)
        for slot in slots:
            self._relate(slot.name, SAME)

    def _relate(self, name: str, relation: Link | None) -> None:
        self.relations[name] = relation
        if relation is not None and relation.hazy:
            self._hazy.add(name)
        dims = self._dims(name)
        if dims is not None:
            self._stops.add(name)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            self._solid.add(name)

    def _dims(self, name: str) -> Dims | None:
        """Return the dimensions of a value that can be drawn; None if it cannot."""
        return self._dims_by_name.get(name)

    def _reads_the_same(self, node: ir.Node) -> bool:
        return all(self._is_same_value(value) for value in self.folded.reads(node))

    def _is_same_value(self, value: ir.Value) -> bool:
        name = value.name or ""
        other = self.original.values.get(name)
        if other is None:
            return False
        if not self.folded.is_constant(value):
            return name in self.relations and self.relations[name] is SAME
        if value.producer() is None:
            return self.folded.key_of(value) in self.same_tensors
        producer = value.producer()
        return (
            producer is not None and self.is_same(producer) and self._reads_the_same(producer)
        )

    def _try(self, value: ir.Value) -> None:
        name = value.name or ""
        other = self.original.values.get(name)
        if other is None or self.original.is_constant(other):
            return
        outcome = self.compare(other, value, self._stops, _LONGEST)
        if isinstance(outcome, Lost):
            self.lost[name] = outcome
        else:
            self._relate(name, outcome)

    def settle(self, output: str) -> Link | Lost | None:
        """Return the relation of a graph output, looking back as far as it takes.

        A relation found by the way may hold only for the values that occur there (behind a
        Softmax, say); so an output that seems lost is looked at again from values that are the
        same in both, and from the inputs of the model.
        """
        value, other = self.folded.values[output], self.original.values[output]
        if output in self.relations and self.relations[output] is SAME:
            return SAME
        if self.original.is_constant(other) and self.folded.is_constant(value):
            found = gap(self.original.constant(other), self.folded.constant(value))
            return SAME if found.size <= EXACT else Lost(output, found, (), ())
        everything = len(self.folded.position) + len(self.original.position)
        firm = {name for name in self._stops if self.relations[name] is SAME} - {output}
        first: Lost | None = self.lost.get(output)
        for stops in (firm, set[str]()):
            if not stops and first is not None and first.gap is not None:
                break  # drawn inputs of the whole model may not wake what differs
            outcome = self.compare(other, value, stops, everything, whole=not stops)
            if outcome is SAME:
                return SAME
            if isinstance(outcome, Lost) and (first is None or first.gap is None):
                first = outcome
        return first or self.relations.get(output)

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

        Short axes are tried first. What is found there holds only where it is the same: a
        graph may compute with the sizes it sees.
        """
        found: Link | Lost | None = Lost(folded.name or "", None, (), (), _TOO_FAR)
        for sizes, known in ((Sizes.CUT, False), (Sizes.REAL, False), (Sizes.REAL, True)):
            if whole and not known:
                continue
            near = self._solid & stops if known else stops
            attempt = self._attempt(original, folded, near, limit, sizes)
            if attempt is SAME:
                return SAME
            if not isinstance(attempt, Lost) or (
                not isinstance(found, Link) and (attempt.gap or not attempt.is_too_far)
            ):
                found = attempt
            if sizes is Sizes.REAL and not _is_unknown(found):
                return found
        return found

    def _attempt(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int, sizes: Sizes
    ) -> Link | Lost | None:
        """Evaluate the segments of two values behind ``stops``, on arrays of these sizes."""
        name = folded.name or ""
        if self.is_late:
            return Lost(name, None, (), (), TOO_LATE)
        pair = self._segments(original, folded, stops, limit)
        if pair is None:
            return Lost(name, None, (), (), _TOO_FAR)
        one, two = pair
        reads = dict.fromkeys((*one.inputs, *two.inputs))
        maps = tuple(read for read in reads if self.relations.get(read) is not SAME)
        try:
            trials = self._trials(one, two, sizes)
        except CannotEvaluateError as error:
            return Lost(name, None, two.nodes, maps, str(error))
        self.windows += 1
        verdict = self._weigh(trials)
        if verdict is not SAME and trials[0].nudged:
            verdict = self._weigh(self._trials(one, two, sizes, MORE_NUDGES))
        if verdict is SAME and self.with_impulses:
            verdict = self._probe(one, two, sizes)
        if isinstance(verdict, Gap):
            return Lost(name, verdict, two.nodes, maps)
        if verdict is not SAME and not self._spans(verdict, name):
            return Lost(name, None, two.nodes, maps, "it is mapped along an axis cut short")
        return verdict

    def _probe(self, one: Segment, two: Segment, sizes: Sizes) -> Gap | None:
        """Hold two affine segments against each other at zero and at every impulse."""
        dims = self._dims(two.inputs[0]) if two.inputs else None
        if dims is None or one.inputs != two.inputs or self._is_noisy(two):
            return SAME
        shape = shape_of(dims, sizes)
        affine = is_affine(one, self.original) and is_affine(two, self.folded)
        if not affine or len(shape) < _MATRIX or math.prod(shape[1:]) > MOST:
            return SAME
        try:
            for batch in impulses(shape):
                mapped = {two.inputs[0]: self._mapped(two.inputs[0], batch)}
                expected = self.original.evaluate(one, {one.inputs[0]: batch})
                found = gap(expected, self.folded.evaluate(two, mapped))
                if found.size > EXACT:
                    return found
        except CannotEvaluateError:
            return SAME  # the graph holds only for its own batch size
        self.probed += 1
        return SAME

    def _segments(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int
    ) -> tuple[Segment, Segment] | None:
        """Return what computes two values from the same others, as near as possible.

        Where one side stops at a value and the other at one behind it, both go on: drawn
        apart, the two would not fit together.
        """
        found = None
        while True:
            one = self.original.segment(original, stops, limit)
            two = self.folded.segment(folded, stops, limit)
            if one is None or two is None:
                return found
            found = one, two
            apart = (set(one.inputs) ^ set(two.inputs)) & stops
            if not apart:
                return found
            stops = stops - apart

    def _weigh(self, trials: Sequence[Trial]) -> Link | Gap | None:
        gaps = [gap(trial.original, trial.folded) for trial in trials]
        worst = max(gaps, key=lambda one: one.size)
        if worst.size <= EXACT:
            return SAME
        if trials[0].nudged:
            noisy = weigh(trials)
            if noisy.size <= 1.0:
                return SAME
            worst = noisy
        first, *others = trials
        for link in fits(first.original, first.folded):
            fitted = [trial._replace(original=link(trial.original)) for trial in others]
            fitted.append(first._replace(original=link(first.original)))
            if all(gap(trial.folded, trial.original).size <= EXACT for trial in fitted):
                return link
            if first.nudged and weigh(fitted).size <= 1.0:
                return replace(link, hazy=True)
        return worst

    def _trials(
        self, one: Segment, two: Segment, sizes: Sizes, nudges: int = NUDGES
    ) -> list[Trial]:
        """Evaluate both segments on two draws; on positive numbers if others give none."""
        known = [self._dims(name) for name in dict.fromkeys((*one.inputs, *two.inputs))]
        shapes = [shape_of(dims, sizes) for dims in known if dims is not None]
        styles = styles_for(shapes)
        trials = [self._trial(one, two, sizes, style, nudges) for style in styles]
        if any(_is_void(trial.original) for trial in trials):
            trials = [self._trial(one, two, sizes, Style.POSITIVE, nudges)]
            if _is_void(trials[0].original):
                message = "it is no number for any of the numbers drawn"
                raise CannotEvaluateError(message)
        return trials

    def _trial(
        self, one: Segment, two: Segment, sizes: Sizes, style: Style, nudges: int
    ) -> Trial:
        names = dict.fromkeys((*one.inputs, *two.inputs))
        drawn = {name: self._drawn(name, sizes, style) for name in names}
        mapped = {name: self._mapped(name, drawn[name]) for name in two.inputs}
        original = self.original.evaluate(one, drawn)
        folded = self.folded.evaluate(two, mapped)
        nudged: list[Array] = []
        if self._is_noisy(two):
            nudged = [
                side.evaluate(two, self._shaken(two, drawn, place))
                for place, side in enumerate(self._nudged_sides(nudges))
            ]
        return Trial(original, folded, nudged)

    def _is_noisy(self, segment: Segment) -> bool:
        """Return whether something in a segment is known no better than it is stored."""
        if any(self.is_rounded(node) for node in segment.nodes):
            return True
        if any(name in self._hazy for name in segment.inputs):
            return True
        return bool(self.rounded) and self._has_rounded(segment.nodes)

    def is_rounded(self, node: ir.Node) -> bool:
        """Return whether a node changed and has numbers among its attributes.

        Those are stored in float32, and nothing tells what they were rounded from. A
        HardSwish has a sixth among its constants, whoever spells it out has it rounded.
        """
        floats = (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS)
        found = any(attribute.type in floats for attribute in node.attributes.values())
        return (found or node.op_type == "HardSwish") and not self.is_same(node)

    def _nudged_sides(self, count: int) -> Sequence[NudgedSide]:
        while len(self._nudged) < count:
            rng = np.random.default_rng((self.seed, len(self._nudged)))
            side = NudgedSide(self.folded, self.rounded, self.is_rounded, rng)
            self._nudged.append(side)
        return self._nudged[:count]

    def _shaken(
        self, segment: Segment, drawn: Mapping[str, Array], place: int
    ) -> dict[str, Array]:
        """Return the inputs with their maps known no better than tensors are stored."""
        rng = np.random.default_rng((self.seed, place, len(segment.nodes)))
        feeds: dict[str, Array] = {}
        for name in segment.inputs:
            relation = self.relations.get(name)
            feeds[name] = self._mapped(name, drawn[name])
            if relation is not None and relation.hazy:
                feeds[name] = relation.shaken(self.coarsest, rng)(drawn[name])
        return feeds

    def _has_rounded(self, nodes: Iterable[ir.Node]) -> bool:
        read = (value for node in nodes for value in self.folded.reads(node))
        inner = (
            value
            for node in nodes
            for subgraph in subgraphs_of(node)
            for graph in graphs_of(subgraph)
            for value in graph.initializers.values()
        )
        return any(self.folded.hangs_on(value, self.rounded) for value in (*read, *inner))

    def _drawn(self, name: str, sizes: Sizes, style: Style) -> Array:
        dims = self._dims(name)
        if dims is None:
            if name in self._inputs:
                return np.asarray(self._inputs[name])
            message = f"nothing is known of the size of {name!r}"
            raise CannotEvaluateError(message)
        return draw(name, shape_of(dims, sizes), style, self.seed)

    def _spans(self, link: Link, name: str) -> bool:
        """Return whether a map has an entry for all of an axis, not for a part cut short."""
        dims = self._dims(name)
        if link.axis is None or dims is None:
            return True
        return dims[link.axis] == link.scale.size

    def _mapped(self, name: str, drawn: Array) -> Array:
        relation = self.relations.get(name)
        if relation is None:
            return drawn
        if relation.axis is not None and drawn.shape[relation.axis] != relation.scale.size:
            message = f"{name!r} is mapped along an axis that was cut short"
            raise CannotEvaluateError(message)
        return relation(drawn)


def _is_unknown(outcome: Link | Lost | None) -> bool:
    """Return whether an attempt gave no answer."""
    return isinstance(outcome, Lost) and outcome.gap is None


def _is_void(array: Array) -> bool:
    """Return whether more than half of an array is no number."""
    if array.dtype != np.float64 or not array.size:
        return False
    return bool(np.isnan(array).mean() > _ENOUGH)
