"""One of the two models, evaluated in float64 piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.clock import OutOfTimeError
from bnfold.evidence.proof.contents import stored_values
from bnfold.evidence.proof.rounding import nudged, roundoff_of
from bnfold.evidence.reference import Evaluator
from bnfold.evidence.reference.arrays import read_tensor
from bnfold.evidence.reference.typed import Known
from bnfold.model.attributes import float_attr
from bnfold.model.graphs import graphs_of, subgraphs_of

Array = NDArray[Any]

_KEPT: Final = 1 << 14
"""Constants of so many elements are kept once they are widened."""

_RECENT: Final = 1 << 24
"""Elements of larger ones that are kept until others are asked for; one may be larger."""

_MANY: Final = 1 << 20
"""Weights of so many elements are not nudged: what they give is, see `NudgedSide`."""

_IN_BINADE: Final = 0.75
"""Half an ulp, relative to the number, is between a half and one roundoff."""

_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial"}
)
_STANDARD: Final = ("", "ai.onnx", "com.microsoft")
_OVERRIDABLE_SINCE: Final = 4
_FLOAT32: Final = 2.0**-24


TOO_LATE: Final = "the time was up"


class CannotEvaluateError(Exception):
    """A piece of a graph has no value here; says why."""


class TooLateError(CannotEvaluateError):
    """It may have one, but there was no time: nothing follows from that."""

    def __init__(self) -> None:
        super().__init__(TOO_LATE)


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes that compute a value from other values, in graph order."""

    result: ir.Value
    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]


