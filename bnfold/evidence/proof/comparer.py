"""Evaluate one value in both models, from values known to be related, on drawn numbers."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.draws import Dims, Style, draw, styles_for
from bnfold.evidence.proof.extents import Extents, Sizes, extents_of
from bnfold.evidence.proof.links import EXACT, Array, Gap, Link, fits, gap
from bnfold.evidence.proof.moved_maps import MovedMaps
from bnfold.evidence.proof.same_constants import SameConstants
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side, TooLateError
from bnfold.evidence.proof.storage import NUDGES, Trial, weigh
from bnfold.evidence.proof.stored_noise import StoredNoise
from bnfold.evidence.proof.tables import sweeps
from bnfold.evidence.reference.smooth import is_alike_at_all_sizes

_LARGE: Final = 1 << 20
_FEW: Final = 2
_MORE: Final = 6
"""With weights of so many elements, so few nudges have to do, at first and in doubt."""
_NUDGED: Final = 1 << 25
"""In doubt, more nudges are made of weights until so many elements were nudged."""

_SAMPLE: Final = 64
"""Of a value with fewer elements there are more draws: three numbers are all of one sign in
one draw of four, and a Relu or a Min that is missing may show in none."""
_MOST_DRAWS: Final = 8
_BESIDE: Final = 1 << 14
"""Beside a value of so many elements two draws have to do, one of either sign."""
_NEXT: Final = 1 << 10
"""How far the seeds of such draws are apart: those between are of other sizes and turns."""

_ENOUGH: Final = 0.5
_ONE_ROUNDING: Final = 1.01
"""Half an ulp, and what fitting a line to it adds."""
_FEW_ROUNDINGS: Final = 2.0
"""A bias is rounded, and what its weights are rounded to is summed up beside it."""

_OF_ATTRIBUTES: Final = 2.0**-24
"""Half an ulp of one in float32, in which attributes are stored."""
_NO_RELATION: Final = object()

_VOID: Final = "it is no number for any of the numbers drawn"
_EMPTY: Final = "it has no elements at any size that was tried: nothing can be compared"


class Pair(NamedTuple):
    """What computes one value, in both models, from the same others.

    Attributes:
        original: What computes it in the one model.
        folded: What computes it in the other.
        kept: Tensors that are the same in both, and may have been rounded to that.
    """

    original: Segment
    folded: Segment
    kept: frozenset[str] = frozenset()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that either side starts from."""
        return tuple(dict.fromkeys((*self.original.inputs, *self.folded.inputs)))


