"""Questions about a model that rules and the planner ask: shapes, types, constants, places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.expression import Expression
from bnfold.model.amounts import SPARSE
from bnfold.model.attributes import int_attr
from bnfold.model.constants import Constant, constant_node, constant_of
from bnfold.model.copies import Copies
from bnfold.model.evaluate import COMPUTES, evaluate
from bnfold.model.extents import Extents
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.growth import Given, Growth, growth_of, in_reference
from bnfold.model.native import UndecidedError
from bnfold.model.origins import named
from bnfold.model.room import Room
from bnfold.model.shapes import Dim, Dims, ShapeTable
from bnfold.model.sizes import Size
from bnfold.model.uncomputed import why_uncomputed
from bnfold.model.uses import uses_of
from bnfold.model.versions import Checked, why_unchecked
from bnfold.records import NOT_EVALUATED, Code, Permissions, Refusal

Use = tuple[ir.Node, int]
"""A reader of a value: a node and its input index, or see `Facts.result`."""

_OVERRIDABLE_SINCE_IR: Final = 4
_BLIND_TO_ELEMENTS: Final = frozenset({("Shape", 0), ("Size", 0), ("CastLike", 1)})
_RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"}
)


class Facts:
    """What is known of one model. It reads; it never writes."""

    def __init__(
        self,
        model: ir.Model,
        permissions: Permissions | None = None,
        checked: Mapping[str, Checked] | None = None,
    ) -> None:
        """Ask about ``model``.

        Args:
            model: The model.
            permissions: What a user allows.
            checked: By operator, the versions that the asker was checked against; any other
                version counts as an operator of somebody else's.
        """
        self.model = model
        self.permissions = permissions or Permissions()
        self._checked = checked or {}
        self._unchecked: dict[ir.Node, str] = {}
        self._shapes = ShapeTable(model)
        self._extents = Extents(self)
        self._computed: dict[ir.Node, list[Constant] | Refusal | None] = {}
        self._position: dict[ir.Node, int] = {}
        self._end: dict[ir.Node, int] = {}
        self._sizes: dict[ir.Node, dict[int, tuple[int | None, ...]]] = {}
        self._constant_inputs: dict[ir.Node, frozenset[int]] = {}
        self._owner: dict[ir.Graph, ir.Node] = {}
        self._fixed: dict[ir.Value, bool] = {}
        self._quantizes: bool | None = None
        self._room = Room(model)
        self.rows: dict[ir.Value, tuple[int, ir.Node]] = {}
        """Operators in a row that only hand maps on: see `bnfold.folding.tracks`."""
        self.apart: dict[ir.Node, object] = {}
        """Nodes that very many maps cannot pass together, until the graph changes."""
        self.sources: dict[ir.Node, tuple[object, ...]] = {}
        """Maps that nodes apply, with what that was read from: see `bnfold.folding.sites`."""
        self.copies = Copies()
        """What was made of shared constants, by whoever edits the model."""
        self._number(model.graph, 0)

    def _number(self, graph: ir.Graph, start: int) -> int:
        for node in graph:
            self._position[node] = start
            start += 1
            for subgraph in subgraphs_of(node):
                self._owner[subgraph] = node
                start = self._number(subgraph, start)
            self._end[node] = start
            start += 1
        return start

    def position(self, node: ir.Node) -> int:
        """Return the place of a node in topological order, in front of its subgraphs."""
        return self._position[node]

    def end(self, node: ir.Node) -> int:
        """Return the place behind the subgraphs of a node in the same order."""
        return self._end[node]

    def exchange(self, node: ir.Node, reader: ir.Node) -> None:
        """Take note that ``reader`` now stands in front of ``node``, with its results.

        The result of ``node`` has the shape that the result of ``reader`` had.
        """
        for places in (self._position, self._end):
            places[node], places[reader] = places[reader], places[node]
        self._shapes.move(reader.outputs[0], node.outputs[0])
        self._extents.forget(reader.outputs[0], node.outputs[0])

    def forget(self, node: ir.Node) -> None:
        """Take note that a node reads other inputs than it did, or other constants."""
        self._constant_inputs.pop(node, None)
        self._sizes.pop(node, None)
        self._computed.pop(node, None)
        self.sources.pop(node, None)

    def forget_behind(self, node: ir.Node) -> None:
        """Take note that the results of a node are given in another way.

        What was computed from them, if it was, is computed anew when somebody asks.
        """
        stack = [node]
        while stack:
            for value in stack.pop().outputs:
                for reader, _ in uses_of(value):
                    if reader in self._computed:
                        self.forget(reader)
                        stack.append(reader)

    def adopt(self, node: ir.Node, like: ir.Node) -> None:
        """Take note of a new node that stands where ``like`` stands."""
        self._position[node], self._end[node] = self._position[like], self._end[like]

    def quantizes_activations(self) -> bool:
        """Return whether values computed at run time are stored as integers in between."""
        if self._quantizes is None:
            self._quantizes = any(
                node.op_type == "DequantizeLinear"
                and isinstance(self.constant(node.outputs[0]), Refusal)
                for node in self.nodes()
            )
        return self._quantizes

    def opset(self) -> int:
        """Return the version of the default operator set."""
        imports = self.model.graph.opset_imports
        return imports.get("", imports.get("ai.onnx", 1))

    def element_uses(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Return the readers of a value, (node, input index), that depend on its elements.

        Shape and Size depend on its shape alone, CastLike on the type of its second input.
        """
        return [
            (node, index)
            for node, index in uses_of(value)
            if (node.op_type, index) not in _BLIND_TO_ELEMENTS or not self.is_standard(node)
        ]

    def reads(self, value: ir.Value) -> list[Use]:
        """Return `element_uses`, and the owner of the subgraph whose result the value is."""
        return list(self.each_read(value))

    def each_read(self, value: ir.Value) -> Iterator[Use]:
        """Yield what `reads` returns, for whoever may stop at the first of very many."""
        for node, index in uses_of(value):
            if (node.op_type, index) not in _BLIND_TO_ELEMENTS or not self.is_standard(node):
                yield node, index
        owner = None if value.graph is None else self._owner.get(value.graph)
        if owner is None or value.graph is None or not value.is_graph_output():
            return
        for place, out in enumerate(value.graph.outputs):
            if out is value:
                yield owner, self.result(place)

    def leaves(self, value: ir.Value) -> bool:
        """Return whether a value is a result of the model, not just of a subgraph."""
        if not value.is_graph_output():
            return False
        graph = value.graph
        return graph not in self._owner or all(out is not value for out in graph.outputs)

    @staticmethod
    def result(place: int) -> int:
        """Return the input index that stands for result ``place`` of a node's subgraph."""
        return -1 - place

    @staticmethod
    def place(index: int) -> int:
        """Return which result of a subgraph an index made by `result` stands for."""
        return -1 - index

    def is_standard(self, node: ir.Node) -> bool:
        """Return whether the node is an operator of the ONNX specification that is known."""
        return self._is_of_onnx(node) and not self.why_unchecked(node)

    def why_unchecked(self, node: ir.Node) -> str:
        """Say why an operator of ONNX is of a version that nobody has looked at, if so."""
        why = self._unchecked.get(node)
        if why is None:
            checked = self._checked.get(node.op_type) if self._is_of_onnx(node) else None
            why = "" if checked is None else why_unchecked(node, self.opset(), checked)
            self._unchecked[node] = why
        return why

    def _is_of_onnx(self, node: ir.Node) -> bool:
        return node.domain in ("", "ai.onnx") and (
            (node.domain, node.op_type, node.overload) not in self.model.functions
        )

    def shape(self, value: ir.Value) -> Dims | None:
        """Return the dimensions of a value; None when not even the rank is known."""
        return self._extents.dims(value)

    def inferred(self, value: ir.Value) -> Dims | None:
        """Return what inference by onnx tells of the dimensions of a value."""
        return self._shapes.dims(value)

    def extents(self, value: ir.Value) -> tuple[Size, ...] | None:
        """Return the same as `shape`, with open sizes as polynomials that can be compared."""
        return self._extents.of(value)

    def knows_more_than(self, other: Facts) -> bool:
        """Return whether a size of a value of the model is known here and not there."""
        if self is other:
            return False
        results = (value for node in self.nodes() for value in node.outputs)
        return any(self._shapes.knows_more(other._shapes, value) for value in results)

    def rank(self, value: ir.Value) -> int | None:
        """Return the number of dimensions of a value, if known."""
        dims = self.shape(value)
        return None if dims is None else len(dims)

    def dim(self, value: ir.Value, axis: int) -> Dim:
        """Return one dimension of a value: a number, a symbol, or None when unknown."""
        dims = self.shape(value)
        if dims is None or axis >= len(dims):
            return None
        return dims[axis]

    def sizes(self, node: ir.Node, axis: int) -> tuple[int | None, ...]:
        """Return the size of every input of a node along an axis; None where unknown."""
        known = self._sizes.setdefault(node, {})
        if axis not in known:
            found = (None if v is None else self.dim(v, axis) for v in node.inputs)
            known[axis] = tuple(size if isinstance(size, int) else None for size in found)
        return known[axis]

    def sizes_in(self, value: ir.Value) -> int:
        """Return how many elements a value has; 0 if that is unknown."""
        dims = self.shape(value) or (None,)
        return math.prod(dim if isinstance(dim, int) else 0 for dim in dims)

    def constant_inputs(self, node: ir.Node) -> frozenset[int]:
        """Return the inputs of a node that hold a constant that may be relied on."""
        known = self._constant_inputs.get(node)
        if known is None:
            places = enumerate(node.inputs)
            known = frozenset(
                i for i, v in places if v and isinstance(self.constant(v), Constant)
            )
            self._constant_inputs[node] = known
        return known

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return the element type of a value, if known."""
        return self._shapes.dtype(value)

    def constant(self, value: ir.Value | None) -> Constant | Refusal:
        """Return the constant a value holds, or why it is none that may be relied on."""
        if value is None:
            return Refusal(Code.DYNAMIC_CONSTANT, "", "the input is absent")
        if value.producer() is not None:
            return self._produced(value)
        if value.const_value is None:
            why = f"{value.name!r} is a graph input, its value is not known before run time"
            return Refusal(Code.DYNAMIC_CONSTANT, value.name or "", why)
        if self.is_overridable(value):
            return Refusal(
                Code.OVERRIDABLE,
                value.name or "",
                f"initializer {value.name!r} is a graph input too: callers may override it",
                "remove it from the graph inputs, or pass --assume-constant-inputs",
            )
        if SPARSE in value.const_value.meta:
            size = float(value.const_value.size)
            if why := self._room.why_not(Growth(size, size)):
                return _too_large(value.name or "", "a sparse initializer", why)
        return constant_of(value.const_value)

    def is_fixed(self, value: ir.Value | None) -> bool:
        """Return whether a value hangs on initializers only, whatever operators compute it.

        It is then the same at every run, even where its elements are not known here.
        """
        if value is None:
            return False
        stack = [value]
        while stack:
            current = stack[-1]
            node = current.producer()
            if current in self._fixed or self._is_free(current, node):
                self._fixed.setdefault(stack.pop(), False)
                continue
            sources = [] if node is None else [v for v in node.inputs if v is not None]
            waiting = [source for source in sources if source not in self._fixed]
            if waiting:
                stack.extend(waiting)
            else:
                self._fixed[stack.pop()] = all(self._fixed[source] for source in sources)
        return self._fixed[value]

    def _is_free(self, value: ir.Value, node: ir.Node | None) -> bool:
        """Return whether a value may be another one at another run, as far as is known."""
        if node is None:
            return value.const_value is None or self.is_overridable(value)
        if not node.inputs:
            return node.op_type != "Constant"
        known = self.is_standard(node) and node.op_type not in _RANDOM
        return not known or next(subgraphs_of(node), None) is not None

    def is_overridable(self, value: ir.Value) -> bool:
        """Return whether callers may replace this initializer (IR version 4 and later)."""
        return (
            value.is_graph_input()
            and self.model.ir_version >= _OVERRIDABLE_SINCE_IR
            and not self.permissions.constant_inputs
        )

    def _produced(self, value: ir.Value) -> Constant | Refusal:
        found = self.held(value) or why_uncomputed(value, self)
        why = f"{value.name!r} is computed at run time"
        return found or Refusal(Code.DYNAMIC_CONSTANT, value.name or "", why)

    def held(self, value: ir.Value) -> Constant | Refusal | None:
        """Return what a node gives, or why that is not known; None if it is dynamic."""
        node, place = value.producer(), value.index() or 0
        results = None if node is None else self._compute(node)
        if results is None or isinstance(results, Refusal):
            return results
        return results[place] if place < len(results) else None

    def _compute(self, last: ir.Node) -> list[Constant] | Refusal | None:
        """Evaluate a node and the constant nodes it hangs on, deepest first (no recursion)."""
        stack = [last]
        while stack:
            node = stack[-1]
            if node in self._computed:
                stack.pop()
                continue
            waiting = [
                producer
                for value in self._needed(node)
                if (producer := value.producer()) is not None
                and producer not in self._computed
            ]
            if waiting:
                stack.extend(waiting)
            else:
                results = self._evaluate(node)
                if isinstance(results, list):
                    pairs = zip(results, node.outputs, strict=False)
                    results = [named(result, value.name) for result, value in pairs]
                self._computed[node] = results
        return self._computed[last]

    def _needed(self, node: ir.Node) -> list[ir.Value]:
        """Return the inputs whose elements the result depends on."""
        if not self.is_standard(node) or node.op_type not in COMPUTES:
            return []
        inputs = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
        if node.op_type in ("Shape", "Size"):
            inputs = ()
        return [value for value in inputs if value is not None]

    def _evaluate(self, node: ir.Node) -> list[Constant] | Refusal | None:
        if not self.is_standard(node):
            return None
        if node.op_type == "Constant":
            found = constant_node(node)
            return None if found is None else [found]
        if node.op_type in ("Shape", "Size"):
            return self._shape_constant(node)
        if node.op_type not in COMPUTES:
            return None
        inputs: list[Constant | None] = []
        for value in self._needed(node) if node.op_type == "CastLike" else node.inputs:
            entry = None if value is None else self.constant(value)
            if isinstance(entry, Refusal):
                return entry if entry.code in NOT_EVALUATED else None
            inputs.append(entry)
        return self._evaluate_on(node, inputs)

    def _evaluate_on(
        self, node: ir.Node, inputs: list[Constant | None]
    ) -> list[Constant] | Refusal | None:
        target = self._cast_target(node)
        if node.op_type in ("Cast", "CastLike") and target is None:
            return None
        where = node.name or node.outputs[0].name or node.op_type
        growth = growth_of(_given(node, inputs, self.opset()))
        growth = in_reference(growth, node.op_type)
        if why := self._room.why_not(growth):
            return _too_large(where, node.op_type, why)
        try:
            found = evaluate(node, inputs, self.opset(), target)
        except UndecidedError as error:
            return Refusal(Code.UNDECIDED_CONSTANT, where, str(error))
        except MemoryError:
            return _too_large(where, node.op_type, "it needs more memory than there is")
        self._room.take(growth, sum(math.prod(one.shape) for one in found or ()))
        return found

    def _cast_target(self, node: ir.Node) -> ir.DataType | None:
        if node.op_type == "Cast":
            return ir.DataType(int_attr(node, "to", 0))
        if node.op_type == "CastLike" and node.inputs[1] is not None:
            return self.dtype(node.inputs[1])
        return None

    def _shape_constant(self, node: ir.Node) -> list[Constant] | None:
        dims = None if node.inputs[0] is None else self.shape(node.inputs[0])
        if dims is None:
            return None
        if node.op_type == "Shape":
            start = int_attr(node, "start", 0)
            dims = dims[start : int_attr(node, "end", len(dims))]
        if not all(isinstance(dim, int) for dim in dims):
            return None
        elements = np.array(dims, dtype=np.int64)
        if node.op_type == "Size":
            elements = np.array(elements.prod(), dtype=np.int64)
        return [Constant(Expression.of(elements), ir.DataType.INT64)]

    def nodes(self) -> list[ir.Node]:
        """Return every node of the model, of subgraphs too, in topological order."""
        return [node for graph in graphs_of(self.model.graph) for node in graph]


def _given(node: ir.Node, inputs: list[Constant | None], opset: int) -> Given:
    shapes = [None if entry is None else entry.shape for entry in inputs]

    def element(place: int) -> NDArray[np.generic]:
        entry = inputs[place]
        return np.zeros(0) if entry is None else entry.stored()

    return Given(node, shapes, element, opset)


def _too_large(where: str, op_type: str, why: str) -> Refusal:
    said = f"the constant that {op_type} makes is too large: {why}"
    remedy = (
        "allow more with --max-elements; computed constants are never larger than all stored"
    )
    return Refusal(Code.TOO_LARGE, where, said, remedy)
