"""Changes made to a folded model on purpose, to see whether a comparison notices them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.by_rows import Rows
from bnfold.evidence.proof.channels import channels_of
from bnfold.evidence.proof.sides import Segment, Side
from bnfold.evidence.proof.unpicked import unpicked
from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.graphs import graphs_of, subgraphs_of

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_LARGE: Final = 1 << 12
"""From so many elements a weight is not changed, but what it gives: that is the same."""

_MOST_FOR_A_TAP: Final = 1 << 20
"""Single elements of larger weights are not changed: to evaluate them again takes too long."""

_LINEAR: Final = {"Conv": 1, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1}
"""Linear operators, and the axis of their result that the rows of a weight run along."""

_SAMPLE: Final = 1 << 16
"""What is typical of a weight is seen from so many of its elements."""

_VAST: Final = 1e8
"""In units of the median: weights spread over less, penalties of masks lie above."""

_SMALL: Final = 0.05
"""Elements this much smaller than is typical are replaced, not multiplied."""

_FLOAT: Final = (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS)


@dataclass(frozen=True, slots=True)
class Target:
    """One constant, or attribute, of the folded model that the original does not have.

    Attributes:
        node: The node that reads it.
        value: The constant; None for an attribute.
        slot: Where the node reads it; -1 for what its subgraphs read.
        attribute: Name of the attribute; empty for a constant.
    """

    node: ir.Node
    value: ir.Value | None = None
    slot: int = -1
    attribute: str = ""

    @property
    def key(self) -> tuple[ir.Node, ir.Value | str]:
        """What tells it from others."""
        return self.node, self.attribute if self.value is None else self.value

    @property
    def name(self) -> str:
        """Its name, for people."""
        return self.attribute if self.value is None else self.value.name or ""


@dataclass(frozen=True, slots=True)
class Mutation:
    """Other numbers for one evaluation of a segment.

    Attributes:
        constants: Elements in place of those of constants.
        nodes: Nodes in place of others.
        results: Results that are known, so that large weights need not be multiplied again.
    """

    constants: Mapping[ir.Value, Array] = field(default_factory=dict)
    nodes: Mapping[ir.Node, ir.Node] = field(default_factory=dict)
    results: Mapping[ir.Value, Array] = field(default_factory=dict)

    def evaluate(self, side: Side, segment: Segment, feeds: Mapping[str, Array]) -> Array:
        """Return what the segment gives with these numbers."""
        with side.exchanged(self.constants, self.nodes):
            return side.evaluate(segment, feeds, known=self.results)


class Changed(Protocol):
    """Says what the folded model does not share with the original."""

    def constant(self, value: ir.Value) -> bool:
        """Return whether a constant is new."""
        ...

    def attributes(self, node: ir.Node) -> Collection[str]:
        """Return the attributes of a node that are new, and that its results hang on."""
        ...


def targets_of(segment: Segment, side: Side, changed: Changed) -> Iterator[Target]:
    """Yield what the nodes of a segment read that the original does not have."""
    for node in segment.nodes:
        yield from targets_at(node, side, changed)


def targets_at(node: ir.Node, side: Side, changed: Changed) -> Iterator[Target]:
    """Yield what one node reads that the original does not have."""
    for slot, value in enumerate(node.inputs):
        if value is not None and side.is_constant(value) and changed.constant(value):
            yield Target(node, value, slot)
    inner = (value for graph in _inside(node) for value in graph.initializers.values())
    for value in dict.fromkeys((*side.captured(node), *inner)):
        if side.is_constant(value) and changed.constant(value):
            yield Target(node, value)
    for name in changed.attributes(node):
        attribute = node.attributes[name]
        if attribute.type in _FLOAT and not attribute.is_ref():
            yield Target(node, attribute=name)


def _inside(node: ir.Node) -> Iterator[ir.Graph]:
    for subgraph in subgraphs_of(node):
        yield from graphs_of(subgraph)


@dataclass(slots=True)
class Mutator:
    """Changes the channels of one target, all of them or some.

    Attributes:
        side: The folded model.
        segment: What is evaluated.
        target: What is changed.
        count: How many channels it has; one for an attribute.
    """

    side: Side
    segment: Segment
    target: Target
    rng: np.random.Generator
    count: int = 1
    _elements: Array | None = None
    _channels: NDArray[np.int64] | None = None
    _factors: Array = field(default_factory=lambda: np.ones(1))
    _is_large: bool = False

    def __post_init__(self) -> None:
        """Read the constant once."""
        value = self.target.value
        if value is None:
            return
        rows = self._rows(value)
        shape = () if rows is None else rows.shape
        if rows is None:
            self._elements = np.asarray(self.side.constant(value))
            shape = self._elements.shape
        self._channels = channels_of(self.target.node, self.target.slot, shape)
        self.count = int(self._channels.max(initial=-1)) + 1
        self._factors = self.rng.uniform(1.25, 3.0, self.count)
        self._is_large = rows is not None or self._is_large_factor()

    def _rows(self, value: ir.Value) -> Rows | None:
        """Return a weight by rows that is so large that what it gives is changed instead."""
        node, slot = self.target.node, self.target.slot
        is_factor = node.op_type in _LINEAR and slot == 1
        rows = self.side.rows(value, as_stored=True) if is_factor else None
        if rows is None:
            return None
        channels = channels_of(node, slot, rows.shape)
        kept = [axis for axis, size in enumerate(channels.shape) if size > 1]
        typical = _SMALL * _typical(rows.sample(_SAMPLE))
        return rows if rows.exceed(kept, typical) else None

    def signs(self, mask: Mask, feeds: Mapping[str, Array], result: Array) -> Mutation:
        """Turn the sign of the channels of a mask, and change their size."""
        return self._by(np.where(mask, -self._factors, 1.0), mask, feeds, result)

    def sizes(
        self, mask: Mask, feeds: Mapping[str, Array], result: Array, step: float
    ) -> Mutation:
        """Change the size of the channels of a mask a little: by one to three steps.

        A little: a channel that a Relu shuts off is woken by a large change, and seems seen.
        """
        factors = 1.0 + step * self._factors
        return self._by(np.where(mask, factors, 1.0), mask, feeds, result)

    def reads(self, feeds: Mapping[str, Array]) -> Mask | None:
        """Return which channels that a weight reads hold anything; None for other targets."""
        node, slot = self.target.node, self.target.slot
        if node.op_type not in _LINEAR or slot > 1 or self.target.value is None:
            return None
        other = node.inputs[1 - slot] if len(node.inputs) > 1 else None
        if slot < 0 or other is None or self.side.is_constant(other):
            return None
        index = [place for place, one in enumerate(self.segment.nodes) if one is node]
        before = Segment(other, self.segment.nodes[: index[0]], self.segment.inputs)
        given = self.side.evaluate(before, feeds)
        axis = _contracted(node, slot) % max(given.ndim, 1)
        others = tuple(one for one in range(given.ndim) if one != axis)
        return np.asarray(np.nan_to_num(np.abs(given)).max(axis=others, initial=0.0) > 0.0)

    def unpicked(self) -> Mask:
        """Return which channels nothing hangs on, whatever is put in."""
        value = self.target.value
        if value is None or self._channels is None:
            return np.zeros(self.count, bool)
        return unpicked(self.target.node, value, self.side, self._channels, self.count)

    def tap(self) -> Mutation | None:
        """Change a single element; None where a channel is one, or all are many or none."""
        elements, value = self._elements, self.target.value
        if elements is None or value is None or elements.ndim < 2 or not elements.size:
            return None
        if elements.dtype != np.float64 or elements.size > _MOST_FOR_A_TAP:
            return None
        place = tuple(int(self.rng.integers(size)) for size in elements.shape)
        other = elements.copy()
        other[place] = -1.5 * other[place] + _typical(elements)
        return Mutation({value: other})

    def _by(
        self, factors: Array, mask: Mask, feeds: Mapping[str, Array], result: Array
    ) -> Mutation:
        node, value = self.target.node, self.target.value
        if value is None:
            return Mutation(nodes={node: _with_attribute(node, self.target.attribute)})
        if self._is_large:
            return self._behind(factors, None, feeds, result)
        if self._elements is None or self._channels is None:
            return Mutation()
        if self._is_addend():
            added = np.where(mask, (factors - 1.0) * _filled(self._elements), 0.0)
            return self._behind(None, added, feeds, result)
        per_element = factors[self._channels]
        touched = np.broadcast_to(mask[self._channels], self._elements.shape)
        return Mutation({value: _multiplied(self._elements, per_element, touched)})

    def _is_addend(self) -> bool:
        """Whether the target is the bias of a linear operator: one number for each channel."""
        node, elements = self.target.node, self._elements
        if node.op_type not in _LINEAR or self.target.slot != 2 or elements is None:
            return False
        plain = node.op_type != "Gemm" or float_attr(node, "beta", 1.0) == 1.0
        return plain and elements.ndim == 1 and elements.dtype == np.float64

    def _is_large_factor(self) -> bool:
        """Whether the target is a large weight, no row of which is all but zero."""
        elements, channels = self._elements, self._channels
        if self.target.node.op_type not in _LINEAR or self.target.slot != 1:
            return False
        if elements is None or channels is None or elements.size < _LARGE:
            return False
        others = tuple(axis for axis, size in enumerate(channels.shape) if size == 1)
        # Two passes without a copy: the weight may be most of the model.
        peaks = np.maximum(
            elements.max(axis=others, initial=0.0), -elements.min(axis=others, initial=0.0)
        )
        return bool((peaks > _SMALL * _typical(elements)).all())

    def _behind(
        self,
        factors: Array | None,
        added: Array | None,
        feeds: Mapping[str, Array],
        result: Array,
    ) -> Mutation:
        """Change what a linear operator gives: op(x, f·W) + b + d = f·(op(x, W)) + b + d."""
        node = self.target.node
        (output,) = node.outputs
        if output is self.segment.result:
            given = result
        else:
            nodes = self.segment.nodes[: self.segment.nodes.index(node) + 1]
            given = self.side.evaluate(Segment(output, nodes, self.segment.inputs), feeds)
        axis = _LINEAR[node.op_type] % given.ndim
        along = [-1 if place == axis else 1 for place in range(given.ndim)]
        if factors is None:
            moved = given if added is None else given + added.reshape(along)
        else:
            bias = self._bias(along)
            moved = bias + factors.reshape(along) * (given - bias)
        return Mutation(results={output: moved})

    def _bias(self, along: list[int]) -> Array:
        node = self.target.node
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if value is None or not self.side.is_constant(value):
            return np.zeros(())
        bias = self.side.constant(value)
        if node.op_type == "Gemm":
            return np.asarray(float_attr(node, "beta", 1.0) * bias)
        return bias.reshape(along)


def _contracted(node: ir.Node, slot: int) -> int:
    """Return the axis of what a weight at ``slot`` reads that is summed over."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    turned = bool(int_attr(node, "transB" if slot == 0 else "transA", 0))
    return -2 if (slot == 0) != turned else -1