@dataclass(slots=True)
class Comparer:
    """Both models, and what is known of their values so far.

    Attributes:
        original: The one model.
        folded: The other.
        is_same: Says of a node of the folded model whether it is the same, byte for byte.
        same_tensors: Initializers that are the same in both.
        noise: What of the folded model is known no better than it is stored.
        seed: Of all draws.
        deadline: By the monotonic clock; nothing is evaluated behind it.
        relations: What the walk found so far, by value name; None for the same.
        dims: Dimensions of what can be drawn, by value name.
        inputs: Arrays for the inputs of the model.
        others: Other arrays for them.
        is_open: Whether the model leaves sizes open, beside that of the batch.
        twins: The original's nodes by name.
        folded_nodes: Those of the folded model.
    """

    original: Side
    folded: Side
    is_same: Callable[[ir.Node], bool]
    same_tensors: frozenset[str]
    noise: StoredNoise
    seed: int = 0
    deadline: float = math.inf
    relations: dict[str, Link | None] = field(default_factory=dict)
    dims: Mapping[str, Dims] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)
    others: Mapping[str, Array] = field(default_factory=dict)
    is_open: bool = False
    twins: Mapping[str, ir.Node] = field(init=False)
    folded_nodes: Mapping[str, ir.Node] = field(init=False)
    _constants: SameConstants = field(init=False)
    _moved: MovedMaps = field(init=False)

    def __post_init__(self) -> None:
        """Note the nodes of both models by name."""
        self.twins, self.folded_nodes = (
            {node.name: node for node in side.position if node.name}
            for side in (self.original, self.folded)
        )
        sides = self.original, self.folded
        self._constants = SameConstants(*sides, self.is_same, self.same_tensors)
        self._moved = MovedMaps(self.folded, self.relations, self._has_another)

    def trials(
        self,
        pair: Pair,
        sizes: Sizes,
        nudges: int = NUDGES,
        styles: Sequence[Style] = (),
        again: int = 0,
        longer: int = 0,
    ) -> list[Trial]:
        """Evaluate both segments on draws of every kind; positive ones if others give none.

        Args:
            pair: The segments.
            sizes: How long axes are cut.
            nudges: How often tensors known only as stored are nudged.
            styles: What is drawn; what suits the shapes if that is not said.
            again: Another number gives other draws.
            longer: Places more on spatial axes than the real length leaves behind strides.

        Raises:
            CannotEvaluateError: If an operator cannot be evaluated, or gives nothing.
        """
        shapes = self.shapes(pair, sizes, longer)
        turn = list(Sizes).index(sizes) + again * len(Sizes)  # longer axes: other numbers
        wanted = tuple(styles) or styles_for(shapes.values())
        noisy = self.is_noisy(pair)
        size = self._size_read(pair.folded) if noisy else 0
        large = size > _LARGE
        if large:
            more = max(_MORE, _NUDGED // size)
            nudges = min(nudges, _FEW if nudges <= NUDGES else more)
        if not styles and noisy and not large:
            wanted = (*wanted, Style.NEAR)  # large numbers hide a bias in their rounding
        found = list(self._drawn_trials(pair, shapes, wanted, nudges, turn))
        if any(_is_void(trial.original) for trial in found):
            found = list(self._drawn_trials(pair, shapes, (Style.POSITIVE,), nudges, turn))
            if _is_void(found[0].original):
                raise CannotEvaluateError(_VOID)
        if not any(trial.original.size for trial in found):
            raise CannotEvaluateError(_EMPTY)
        return found

    def shapes(self, pair: Pair, sizes: Sizes, longer: int = 0) -> dict[str, tuple[int, ...]]:
        """Return the shapes of what is drawn; free and cut axes hold all windows there are."""
        dims = {name: self.dims[name] for name in pair.reads if name in self.dims}
        sided = ((pair.original, self.original), (pair.folded, self.folded))
        extents: Extents = extents_of(sided, sizes)
        return extents.shapes(dims, sizes, longer)

    def _drawn_trials(
        self,
        pair: Pair,
        shapes: Mapping[str, tuple[int, ...]],
        styles: Iterable[Style],
        nudges: int,
        turn: int,
    ) -> Iterable[Trial]:
        draws = _draws_of(shapes.values())
        for style, number in itertools.product(styles, range(draws)):
            for trial in self._of_style(pair, shapes, style, nudges, turn, number):
                yield trial._replace(is_small=style in (Style.NEAR, Style.TINY))

    def _of_style(
        self,
        pair: Pair,
        shapes: Mapping[str, tuple[int, ...]],
        style: Style,
        nudges: int,
        turn: int,
        number: int,
    ) -> Iterable[Trial]:
        # Every second draw is the one before with the other sign: both are seen for sure.
        drawn, sign = turn + _NEXT * (number // 2), (1.0, -1.0)[number % 2]
        feeds = {name: self._drawn(name, shapes, style, drawn, sign) for name in pair.reads}
        whole = sweeps(pair.folded, self.folded, self.inputs, self.constant)
        try:
            yield from [self.trial(pair, {**feeds, **part}, nudges) for part in whole]
        except TooLateError:
            raise
        except CannotEvaluateError:
            whole = ()  # other inputs are as long as the indices were
        if not whole:
            yield self.trial(pair, feeds, nudges)
        others = {
            name: self.others[name]
            for name, x in feeds.items()
            if name not in shapes and self.others[name].shape == x.shape
        }
        if others and any((others[name] != feeds[name]).any() for name in others):
            yield self.trial(pair, {**feeds, **others}, nudges)
        flags = {name: ~x for name, x in feeds.items() if x.dtype == np.bool_}
        if flags:  # what an If decides by: each of its branches is compared
            yield self.trial(pair, {**feeds, **flags}, nudges)

    def trial(self, pair: Pair, feeds: Mapping[str, Array], nudges: int = 0) -> Trial:
        """Evaluate both segments, and the folded one with nudged tensors if that tells.

        Args:
            pair: The segments.
            feeds: What the original reads; the folded model reads it mapped as it is known.
            nudges: How often tensors known only as stored are nudged.
        """
        if time.monotonic() > self.deadline:
            raise TooLateError
        original = self.original.evaluate(pair.original, feeds)
        folded = self.folded.evaluate(pair.folded, self.mapped(pair, feeds))
        nudged: list[Array] = []
        is_noisy = nudges and self.is_noisy(pair)
        sides = self.noise.sides(nudges, pair.kept) if is_noisy else ()
        for place, side in enumerate(sides):
            if time.monotonic() > self.deadline:
                raise TooLateError
            shaken = self._shaken(pair.folded, feeds, place)
            nudged.append(side.evaluate(pair.folded, shaken))
        roundoff = self._roundoff(pair) if nudged else 0.0
        return Trial(original, folded, nudged, feeds, roundoff=roundoff)

    def mapped(self, pair: Pair, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the folded model reads where the original reads ``feeds``."""
        return {name: self._mapped(name, feeds[name]) for name in pair.folded.inputs}

    def weigh(self, trials: Sequence[Trial]) -> tuple[Link | Gap | None, bool]:
        """Return how the two results are related; how far they are apart if they are not.

        Returns:
            The relation, and whether it is clear: whether more nudges could not change it. A
            map is, if the results clearly are not the same; results are apart clearly if they
            are so as they are, and by every map that was tried.
        """
        worst = self.differs(trials)
        if worst is None:
            return None, True
        is_clear = worst.is_clear
        first, *others = [trial for trial in trials if not trial.is_small] or trials
        for link in fits(first.original, first.folded):
            if not all(link.spans(trial.original.shape) for trial in others):
                continue
            fitted = [trial._replace(original=link(trial.original)) for trial in others]
            fitted.append(first._replace(original=link(first.original)))
            if all(gap(trial.folded, trial.original).size <= EXACT for trial in fitted):
                is_none = first.nudged and self._is_rounding(link, trials)
                return (None if is_none else link), worst.is_clear
            if not first.nudged:
                continue
            found = weigh(fitted)
            if found.size <= 1.0:
                return replace(link, hazy=True), worst.is_clear
            is_clear = is_clear and found.is_clear
        return worst, is_clear

    def _is_rounding(self, link: Link, trials: Sequence[Trial]) -> bool:
        """Return whether a map is no more than tensors rounded in one direction.

        Where all weights of a channel are equal, so are their rounding errors: the channel is
        off by a factor of up to half an ulp, which nudges that differ average away. A shift
        is held against numbers of its own channel, small ones where there are any. These tell
        a shift that the usual ones do not: beside what a recurrence grows to, 10¹⁷, no map
        fits that is not the identity.
        """
        half_ulp = trials[0].roundoff
        if float(np.abs(link.scale - 1.0).max(initial=0.0)) > _ONE_ROUNDING * half_ulp:
            return False
        usual = [one for one in trials if one.is_small] or trials[:1]
        sizes = np.min([_sizes(one.original, link.axis) for one in usual], axis=0)
        if not (np.abs(link.shift) <= _FEW_ROUNDINGS * half_ulp * sizes).all():
            return False
        small = (one for one in trials if one.is_small)
        return all(self._is_within(one, link.axis) or not self.differs([one]) for one in small)

    def _is_within(self, trial: Trial, axis: int | None) -> bool:
        """Return whether each channel of a sample is off by rounding of its largest number."""
        if trial.original.shape != trial.folded.shape:
            return False
        kept = {axis} if trial.original.ndim < 2 else {0, axis}
        others = tuple(place for place in range(trial.original.ndim) if place not in kept)
        off = np.abs(trial.folded - trial.original).max(axis=others, initial=0.0)
        most = (_ONE_ROUNDING + _FEW_ROUNDINGS) * trial.roundoff
        return bool((off <= most * np.abs(trial.original).max(axis=others, initial=0.0)).all())

    def differs(self, trials: Sequence[Trial]) -> Gap | None:
        """Return how far the two results are apart; None where rounding explains it."""
        gaps = [gap(trial.original, trial.folded) for trial in trials]
        worst = max(gaps, key=lambda one: one.size)
        if worst.size <= EXACT:
            return None
        if not trials[0].nudged:
            return worst
        noisy = weigh(trials)
        return None if noisy.size <= 1.0 else noisy

    def constant(self, value: ir.Value) -> bool:
        """Return whether a constant of the folded model is none of the original's."""
        return not self.is_same_constant(value)

    def lacks(self, segment: Segment) -> bool:
        """Return whether a segment of the original reads constants that the other has not."""
        read = (value for node in segment.nodes for value in self.original.reads(node))
        stored = (self.original.key_of(value) for value in read)
        return any(key and key not in self.same_tensors for key in stored)

    def attributes(self, node: ir.Node) -> list[str]:
        """Return the attributes of a node that no node of its name has in the original."""
        if self.is_same(node):
            return []
        twin = self.twins.get(node.name or "")
        known = {} if twin is None or twin.op_type != node.op_type else twin.attributes
        return [
            name
            for name, attribute in node.attributes.items()
            if name != "momentum"  # of training alone (BatchNormalization-15)
            and (name not in known or known[name].value != attribute.value)
        ]

    def is_restructured(self, segment: Segment) -> bool:
        """Return whether a node of the folded model has other windows, axes or modes."""
        floats = (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS)
        return any(
            node.attributes[name].type not in floats
            for node in segment.nodes
            for name in self.attributes(node)
        )

    def is_same_constant(self, value: ir.Value) -> bool:
        """Return whether a constant of the folded model is one of the original's too."""
        return self._constants.is_same(value)

    def keeping(self, pair: Pair) -> tuple[Pair, float] | None:
        """Return a pair in which tensors that did not change may have been rounded to that.

        None where nothing next to such a tensor has changed, or where that is known.

        Returns:
            The pair, and half an ulp of one in the coarsest type of these tensors.
        """
        if pair.kept or not self.noise.kept or not self._is_edited(pair):
            return None
        nodes = pair.folded.nodes
        edited = {*self.edited(pair), *filter(self._reads_another, nodes)}
        found = self.noise.kept_by(nodes, edited)
        return None if found is None else (pair._replace(kept=found[0]), found[1])

    def _is_edited(self, pair: Pair) -> bool:
        """Return whether a map may have gone into weights next to these nodes.

        A node of the original is gone then, or reads a constant that is, or what is read is
        mapped by such an edit. An attribute alone, such as another epsilon, moves no map
        anywhere, and neither does the map that it leaves behind it.
        """
        if self.lacks(pair.original) or any(map(self._moved.is_moved, pair.folded.inputs)):
            return True
        edited = self.edited(pair)
        return any(not self.has_twin(node) for node in edited)

    def _has_another(self, node: ir.Node) -> bool:
        """Return whether a node, or a constant that it reads, is not that of the original."""
        if not (self.is_same(node) or self.has_twin(node)):
            return True
        held = filter(self.folded.is_constant, self.folded.reads(node))
        return not all(map(self.is_same_constant, held))

    def _reads_another(self, node: ir.Node) -> bool:
        """Return whether a node reads what is not the same in both: it may absorb that."""
        return any(
            not self.folded.is_constant(value)
            and self.relations.get(value.name or "", _NO_RELATION) is not None
            for value in self.folded.reads(node)
        )

    def has_twin(self, node: ir.Node) -> bool:
        """Return whether both models have a node that differs in attributes at the most."""
        told = [
            (one.op_type, [value and value.name for value in (*one.inputs, *one.outputs)])
            for one in self.both(node)
        ]
        return len(told) == 2 and told[0] == told[1]

    def both(self, node: ir.Node) -> list[ir.Node]:
        """Return the nodes of both models that have the name of one; or write what it does."""
        known = [self.twins.get(node.name or ""), self.folded_nodes.get(node.name or "")]
        if not node.name:
            written = next((value.name for value in node.outputs if value.name), "")
            values = (self.original.values.get(written), self.folded.values.get(written))
            known = [None if value is None else value.producer() for value in values]
        return [one for one in known if one is not None]

    def edited(self, pair: Pair) -> list[ir.Node]:
        """Return the nodes of both segments that are not the same in both models."""
        same = {node.name for node in pair.folded.nodes if self.is_same(node)}
        nodes = (*pair.original.nodes, *pair.folded.nodes)
        return [node for node in nodes if not node.name or node.name not in same]

    def has_other_bounds(self, pair: Pair) -> bool:
        """Return whether a node that is not the same is of a kind that large numbers show."""
        return any(not is_alike_at_all_sizes(node) for node in self.edited(pair))

    def is_noisy(self, pair: Pair) -> bool:
        """Return whether something folded is known no better than it is stored."""
        return bool(pair.kept) or self._is_hazy(pair) or self.noise.is_in(pair.folded)

    def is_hazy(self, name: str) -> bool:
        """Return whether a value is a map of its counterpart, known beside rounding only."""
        relation = self.relations.get(name)
        return relation is not None and relation.hazy

    def is_nudged(self, node: ir.Node, kept: Collection[str]) -> bool:
        """Return whether a node of the folded model has numbers that nudges move."""
        reads = (self.folded.key_of(value) for value in node.inputs if value is not None)
        return self.noise.is_at(node) or any(key in kept for key in reads)

    def _is_hazy(self, pair: Pair) -> bool:
        return any(map(self.is_hazy, pair.folded.inputs))

    def _roundoff(self, pair: Pair) -> float:
        """Return half an ulp of one in the coarsest type of what is nudged in a segment."""
        if pair.kept or self._is_hazy(pair) or self.noise.is_read(pair.folded):
            return self.noise.coarsest
        return _OF_ATTRIBUTES

    def _size_read(self, segment: Segment) -> int:
        """Return how many elements of weights a segment reads: each nudge takes as long."""
        read = (value for node in segment.nodes for value in node.inputs)
        held = (value.const_value for value in read if value is not None)
        return sum(one.size for one in held if one is not None)

    def _shaken(
        self, segment: Segment, drawn: Mapping[str, Array], place: int
    ) -> dict[str, Array]:
        """Return the inputs with their maps known no better than tensors are stored."""
        rng: np.random.Generator | None = None
        feeds: dict[str, Array] = {}
        for name in segment.inputs:
            relation = self.relations.get(name)
            feeds[name] = self._mapped(name, drawn[name])
            if relation is not None and relation.hazy:
                if rng is None:  # to seed one takes as long as a small node
                    rng = np.random.default_rng((self.seed, place, len(segment.nodes)))
                feeds[name] = relation.shaken(self.noise.coarsest, rng)(drawn[name])
        return feeds

    def _drawn(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, ...]],
        style: Style,
        turn: int,
        sign: float,
    ) -> Array:
        if name in shapes:
            drawn = draw(name, shapes[name], style, self.seed + turn)
            return drawn if style is Style.POSITIVE else np.asarray(sign * drawn)
        if name in self.inputs:
            return np.asarray(self.inputs[name])
        message = f"nothing is known of the size of {name!r}"
        raise CannotEvaluateError(message)

    def _mapped(self, name: str, drawn: Array) -> Array:
        relation = self.relations.get(name)
        if relation is None:
            return drawn
        if relation.axis is not None and drawn.shape[relation.axis] != relation.scale.size:
            message = f"{name!r} is mapped along an axis that was cut short"
            raise CannotEvaluateError(message)
        return relation(drawn)


def _draws_of(shapes: Iterable[tuple[int, ...]]) -> int:
    """Return how often numbers are drawn for values of these shapes."""
    sizes = [size for size in map(math.prod, shapes) if size]
    if not sizes:
        return 1
    draws = min(-(-_SAMPLE // min(sizes)), _MOST_DRAWS)
    return min(draws, 2) if max(sizes) > _BESIDE else draws


def _sizes(array: Array, axis: int | None) -> Array:
    """Return the largest magnitudes of the slices along an axis, in the first of a batch.

    That one is drawn as standard normal numbers, the others are of other sizes.
    """
    usual = array[:1] if array.ndim > 1 and axis != 0 else array
    others = tuple(place for place in range(array.ndim) if axis is None or place != axis)
    found = np.abs(usual).max(axis=others, initial=0.0)
    return np.asarray(found).reshape(-1)


def _is_void(array: Array) -> bool:
    """Return whether more than half of an array is no number."""
    if array.dtype != np.float64 or not array.size:
        return False
    return bool(np.isnan(array).mean() > _ENOUGH)