class Side:
    """A model whose values can be asked for.

    Args:
        model: The model; only its main graph is looked into.
        wide: Initializers to be taken in float64 instead of as they are stored.
        constant_inputs: Whether initializers that are also graph inputs are constants.
    """

    def __init__(
        self,
        model: ir.Model,
        wide: Mapping[str, Array] | None = None,
        *,
        constant_inputs: bool = False,
    ) -> None:
        self.model = model
        self.wide = wide or {}
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.values: dict[str, ir.Value] = {}
        self.position: dict[ir.Node, int] = {}
        self._constant: set[ir.Value] = set()
        self._kept: dict[ir.Value, Array] = {}
        self._keys = {value: key for key, value in stored_values(model).items()}
        self._evaluator = _Weighted(self)
        self._last_spread: tuple[ir.Node, Array, Array] | None = None
        self._recent: dict[ir.Value, Array] = {}
        self._exchanged: dict[ir.Value, Array] = {}
        self._stand_ins: dict[ir.Node, ir.Node] = {}
        self.constant_inputs = constant_inputs
        self._survey()

    def _survey(self) -> None:
        graph = self.model.graph
        overridable = not self.constant_inputs and self.model.ir_version >= _OVERRIDABLE_SINCE
        for value in (*graph.inputs, *graph.initializers.values()):
            self.values[value.name or ""] = value
            free = value.is_graph_input() and overridable
            if value.const_value is not None and not free:
                self._constant.add(value)
        for place, node in enumerate(graph):
            self.position[node] = place
            for value in node.outputs:
                self.values[value.name or ""] = value
            if self._computes_constant(node):
                self._constant.update(node.outputs)

    def _computes_constant(self, node: ir.Node) -> bool:
        if node.op_type in _RANDOM or node.domain not in _STANDARD:
            return False
        return all(self.is_constant(value) for value in self.reads(node))

    def is_constant(self, value: ir.Value) -> bool:
        """Return whether a value is the same at every run."""
        return value in self._constant or (
            value.const_value is not None and not value.is_graph_input()
        )

    def captured(self, node: ir.Node) -> Iterable[ir.Value]:
        """Yield the outer values that the subgraphs of a node read."""
        for subgraph in subgraphs_of(node):
            inside = set(graphs_of(subgraph))
            for graph in inside:
                for inner in graph:
                    for value in inner.inputs:
                        if value is not None and value.graph not in inside:
                            yield value

    def reads(self, node: ir.Node) -> list[ir.Value]:
        """Return every value that a node depends on, once each."""
        direct = [value for value in node.inputs if value is not None]
        return list(dict.fromkeys((*direct, *self.captured(node))))

    def constant(self, value: ir.Value) -> Array:
        """Return a constant, floats in float64.

        Raises:
            CannotEvaluateError: If it cannot be computed.
        """
        if value in self._exchanged:
            return self._exchanged[value]
        if value in self._kept:
            return self._kept[value]
        if value in self._recent:
            return self._recent[value]
        found = self.stored(value)
        if found is None:
            segment = self.segment(value, frozenset(), len(self.position))
            if segment is None or segment.inputs:
                message = f"{value.name!r} is no constant"
                raise CannotEvaluateError(message)
            found = self.evaluate(segment, {})
        if found.size <= _KEPT:
            self._kept[value] = found
        else:
            self._keep_for_a_while(value, found)
        return found

    def _keep_for_a_while(self, value: ir.Value, found: Array) -> None:
        """Keep the large constants that were asked for last: one segment asks often."""
        self._recent[value] = found
        held = sum(one.size for one in self._recent.values())
        while held > _RECENT and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            held -= self._recent.pop(oldest).size

    def stored(self, value: ir.Value) -> Array | None:
        """Return an initializer of whatever graph, unrounded if that is known."""
        if value in self._exchanged:
            return self._exchanged[value]
        if value.producer() is not None or value.const_value is None:
            return None
        key = self.key_of(value)
        return self.wide[key] if key in self.wide else read_tensor(value.const_value)

    @contextmanager
    def exchanged(
        self, constants: Mapping[ir.Value, Array], nodes: Mapping[ir.Node, ir.Node]
    ) -> Iterator[None]:
        """Evaluate with other numbers in place of some, for as long as this lasts.

        Only what reads these values themselves sees them: what was computed from them is kept.

        Args:
            constants: Elements that take the place of those of a constant.
            nodes: Nodes, in no graph, whose attributes take the place of a node's own.
        """
        before = self._exchanged, self._stand_ins
        self._exchanged, self._stand_ins = dict(constants), dict(nodes)
        try:
            yield
        finally:
            self._exchanged, self._stand_ins = before

    def spread(
        self, node: ir.Node, given: Sequence[Array | None], tensor: ir.TensorProtocol
    ) -> Array:
        """Return the standard deviation that rounding of a weight gives every result.

        The last one is kept: nudged models ask for it one after the other.
        """
        data, weight = given[0], given[1]
        if data is None or weight is None:
            return np.zeros(())
        known = self._last_spread
        if known is not None and known[0] is node and np.array_equal(known[1], data):
            return known[2]
        squares: list[Array | None] = [np.square(data), np.square(weight)]
        alone = ir.Node(
            node.domain,
            node.op_type,
            (),
            [one for one in node.attributes.values() if one.name not in ("alpha", "beta")],
            num_outputs=1,
        )
        (variance,) = self._run(alone, squares, {})
        scale = float_attr(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
        relative = _IN_BINADE * roundoff_of(tensor.dtype.numpy()) / np.sqrt(3.0)
        found = np.asarray(abs(scale) * relative * np.sqrt(np.asarray(variance)))
        self._last_spread = node, data, found
        return found

    def key_of(self, value: ir.Value) -> str:
        """Return the key of an initializer; empty if it is none."""
        return self._keys.get(value, "")

    def hangs_on(self, value: ir.Value | None, names: frozenset[str]) -> bool:
        """Return whether a constant is, or is computed from, one of these initializers."""
        pending = [value]
        while pending:
            current = pending.pop()
            if current is None or not self.is_constant(current):
                continue
            producer = current.producer()
            if producer is None and self.key_of(current) in names:
                return True
            pending.extend(() if producer is None else producer.inputs)
        return False

    def segment(
        self, value: ir.Value, stops: frozenset[str] | set[str], limit: int
    ) -> Segment | None:
        """Return what computes ``value`` from the values named ``stops`` and graph inputs.

        None if that takes more than ``limit`` nodes. ``value`` itself is no stop.
        """
        nodes: set[ir.Node] = set()
        inputs: dict[str, None] = {}
        pending = [value]
        while pending:
            current = pending.pop()
            producer = current.producer()
            name = current.name or ""
            if current is not value and name in stops:
                inputs[name] = None
            elif current is not value and self.is_constant(current):
                continue
            elif producer is None:
                inputs[name] = None
            elif producer not in nodes:
                if producer not in self.position or len(nodes) >= limit:
                    return None
                nodes.add(producer)
                pending.extend(self.reads(producer))
        ordered = sorted(nodes, key=self.position.__getitem__)
        return Segment(value, tuple(ordered), tuple(inputs))

    def evaluate(
        self,
        segment: Segment,
        feeds: Mapping[str, Array],
        *,
        known: Mapping[ir.Value, Array] | None = None,
    ) -> Array:
        """Return the result of a segment.

        Args:
            segment: The nodes.
            feeds: Its inputs by name.
            known: Results that are taken as given; their nodes are not evaluated.

        Raises:
            CannotEvaluateError: If an operator cannot be evaluated.
        """
        scope: dict[ir.Value, Array] = dict(known or {})
        for node in segment.nodes:
            if node.outputs and all(value in scope for value in node.outputs):
                continue
            given = [self._given(value, scope, feeds) for value in node.inputs]
            captured = {
                value: held
                for value in self.captured(node)
                if (held := self._given(value, scope, feeds)) is not None
            }
            results = self._run(node, given, captured)
            pairs = zip(node.outputs, results, strict=False)
            scope.update({value: result for value, result in pairs if result is not None})
        if segment.result in scope:
            return scope[segment.result]
        given_one = self._given(segment.result, scope, feeds)
        if given_one is None:
            message = f"{segment.result.name!r} was not computed"
            raise CannotEvaluateError(message)
        return given_one

    def _given(
        self,
        value: ir.Value | None,
        scope: Mapping[ir.Value, Array],
        feeds: Mapping[str, Array],
    ) -> Array | None:
        if value is None:
            return None
        if value in scope:
            return scope[value]
        name = value.name or ""
        return feeds[name] if name in feeds else self.constant(value)

    def _run(
        self, node: ir.Node, given: list[Array | None], captured: Mapping[ir.Value, Array]
    ) -> Sequence[Array | None]:
        try:
            with np.errstate(all="ignore"):
                return self._evaluator.run_node(
                    self._stand_ins.get(node, node), given, captured
                )
        except MemoryError:
            raise
        except OutOfTimeError as error:
            raise TooLateError from error
        except Exception as error:
            message = f"{node.op_type} {node.name!r}: {type(error).__name__}: {error}"
            raise CannotEvaluateError(message) from error


class _Weighted(Evaluator):
    """Evaluates nodes with the weights of a side."""

    def __init__(self, side: Side) -> None:
        super().__init__(side.model)
        self._side = side
        self._typed: dict[ir.Value, Known | None] = {}

    def stored(self, value: ir.Value) -> Array:
        """Return a weight as the side has it."""
        found = self._side.stored(value)
        return super().stored(value) if found is None else found

    def known_outside(self, value: ir.Value) -> Known | None:
        """Return what the model's own types make of a constant of the main graph."""
        side = self._side
        if value.producer() is None or not side.is_constant(value):
            return super().known_outside(value) if side.is_constant(value) else None
        if value not in self._typed:
            side.constant(value)
        return self._typed.get(value)

    def run_node(
        self, node: ir.Node, inputs: Sequence[Any], captured: Mapping[ir.Value, Any]
    ) -> Sequence[Any]:
        """Return the outputs of one node; what is known of constants is kept."""
        outcome = self.run_known(node, inputs, captured)
        for value, known in zip(node.outputs, outcome.known, strict=False):
            if self._side.is_constant(value):
                self._typed[value] = known
        return outcome.results


class NudgedSide(Side):
    """A model some of whose numbers are moved by up to half an ulp: its storage noise."""

    def __init__(
        self,
        side: Side,
        names: Iterable[str],
        is_rounded: Callable[[ir.Node], bool],
        rng: np.random.Generator,
    ) -> None:
        """Nudge initializers and attributes of the model of ``side``, once and for all.

        Args:
            side: The model.
            names: Keys of the initializers.
            is_rounded: Says of a node whether its attributes are moved.
            rng: Where the moves come from.
        """
        super().__init__(side.model, side.wide, constant_inputs=side.constant_inputs)
        self._source = side
        self._is_rounded = is_rounded
        self._copies: dict[ir.Node, ir.Node] = {}
        self._names = frozenset(names)
        self._rng = rng
        self._drawn: dict[str, Array] = {}

    def _run(
        self, node: ir.Node, given: list[Array | None], captured: Mapping[ir.Value, Array]
    ) -> Sequence[Array | None]:
        if not self._is_rounded(node):
            results = super()._run(node, given, captured)
            return self._with_noise(node, given, results)
        if node not in self._copies:
            self._copies[node] = _with_moved_attributes(node, self._rng)
        results = super()._run(self._copies[node], given, captured)
        # Bounds, such as the one of a HardSigmoid, may have been numbers of the model too.
        factor = 1.0 + _FLOAT32 * self._rng.uniform(-1.0, 1.0)
        moved = [
            one * factor if one is not None and one.dtype == np.float64 else one
            for one in results
        ]
        if node.op_type != "HardSwish" or given[0] is None or moved[0] is None:
            return moved
        return [given[0] * moved[0]]

    def _is_moved_behind(self, value: ir.Value) -> bool:
        """Return whether a weight is so large that what it gives is moved instead."""
        tensor = value.const_value
        if tensor is None or tensor.size <= _MANY or value.producer() is not None:
            return False
        return all(_takes_noise(use.node, use.idx) for use in value.uses())

    def constant(self, value: ir.Value) -> Array:
        """Return a constant; a large one that is not moved itself is read only once."""
        if self._is_moved_behind(value):
            return self._source.constant(value)
        return super().constant(value)

    def _with_noise(
        self, node: ir.Node, given: list[Array | None], results: Sequence[Array | None]
    ) -> Sequence[Array | None]:
        """Add what half-ulp moves of a large weight would make of what it gives.

        Errors of rounding are even within half an ulp and hang on nothing, so of a sum
        Σ x·w they are normal with the variance Σ x²·h²/3; to draw them so costs one product
        where to move the weight costs a copy of it, and a product each time.
        """
        value = node.inputs[1] if len(node.inputs) > 1 else None
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or results[0] is None:
            return results
        if self.key_of(value) not in self._names or not self._is_moved_behind(value):
            return results
        spread = self._source.spread(node, given, tensor)
        moves = self._rng.standard_normal(results[0].shape)
        return [results[0] + spread * moves, *results[1:]]

    def stored(self, value: ir.Value) -> Array | None:
        """Return an initializer, moved if it is one of those."""
        key, tensor = self.key_of(value), value.const_value
        if key not in self._names or tensor is None or value.producer() is not None:
            return super().stored(value)
        if self._is_moved_behind(value):
            return super().stored(value)
        if key not in self._drawn:
            self._drawn[key] = nudged(np.asarray(tensor.numpy()), self._rng)
        return self._drawn[key]


def _takes_noise(node: ir.Node, slot: int) -> bool:
    """Return whether a node is linear in a weight at this slot: its noise adds up there."""
    return slot == 1 and node.op_type in ("MatMul", "Gemm", "Conv")


def _with_moved_attributes(node: ir.Node, rng: np.random.Generator) -> ir.Node:
    """Return a node of its own, in no graph, whose numbers are moved by half a float32 ulp."""
    moved = []
    op_type, attributes = node.op_type, list(node.attributes.values())
    if op_type == "HardSwish":  # x · HardSigmoid(x) with these numbers (HardSwish-14)
        op_type = "HardSigmoid"
        attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
    for attribute in attributes:
        if attribute.type == ir.AttributeType.FLOAT and not attribute.is_ref():
            held = np.array(attribute.as_float(), np.float32)
            moved.append(ir.AttrFloat32(attribute.name, float(nudged(held, rng))))
        else:
            moved.append(attribute)
    count = len(node.outputs)
    return ir.Node(node.domain, op_type, (), moved, num_outputs=count, name=node.name)
