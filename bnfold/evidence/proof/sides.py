"""One of the two models, evaluated in float64 piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.clock import OutOfTimeError
from bnfold.evidence.proof.by_rows import LARGE, Rows, is_product, multiplied, rows_of_tensor
from bnfold.evidence.proof.failing import (
    TOO_LATE,
    CannotEvaluateError,
    TooLateError,
    not_computed,
    tensor_of,
    unevaluated,
)
from bnfold.evidence.proof.rounding import roundoff_of
from bnfold.evidence.proof.survey import Survey
from bnfold.evidence.proof.weighted import Weighted
from bnfold.evidence.reference.arrays import read_tensor, widen
from bnfold.evidence.reference.control import begin_evaluation
from bnfold.model.attributes import float_attr

__all__ = ["TOO_LATE", "Array", "CannotEvaluateError", "Segment", "Side", "TooLateError"]

Array = NDArray[Any]

_KEPT: Final = 1 << 14
"""Constants of so many elements are kept once they are widened."""

_RECENT: Final = 1 << 24
"""Elements of larger ones that are kept until others are asked for; one may be larger."""

_IN_BINADE: Final = 0.75
"""Half an ulp, relative to the number, is between a half and one roundoff."""

_MATRIX_AXES: Final = 2


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
        survey: What was found in the graph of that model before.

    Attributes:
        values: Values of the main graph, by name.
        position: Where the nodes of the main graph stand.
        reads: Returns every value that a node depends on, see `Survey.reads`.
        captured: Returns the outer values that the subgraphs of a node read.
        is_constant: Returns whether a value is the same at every run.
    """

    def __init__(
        self,
        model: ir.Model,
        wide: Mapping[str, Array] | None = None,
        *,
        constant_inputs: bool = False,
        survey: Survey | None = None,
    ) -> None:
        self.model = model
        self.wide = wide or {}
        self.survey = survey or Survey(model, constant_inputs=constant_inputs)
        self.values, self.position = self.survey.values, self.survey.position
        self.reads, self.captured = self.survey.reads, self.survey.captured
        self.is_constant = self.survey.is_constant
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self._kept: dict[ir.Value, Any] = {}
        self._evaluator = Weighted(self)
        self._last_spread: tuple[ir.Node, Array, Array] | None = None
        self._recent: dict[ir.Value, Any] = {}
        self._exchanged: dict[ir.Value, Array] = {}
        self._stand_ins: dict[ir.Node, ir.Node] = {}

    @property
    def size(self) -> int:
        """How many elements all initializers of the main graph have."""
        held = (value.const_value for value in self.model.graph.initializers.values())
        return sum(one.size for one in held if one is not None)

    def constant(self, value: ir.Value) -> Array:
        """Return a constant, floats in float64.

        Raises:
            CannotEvaluateError: If it cannot be computed, or is no tensor.
        """
        return tensor_of(value, self.constant_of_any_kind(value))

    def constant_of_any_kind(self, value: ir.Value) -> Any:
        """Return a constant, floats in float64; a sequence as the list of its tensors.

        Raises:
            CannotEvaluateError: If it cannot be computed.
        """
        held = self._held(value)
        if held is not None:
            return held
        found = self.stored(value)
        if found is None:
            for one in self._to_be_computed_for(value):
                self.constant_of_any_kind(one)
            segment = self.segment(value, frozenset(), len(self.position))
            if segment is None or segment.inputs:
                raise not_computed(value, is_free=value.is_graph_input())
            found = self.evaluate_any_kind(segment, {})
        if _elements(found) <= _KEPT:
            self._kept[value] = found
        else:
            self._keep_for_a_while(value, found)
        return found

    def _held(self, value: ir.Value) -> Any:
        """Return a constant that need not be computed again; None if there is none."""
        for known in (self._exchanged, self._kept, self._recent):
            if value in known:
                return known[value]
        return None

    def _to_be_computed_for(self, value: ir.Value) -> list[ir.Value]:
        """Return the unknown constants that a constant hangs on, in graph order.

        So that each is computed from known ones: asked for from the end, a chain of hundreds
        would be as many calls deep.
        """
        places: dict[ir.Value, int] = {}
        waiting = [value]
        while waiting:
            producer = waiting.pop().producer()
            for read in () if producer is None else self.reads(producer):
                node = read.producer()
                if read in places or node is None or node not in self.position:
                    continue
                if self.is_constant(read) and self._held(read) is None:
                    places[read] = self.position[node]
                    waiting.append(read)
        return sorted(places, key=places.__getitem__)

    def _keep_for_a_while(self, value: ir.Value, found: Any) -> None:
        """Keep the large constants that were asked for last: one segment asks often."""
        self._recent[value] = found
        held = sum(map(_elements, self._recent.values()))
        while held > _RECENT and len(self._recent) > 1:
            oldest = next(iter(self._recent))
            held -= _elements(self._recent.pop(oldest))

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
        self._exchanged = dict(constants)
        self._stand_ins = {node: named_as(copy, node) for node, copy in nodes.items()}
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
        variance = self.computed(alone, squares)
        scale = float_attr(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
        relative = _IN_BINADE * roundoff_of(tensor.dtype.numpy()) / np.sqrt(3.0)
        found = np.asarray(abs(scale) * relative * np.sqrt(variance))
        self._last_spread = node, data, found
        return found

    def computed(self, node: ir.Node, given: list[Array | None]) -> Array:
        """Return the result of one node, in no graph, of these inputs.

        Raises:
            CannotEvaluateError: If it cannot be evaluated.
        """
        (found,) = self._run(node, given, {})
        return np.asarray(found)

    def key_of(self, value: ir.Value) -> str:
        """Return the key of an initializer; empty if it is none."""
        return self.survey.keys.get(value, "")

    def tensor_of(self, key: str) -> ir.TensorProtocol | None:
        """Return the initializer of a key, as it is stored."""
        value = self.survey.by_key.get(key)
        return None if value is None else value.const_value

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
            CannotEvaluateError: If an operator cannot be evaluated, or gives no tensor.
        """
        found = self.evaluate_any_kind(segment, feeds, known=known)
        return tensor_of(segment.result, found)

    def evaluate_any_kind(
        self,
        segment: Segment,
        feeds: Mapping[str, Array],
        *,
        known: Mapping[ir.Value, Array] | None = None,
    ) -> Any:
        """Return the result of a segment as `evaluate` does; a sequence as a list."""
        begin_evaluation()
        with self._evaluator.anew():
            return self._evaluated(segment, feeds, known or {})

    def _evaluated(
        self,
        segment: Segment,
        feeds: Mapping[str, Array],
        known: Mapping[ir.Value, Array],
    ) -> Any:
        scope: dict[ir.Value, Array] = dict(known)
        for node in segment.nodes:
            if node.outputs and all(value in scope for value in node.outputs):
                continue
            streamed = self._by_rows(node, scope, feeds)
            if streamed is not None:
                scope[node.outputs[0]] = streamed
                continue
            given = self._given_to(node, scope, feeds)
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
            raise not_computed(segment.result, is_free=False)
        return given_one

    def rows(self, value: ir.Value, *, as_stored: bool = False) -> Rows | None:
        """Return a large initializer by rows, unrounded if that is known; None for others.

        Args:
            value: The initializer.
            as_stored: Whether what is stored will do, where it need not be computed.
        """
        tensor, key = value.const_value, self.key_of(value)
        if tensor is None or value.producer() is not None or value in self._exchanged:
            return None
        if tensor.size < LARGE or not self.is_constant(value):
            return None
        if key not in self.wide or as_stored:
            found = rows_of_tensor(tensor)
            if found is not None or key not in self.wide:
                return found
        rows = getattr(self.wide, "rows", None)
        return None if rows is None else rows(key, tuple(map(int, tensor.shape.numpy())))

    def _by_rows(
        self, node: ir.Node, scope: Mapping[ir.Value, Array], feeds: Mapping[str, Array]
    ) -> Array | None:
        """Return the product of data with a large matrix; None for all other nodes."""
        if not is_product(node) or node in self._stand_ins:
            return None
        data, matrix, *more = node.inputs
        if data is None or matrix is None or matrix in scope or (matrix.name or "") in feeds:
            return None
        if self.is_constant(data) or node.op_identifier() in self.model.functions:
            return None
        rows = self.rows(matrix)
        if rows is None or len(rows.shape) != _MATRIX_AXES:
            return None
        given = self._given(data, scope, feeds)
        if given is None or given.dtype != np.float64 or not given.ndim:
            return None
        addend = self._given(more[0], scope, feeds) if more else None
        try:
            with np.errstate(all="ignore"):
                return multiplied(node, given, rows, addend)
        except OutOfTimeError as error:
            raise TooLateError from error
        except ValueError as error:
            raise unevaluated(node, [given, rows]) from error

    def _given_to(
        self, node: ir.Node, scope: Mapping[ir.Value, Array], feeds: Mapping[str, Array]
    ) -> list[Array | None]:
        """Return the inputs of a node; an empty array where its type is all that is read."""
        like = self.survey.type_read(node)
        if like is not None:
            empty = widen(np.zeros(0, like.numpy()))
            return [self._given(node.inputs[0], scope, feeds), empty]
        return [self._given(value, scope, feeds) for value in node.inputs]

    def _given(
        self,
        value: ir.Value | None,
        scope: Mapping[ir.Value, Array],
        feeds: Mapping[str, Array],
    ) -> Any:
        if value is None:
            return None
        if value in scope:
            return scope[value]
        name = value.name or ""
        return feeds[name] if name in feeds else self.constant_of_any_kind(value)

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
            raise unevaluated(node, given, error) from error


def _elements(found: Any) -> int:
    """Return how many elements a value has; a sequence those of all its tensors."""
    if isinstance(found, list):
        return sum(map(_elements, found))
    return int(np.size(found))


def named_as(copy: ir.Node, node: ir.Node) -> ir.Node:
    """Give the results of a node that takes the place of another the names of that one's.

    A result without a name is one that nobody wants (ONNX IR, optional outputs): it is not
    computed at all.
    """
    for result, wanted in zip(copy.outputs, node.outputs, strict=True):
        result.name = wanted.name
    return copy
