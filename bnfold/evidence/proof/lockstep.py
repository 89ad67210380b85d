"""Walk through two graphs side by side and show, value by value, what they have in common.

Values of the same name are candidates. One is *the same* in both models if the segments that
compute it, from values already known to be related, give the same numbers for drawn inputs.
A segment is evaluated in float64 with unrounded tensors, so agreement means agreement of
functions: two different affine functions agree on drawn inputs with probability zero, and
float64 resolves differences of 1e-9. A value may also be an affine map of its counterpart (a
scale under way from one weight to another); what follows is then judged with that relation.

So the proof is by induction from the inputs to the outputs, needs no relation to be told, and
never runs a whole model. Nothing is exposed or changed in the graphs to do so. And a segment
that passes is tested itself (see `selftest`): what its comparison cannot notice is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer
from bnfold.evidence.proof.dimensions import dimensions, discrete_values
from bnfold.evidence.proof.draws import BATCH
from bnfold.evidence.proof.empty_axes import (
    as_declared,
    has_empty,
    opened,
    why_not_shown,
)
from bnfold.evidence.proof.failing import CannotEvaluateError, TooLateError, looking_at
from bnfold.evidence.proof.given import drawable, given
from bnfold.evidence.proof.ladder import LONGEST, Ladder
from bnfold.evidence.proof.links import EXACT, Array, Link, gap
from bnfold.evidence.proof.mutations import Target, targets_at
from bnfold.evidence.proof.others import other_inputs
from bnfold.evidence.proof.outcomes import SAME, Lost, differs, is_unmoved
from bnfold.evidence.proof.rounding import furthest
from bnfold.evidence.proof.segments import ROUNDINGS, SegmentJudge, is_whole
from bnfold.evidence.proof.sides import Side
from bnfold.inputs.drawing import Binding, Case, is_too_much
from bnfold.inputs.drawing import Style as InputStyle
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import Role, Slot, inputs_of
from bnfold.inputs.sizes import Shapes, sized

_DEEPER: Final = 3
"""So often a value inside of the graph is tried again from further back."""

_WHOLE: Final = frozenset({Role.INDEX, Role.POSITION, Role.LENGTH, Role.COUNT, Role.FLAG})
"""What no arbitrary number can stand for."""

_OPEN_SIZES: Final = (64, 320, 2048, 16384)
"""Sizes of open axes, in turn until every window has a place: recordings need long ones."""

_HAZE: Final = (
    "on the way it seems off by a map that is no larger than rounding, and no difference shows"
    " where the whole models run"
)

_SPECIAL: Final = (
    "it differs for equal numbers, zeros, or numbers between two thresholds on the way, and"
    " numbers drawn for the inputs do not show whether any reach it"
)

_SMALL_NODES: Final = 800
_SMALL_ELEMENTS: Final = 1 << 22
"""Nodes of both models, and constants of each, up to which whole models are compared as soon
as a value has no relation."""


@dataclass(slots=True)
class Lockstep:
    """The walk: which values are related, and how.

    Attributes:
        comparer: Both models, and how a value is compared; holds what was found.
        judge: Compares segments, and keeps what was shown of them.
        shapes: Sizes of inputs that the user chose, for what the model leaves open.
        elsewhere: Whether axes of size 0 get another size: at 0, nothing may be seen.
        lost: Values with no relation, in graph order.
        same_nodes: How many nodes needed no evaluation.
        refuted: Outputs that clearly differ as the models stand; None while nobody has looked.
            If there are any, the walk goes on only to find out where they part.
    """

    comparer: Comparer
    judge: SegmentJudge
    shapes: Shapes = ()
    elsewhere: bool = False
    lost: dict[str, Lost] = field(default_factory=dict)
    same_nodes: int = 0
    refuted: dict[str, Lost] | None = None
    _ladder: Ladder = field(init=False)
    _stops: set[str] = field(default_factory=set)
    _dark: set[str] = field(default_factory=set)
    _discrete: frozenset[str] = frozenset()
    _differing: set[str] = field(default_factory=set)
    _declared: tuple[Slot, ...] = ()
    _case: Case | None = None

    def __post_init__(self) -> None:
        """Find relations by what the walk found so far."""
        self._ladder = Ladder(self.comparer, self.judge)

    @property
    def original(self) -> Side:
        """The one model."""
        return self.comparer.original

    @property
    def folded(self) -> Side:
        """The other."""
        return self.comparer.folded

    @property
    def relations(self) -> dict[str, Link | None]:
        """What was found, by value name: `SAME`, or a map."""
        return self.comparer.relations

    def run(self) -> None:
        """Walk from the inputs to the outputs."""
        self._prepare()
        for node in self.folded.model.graph:
            same = self.comparer.is_same(node)
            if all(self.folded.is_constant(value) for value in node.outputs):
                self.same_nodes += same
            elif same and self._reads_the_same(node):
                self.same_nodes += 1
                dark = any(value.name in self._dark for value in self.folded.reads(node))
                for value in node.outputs:
                    self._relate(value.name or "", SAME, dark=dark)
            else:
                for value in node.outputs:
                    with looking_at(value):
                        self._try(value)

    def _prepare(self) -> None:
        model = self.original.model
        hinted = sized(with_hints(inputs_of(model), model), self.shapes)[0]
        self._declared = as_declared(hinted, inputs_of(model))
        slots, declared = self._declared, inputs_of(model)
        if self.elsewhere:
            slots, declared = opened(slots), opened(declared)
        self.comparer.is_open = any(
            not isinstance(dim, int) for slot in declared for dim in (slot.dims or ())[1:]
        )
        for size in _OPEN_SIZES:
            larger = Case(Binding(batch=BATCH, size=size), InputStyle.NORMAL)
            if size > _OPEN_SIZES[0] and is_too_much(drawable(slots), larger.binding):
                break
            self._case = case = larger
            self.comparer.inputs = given(slots, case, self.comparer.seed)
            arrays = dict(self.comparer.inputs)
            found = dimensions(self.original, arrays, self.judge.deadline)
            self.comparer.dims = found.dims
            if not found.is_short:
                break
        self.comparer.others = other_inputs(drawable(slots), case, self.comparer.seed)
        drawn = {slot.name for slot in drawable(slots)}
        whole = [
            slot.name for slot in slots if slot.use.role in _WHOLE or slot.name not in drawn
        ]
        # Such an input is as it was drawn for the model: any other number is no index.
        known = self.comparer.dims.items()
        self.comparer.dims = {name: dims for name, dims in known if name not in whole}
        discrete = discrete_values(self.original, self.comparer.inputs, whole)
        self._discrete = frozenset(discrete)
        for slot in slots:
            self._relate(slot.name, SAME)

    def _relate(self, name: str, relation: Link | None, *, dark: bool = False) -> None:
        """Note a relation; what follows is computed from this value, unless it is dark.

        What is the same only because nothing of it is seen must not be drawn: a Conv that
        reads nothing but padding is the same as its negative, and arbitrary numbers in its
        place are not.
        """
        self.relations[name] = relation
        if dark:
            self._dark.add(name)
            return
        dims = None if name in self._discrete else self.comparer.dims.get(name)
        if dims is not None:
            self._stops.add(name)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            self._ladder.solid.add(name)

    def _reads_the_same(self, node: ir.Node) -> bool:
        return all(self._is_same_value(value) for value in self.folded.reads(node))

    def _is_same_value(self, value: ir.Value) -> bool:
        name = value.name or ""
        if name not in self.original.values:
            return False
        if self.folded.is_constant(value):
            return self.comparer.is_same_constant(value)
        return name in self.relations and self.relations[name] is SAME

    def _try(self, value: ir.Value) -> None:
        name = value.name or ""
        other = self.original.values.get(name)
        if other is None or self.original.is_constant(other):
            return
        outcome = self._found(other, value, self._stops, LONGEST, _DEEPER)
        if isinstance(outcome, Lost):
            self.lost[name] = outcome
            if differs(outcome):
                self._differing.add(name)
            if self.refuted is None and outcome.gap is not None and outcome.gap.is_clear:
                self.refuted = self._refuted()
                self.judge.is_brief = bool(self.refuted)
        else:
            self._relate(name, outcome, dark=name in self.judge.dark)

    def _found(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int, turns: int
    ) -> Link | Lost | None:
        """Return how two values are related, seen from values that are known."""
        found = self._ladder.from_further_back(original, folded, stops, limit, turns)
        if found is not SAME or not stops or self.judge.is_brief:
            return found
        return self._ladder.confirmed(original, folded, stops, limit, self._differing)

    def _refuted(self) -> dict[str, Lost]:
        """Return the outputs that clearly differ where whole models run on drawn inputs.

        A value that has no relation may be one on the way of a right fold. For small models it
        is cheaper to ask for the outputs than to look for what follows from it everywhere.
        """
        names = {value.name or "" for value in self.folded.model.graph.outputs}
        sides = (self.original, self.folded)
        if sum(len(side.position) for side in sides) > _SMALL_NODES or any(
            side.size > _SMALL_ELEMENTS for side in sides
        ):
            return {}
        found = {}
        for name in names:
            pair = (self.original.values[name], self.folded.values[name])
            outcome = self._ladder.compare(*pair, set(), _SMALL_NODES, whole=True)
            if isinstance(outcome, Lost) and outcome.gap is not None and outcome.gap.is_clear:
                found[name] = outcome
        return found

    def settle(self, output: str) -> Link | Lost | None:
        """Return the relation of a graph output, looking back as far as it takes.

        A relation found by the way may hold only for the values that occur there (behind a
        Softmax, say); so an output that seems lost is looked at again from values that are the
        same in both, and from the inputs of the model.
        """
        value, other = self.folded.values[output], self.original.values[output]
        with looking_at(value):
            return self._settled(output, other, value)

    def _settled(self, output: str, other: ir.Value, value: ir.Value) -> Link | Lost | None:
        if self.refuted and output in self.refuted:  # whatever seemed the same on the way
            return self.lost.get(output) or self.refuted[output]
        if output in self.relations and self.relations[output] is SAME:
            return SAME
        if self.original.is_constant(other) and self.folded.is_constant(value):
            return self._settle_constant(other, value)
        everything = len(self.folded.position) + len(self.original.position)
        firm = {name for name in self._stops if self.relations[name] is SAME} - {output}
        first: Lost | None = self.lost.get(output)
        # What hangs on constants alone in one of the models has no relation yet: none is not
        # SAME, so the map that is found here is kept.
        link: Link | None = self.relations.get(output)
        # A map is a doubt as a difference is: numbers drawn for the inputs may hide either.
        doubted = differs(first) or link is not None
        for stops, deeper in ((firm, everything), (set[str](), 0)):
            outcome = self._found(other, value, stops, everything, deeper)
            is_firm = outcome is SAME and (stops or not doubted)
            # No input moves it: what differs for values drawn on the way never does.
            if is_firm or (not stops and is_unmoved(outcome)):
                return outcome
            if outcome is SAME and self.is_shown(value):
                return self._unsaid(other, value, everything, first)
            doubted = doubted or differs(outcome) or isinstance(outcome, Link)
            link = outcome if link is None and isinstance(outcome, Link) else link
            if isinstance(outcome, Lost) and not differs(first):
                first = outcome
        is_haze = first is None and outcome is SAME and self._is_haze(link)
        return Lost(output, None, (), (), _HAZE) if is_haze else first or link

    def _unsaid(
        self, original: ir.Value, folded: ir.Value, limit: int, first: Lost | None
    ) -> Lost | None:
        """Return what is left of a difference that no drawn input of the model shows."""
        if first is not None and first.gap is not None and first.gap.is_special:
            return Lost(folded.name or "", None, (), (), _SPECIAL)
        return self._ladder.unsaid(original, folded, limit, first)

    def _is_haze(self, link: Link | None) -> bool:
        """Return whether a map is no more than what maps found beside rounding are off by."""
        most = ROUNDINGS * self.comparer.noise.coarsest
        return link is not None and most > 0.0 and not link.moves(most).any()

    def _settle_constant(self, original: ir.Value, folded: ir.Value) -> Link | Lost | None:
        """Return the relation of an output that no input moves."""
        if self._is_same_value(folded):  # a constant sequence too, which has no numbers
            return SAME
        if original.producer() is not None and folded.producer() is not None:
            return self._ladder.compare(original, folded, set(), 1, whole=True)
        try:
            wide, held = self.original.constant(original), self.folded.constant(folded)
        except TooLateError:
            raise
        except CannotEvaluateError as error:
            return Lost(folded.name or "", None, (), (), str(error))
        found, tensor = gap(wide, held), folded.const_value
        if found.size <= EXACT or (tensor is not None and _is_rounded(tensor, wide)):
            return SAME
        return Lost(folded.name or "", found, (), ())

    @property
    def has_empty_axis(self) -> bool:
        """Whether an axis of an input is declared to be of size 0."""
        return has_empty(self._declared)

    def why_not_as_declared(self) -> str:
        """Return why what was found at other sizes does not hold at the declared ones."""
        if self._case is None or not self.elsewhere:
            return ""
        return why_not_shown(self.comparer, self._declared, self._case)

    def is_shown(self, value: ir.Value) -> bool:
        """Return whether all that is new in what computes a value was shown to be compared."""
        return all(is_whole(self.judge.coverage, one) for one in self.novelties([value]))

    def novelties(self, values: list[ir.Value]) -> Iterator[Target]:
        """Yield every constant that is new in what computes values of the folded model."""
        seen: set[ir.Node] = set()
        pending = list(values)
        while pending:
            node = pending.pop().producer()
            if node is None or node in seen or node not in self.folded.position:
                continue
            seen.add(node)
            yield from targets_at(node, self.folded, self.comparer)
            pending.extend(
                value
                for value in self.folded.reads(node)
                if not self.folded.is_constant(value)
            )


def _is_rounded(tensor: ir.TensorProtocol, wide: Array) -> bool:
    """Return whether a stored tensor is these numbers, rounded to its type."""
    stored = np.asarray(tensor.numpy())
    if stored.shape != wide.shape or not tensor.dtype.is_floating_point():
        return False
    return furthest(stored, wide) is None
