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

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.dimensions import dimensions, discrete_values
from bnfold.evidence.proof.draws import BATCH, Style
from bnfold.evidence.proof.extents import Sizes
from bnfold.evidence.proof.fronts import fronts
from bnfold.evidence.proof.impulses import probe
from bnfold.evidence.proof.links import EXACT, Gap, Link, gap
from bnfold.evidence.proof.mutations import Target, targets_at, targets_of
from bnfold.evidence.proof.others import other_inputs
from bnfold.evidence.proof.selftest import Coverage, SelfTest
from bnfold.evidence.proof.sides import TOO_LATE, CannotEvaluateError, Side
from bnfold.evidence.proof.storage import MORE_NUDGES, Trial
from bnfold.inputs.drawing import Binding, Case, draw_inputs, is_too_much
from bnfold.inputs.drawing import Style as InputStyle
from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import inputs_of
from bnfold.inputs.sizes import Shapes, sized

Key = tuple[ir.Node, ir.Value | str]
"""What tells a constant that is new, see `Target.key`."""

SAME: Final = None
"""The relation of values that are the same in both models."""

_LONGEST: Final = 48
"""Nodes of a segment that is tried for a value inside of the graph."""

_DEEPER: Final = 3
"""So often a value inside of the graph is tried again from further back."""

_ALIKE: Final = 1e-5
"""Two fits of one map agree within this; float16 noise is larger: real sizes decide there."""

_OPEN_SIZES: Final = (64, 320, 2048, 16384)
"""Sizes of open axes, in turn until every window has a place: recordings need long ones."""

_LEAST_S: Final = 0.25
_TIMES: Final = 3.0
"""What a self-test may take, at the least, and in times of the comparison that it tests."""