def _filled(elements: Array) -> Array:
    """Return the elements; those that are all but zero become as large as the others.

    No factor changes a zero, and what is left of one by rounding is lost in rounding again.
    """
    typical = _typical(elements)
    return np.where(np.abs(elements) < _SMALL * typical, typical, elements)


def _multiplied(elements: Array, factors: Array, touched: Mask) -> Array:
    """Multiply what is touched; integers and booleans become their neighbours."""
    if elements.dtype == np.float64:
        return np.where(touched, _filled(elements) * factors, elements)
    if elements.dtype == np.bool_:
        return np.where(touched, ~elements, elements)
    if elements.dtype.kind not in "iu":
        return elements
    top = np.iinfo(elements.dtype).max
    moved = np.where(elements == top, elements - 1, np.minimum(elements, top - 1) + 1)
    return np.where(touched, moved, elements).astype(elements.dtype)


def _typical(elements: Array) -> float:
    """Return the root mean square of what is a number and not zero; one if nothing is.

    What is vast beside the median, as the penalties of a mask are, is left out.
    """
    step = max(elements.size // _SAMPLE, 1)
    sizes = np.abs(elements.reshape(-1)[::step])
    some = sizes[np.isfinite(sizes) & (sizes != 0)]
    if not some.size:
        return 1.0
    middle = float(np.median(some))
    shares = some[some <= _VAST * middle] / middle
    return float(middle * np.sqrt(np.mean(shares * shares)))


def _with_attribute(node: ir.Node, name: str) -> ir.Node:
    """Return a node of its own, in no graph, with another number in one attribute."""
    attributes = []
    for attribute in node.attributes.values():
        if attribute.name != name:
            attributes.append(attribute)
        elif attribute.type == ir.AttributeType.FLOAT:
            other = -1.5 * attribute.as_float() or 0.5
            attributes.append(ir.AttrFloat32(name, other))
        else:
            numbers = [-1.5 * one or 0.5 for one in attribute.as_floats()]
            attributes.append(ir.AttrFloat32s(name, numbers))
    count = len(node.outputs)
    return ir.Node(
        node.domain, node.op_type, (), attributes, num_outputs=count, name=node.name
    )