_TOO_FAR: Final = "it hangs on too many nodes without a relation"
_UNMOVED: Final = "the result is the same for all numbers drawn: nothing was compared"


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
        comparer: Both models, and how a value is compared; holds what was found.
        deadline: By the monotonic clock; what is not compared by then stays open.
        shapes: Sizes of inputs that the user chose, for what the model leaves open.
        with_impulses: Whether affine segments are probed by every impulse too.
        lost: Values with no relation, in graph order.
        probed: How many segments were probed by impulses.
        windows: How many segments were evaluated.
        elements: How many elements of results were found to agree.
        same_nodes: How many nodes needed no evaluation.
        coverage: What self-tests of comparisons that ended in "the same" showed, for each
            constant that is new.
        mapped: What those of comparisons that ended in a map showed, by the value mapped. It
            counts for what follows from that value alone: whoever goes back behind it
            compares anew, and has to see for himself.
    """

    comparer: Comparer
    deadline: float = math.inf
    with_impulses: bool = False
    shapes: Shapes = ()
    lost: dict[str, Lost] = field(default_factory=dict)
    probed: int = 0
    windows: int = 0
    elements: int = 0
    same_nodes: int = 0
    coverage: dict[Key, Coverage] = field(default_factory=dict)
    mapped: dict[str, dict[Key, Coverage]] = field(default_factory=dict)
    _stops: set[str] = field(default_factory=set)
    _solid: set[str] = field(default_factory=set)
    _discrete: frozenset[str] = frozenset()

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

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.deadline

    def run(self) -> None:
        """Walk from the inputs to the outputs."""
        self._prepare()
        for node in self.folded.model.graph:
            same = self.comparer.is_same(node)
            if all(self.folded.is_constant(value) for value in node.outputs):
                self.same_nodes += same
            elif same and self._reads_the_same(node):
                self.same_nodes += 1
                for value in node.outputs:
                    self._relate(value.name or "", SAME)
            else:
                for value in node.outputs:
                    self._try(value)

    def _prepare(self) -> None:
        model = self.original.model
        slots = sized(with_hints(inputs_of(model), model), self.shapes)[0]
        for size in _OPEN_SIZES:
            larger = Case(Binding(batch=BATCH, size=size), InputStyle.NORMAL)
            if size > _OPEN_SIZES[0] and is_too_much(slots, larger.binding):
                break
            case = larger
            self.comparer.inputs = draw_inputs(slots, case, self.comparer.seed)
            found = dimensions(self.original, self.comparer.inputs, self.deadline)
            self.comparer.dims = found.dims
            if not found.is_short:
                break
        self.comparer.others = other_inputs(slots, case, self.comparer.seed)
        self._discrete = frozenset(discrete_values(self.original, self.comparer.inputs))
        for slot in slots:
            self._relate(slot.name, SAME)

    def _relate(self, name: str, relation: Link | None) -> None:
        self.relations[name] = relation
        dims = None if name in self._discrete else self.comparer.dims.get(name)
        if dims is not None:
            self._stops.add(name)
        if dims is not None and all(isinstance(dim, int) for dim in dims):
            self._solid.add(name)

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
        outcome = self._from_further_back(other, value, self._stops, _LONGEST, _DEEPER)
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
        for stops, deeper in ((firm, everything), (set[str](), 0)):
            outcome = self._from_further_back(other, value, stops, everything, deeper)
            if outcome is SAME and (stops or first is None or first.gap is None):
                return SAME
            if outcome is SAME and self.is_shown(value):
                return SAME  # drawn inputs of the whole model did wake what is new
            if isinstance(outcome, Lost) and (first is None or first.gap is None):
                first = outcome
        return first or self.relations.get(output)

    def _from_further_back(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int, turns: int
    ) -> Link | Lost | None:
        """Compare; if that fails from values that hang on one another, compare without these.

        Drawn apart, a value and one that is computed from it do not fit together: y = a + b
        is 2·a where b is 1·a, but not for every a and b.
        """
        whole = not stops
        outcome = self.compare(original, folded, stops, limit, whole=whole)
        first = outcome
        for _ in range(turns):
            if not isinstance(outcome, Lost) or outcome.gap is None or self.is_late:
                break
            pair = self._pair(original, folded, stops, limit)
            tied = set() if pair is None else self._tied(pair, stops)
            if not tied:
                break
            stops = stops - tied
            outcome = self.compare(original, folded, stops, limit, whole=whole)
        return SAME if outcome is SAME else first

    def _tied(self, pair: Pair, stops: Collection[str]) -> set[str]:
        """Return the inputs of segments that are computed from others of them."""
        reads = set(pair.reads)
        found = set()
        for name in reads & set(stops):
            value = self.original.values.get(name)
            if value is None or value.producer() is None:
                continue
            behind = self.original.segment(value, reads - {name}, _LONGEST)
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
        found: Link | Lost | None = Lost(folded.name or "", None, (), (), _TOO_FAR)
        looked: list[Mapping[str, tuple[int, ...]]] = []
        for sizes, known in _LADDER:
            if (whole and not known) or _is_needless(found, sizes, known=known):
                continue
            near = self._solid & stops if known else stops
            pair = self._pair(original, folded, near, limit)
            shapes = {} if pair is None else self.comparer.shapes(pair, sizes)
            if _differs(found) and shapes in looked:
                continue  # another draw at these sizes does not unsay a difference
            looked.append(shapes)
            attempt, is_whole = self._attempt(folded, pair, sizes)
            if attempt is SAME and isinstance(found, Link) and not found.hazy:
                # One draw shows an exact map, another hides it, as a Relu that is shut does.
                return Lost(folded.name or "", found.gap, *_ways(pair, self.relations))
            if attempt is SAME and is_whole and (sizes is Sizes.REAL or not _differs(found)):
                return SAME
            if is_whole and _is_one_map(found, attempt):
                return attempt
            if not _is_unknown(attempt) or (_is_unknown(found) and not _is_too_far(attempt)):
                found = attempt  # longer axes know better
        return found

    def _attempt(
        self, folded: ir.Value, pair: Pair | None, sizes: Sizes
    ) -> tuple[Link | Lost | None, bool]:
        """Evaluate the segments of two values on arrays of these sizes.

        Returns:
            How they are related, and whether all that is new in them was shown to matter.
        """
        name = folded.name or ""
        if self.is_late:
            return Lost(name, None, (), (), TOO_LATE), False
        if pair is None:
            return Lost(name, None, (), (), _TOO_FAR), False
        nodes, maps = _ways(pair, self.relations)
        try:
            verdict = self._verdict(pair, sizes)
        except CannotEvaluateError as error:
            return Lost(name, None, nodes, maps, str(error)), False
        if isinstance(verdict, Gap):
            return Lost(name, verdict, nodes, maps), False
        if verdict is not SAME and not self._spans(verdict, name):
            why = "it is mapped along an axis cut short"
            return Lost(name, None, nodes, maps, why), False
        return verdict, not any(self._blind(pair))

    def _verdict(self, pair: Pair, sizes: Sizes) -> Link | Gap | None:
        """Compare one pair of segments, and test the comparison if it finds no difference."""
        begun = time.monotonic()
        trials = self.comparer.trials(pair, sizes)
        self.windows += 1
        verdict = self.comparer.weigh(trials)
        if verdict is not SAME and trials[0].nudged:
            trials = self.comparer.trials(pair, sizes, MORE_NUDGES)
            verdict = self.comparer.weigh(trials)
        if verdict is SAME and self.with_impulses:
            found = probe(self.comparer, pair, sizes)
            self.probed += found is not None
            verdict = found if found is not None and found.size > EXACT else SAME
        if not isinstance(verdict, Gap):
            verdict = self._in_front(pair, sizes) or verdict
        if isinstance(verdict, Gap):
            return verdict
        self.elements += sum(trial.original.size for trial in trials)
        took_s = time.monotonic() - begun
        self._test(pair, trials, verdict, took_s)
        return self._look_elsewhere(pair, verdict, took_s) if sizes is Sizes.REAL else verdict

    def _in_front(self, pair: Pair, sizes: Sizes, styles: Sequence[Style] = ()) -> Gap | None:
        """Return how far apart the segments are in front of the steps that they take."""
        for front in fronts(pair, self.comparer):
            trials = self.comparer.trials(front.pair, sizes, styles=styles)
            found = self.comparer.weigh(trials)
            if found is not SAME and trials[0].nudged:
                trials = self.comparer.trials(front.pair, sizes, MORE_NUDGES, styles)
                found = self.comparer.weigh(trials)
            if isinstance(found, Link) and front.is_absolute:
                found = self.comparer.differs(trials)
            if isinstance(found, Gap):
                return found
        return None

    def _test(self, pair: Pair, trials: list[Trial], link: Link | None, took_s: float) -> None:
        """Change what is new in the folded segment, and note what the comparison notices.

        To tell channels apart one by one may take a few times as long as the comparison did.
        """
        targets = list(self._blind(pair))
        rng = np.random.default_rng((self.comparer.seed, self.windows))
        until = min(self.deadline, time.monotonic() + max(_LEAST_S, _TIMES * took_s))
        test = SelfTest(self.comparer, pair, trials, link, until, rng)
        if not targets and self.comparer.lacks(pair.original) and not test.reacts():
            raise CannotEvaluateError(_UNMOVED)
        name = pair.folded.result.name or ""
        held = self.coverage if link is None else self.mapped.setdefault(name, {})
        for one in test.run(targets):
            known = held.setdefault(one.target.key, one)
            if known is not one:
                known.join(one)

    def _look_elsewhere(
        self, pair: Pair, verdict: Link | None, took_s: float
    ) -> Link | Gap | None:
        """Compare on small and on large numbers what is not seen beside the usual ones.

        A bias is not seen beside the rounding of large numbers, a bound not before it is met.
        """
        for style in (Style.NEAR, Style.NORMAL, Style.FAR):
            if not any(self._blind(pair)) or self.is_late:
                break
            trials = self.comparer.trials(pair, Sizes.REAL, styles=(style,))
            found = self.comparer.differs(_mapped(trials, verdict))
            if found is None:  # a step may hide it
                found = self._in_front(pair, Sizes.REAL, (style,))
            if found is None:
                self._test(pair, trials, verdict, took_s)
            elif not trials[0].nudged:
                return found
        return verdict

    def _blind(self, pair: Pair) -> Iterator[Target]:
        """Yield what is new in a segment and was not shown to be compared so far."""
        mapped = self.mapped.get(pair.folded.result.name or "", {})
        for target in targets_of(pair.folded, self.folded, self.comparer):
            if not (_is_whole(self.coverage, target) or _is_whole(mapped, target)):
                yield target

    def shown_of(self, key: Key) -> Coverage | None:
        """Return what was shown of a constant: where it was compared last, or least.

        What is the same although a value on its way is mapped was compared behind that value.
        """
        if key in self.coverage:
            return self.coverage[key]
        found = [held[key] for held in self.mapped.values() if key in held]
        return next((one for one in found if not one.is_whole), found[0] if found else None)

    def is_shown(self, value: ir.Value) -> bool:
        """Return whether all that is new in what computes a value was shown to be compared."""
        return all(_is_whole(self.coverage, one) for one in self.novelties([value]))

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

    def _pair(
        self, original: ir.Value, folded: ir.Value, stops: set[str], limit: int
    ) -> Pair | None:
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


_LADDER: Final = (
    (Sizes.SHORT, False),
    (Sizes.LONGER, False),
    (Sizes.REAL, False),
    (Sizes.REAL, True),
)
"""Sizes in turn; at last only from values all of whose sizes are known."""


def _is_whole(held: Mapping[Key, Coverage], target: Target) -> bool:
    known = held.get(target.key)
    return known is not None and known.is_whole


def _mapped(trials: list[Trial], link: Link | None) -> list[Trial]:
    if link is None:
        return trials
    return [trial._replace(original=link(trial.original)) for trial in trials]


def _is_unknown(outcome: Link | Lost | None) -> bool:
    """Return whether an attempt gave no answer."""
    return isinstance(outcome, Lost) and outcome.gap is None


def _is_needless(found: Link | Lost | None, sizes: Sizes, *, known: bool) -> bool:
    """Return whether these sizes add nothing: there is no answer yet, or one of real sizes."""
    if sizes is Sizes.LONGER:
        return _is_unknown(found)
    return known and found is not SAME and not _is_unknown(found)


def _ways(
    pair: Pair | None, relations: Mapping[str, Link | None]
) -> tuple[tuple[ir.Node, ...], tuple[str, ...]]:
    """Return the nodes of the folded segment, and what it reads that is not the same."""
    if pair is None:
        return (), ()
    maps = tuple(read for read in pair.reads if relations.get(read) is not SAME)
    return pair.folded.nodes, maps


def _differs(outcome: Link | Lost | None) -> bool:
    """Return whether a difference was found."""
    return isinstance(outcome, Lost) and outcome.gap is not None


def _is_too_far(outcome: Link | Lost | None) -> bool:
    return isinstance(outcome, Lost) and outcome.is_too_far


def _is_one_map(one: Link | Lost | None, other: Link | Lost | None) -> bool:
    """Return whether two sizes gave the same map, so that it does not hang on the size."""
    if not isinstance(one, Link) or not isinstance(other, Link) or one.axis != other.axis:
        return False
    pairs = ((one.scale, other.scale), (one.shift, other.shift))
    return all(
        a.shape == b.shape
        and bool(np.allclose(a, b, rtol=_ALIKE, atol=_ALIKE * np.abs(a).max()))
        for a, b in pairs
    )
