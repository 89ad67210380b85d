"""What is found in the graph of a model, once and for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import onnx_ir as ir

from bnfold.evidence.proof.contents import stored_values
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.shapes import ShapeTable

_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial"}
)
_STANDARD: Final = ("", "ai.onnx", "com.microsoft")
_OVERRIDABLE_SINCE: Final = 4


class Survey:
    """The values and nodes of a main graph, and what hangs on what.

    A model is evaluated with many sets of moved numbers; none of them looks at all of its
    graph again.

    Args:
        model: The model, which does not change any more.
        constant_inputs: Whether initializers that are also graph inputs are constants.

    Attributes:
        values: Values of the main graph, by name.
        position: Where the nodes of the main graph stand.
        keys: Of the values that hold an initializer, its key.
        by_key: These values by that key.
    """

    def __init__(self, model: ir.Model, *, constant_inputs: bool = False) -> None:
        self._model = model
        self.values: dict[str, ir.Value] = {}
        self.position: dict[ir.Node, int] = {}
        self.by_key = stored_values(model)
        self.keys = {value: key for key, value in self.by_key.items()}
        self._constant: set[ir.Value] = set()
        self._types: ShapeTable | None = None
        self._reads: dict[ir.Node, list[ir.Value]] = {}
        self._captured: dict[ir.Node, list[ir.Value]] = {}
        self._hanging: dict[frozenset[str], dict[ir.Value, bool]] = {}
        self._look(constant_inputs=constant_inputs)

    def _look(self, *, constant_inputs: bool) -> None:
        graph = self._model.graph
        overridable = not constant_inputs and self._model.ir_version >= _OVERRIDABLE_SINCE
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

    def captured(self, node: ir.Node) -> Sequence[ir.Value]:
        """Return the outer values that the subgraphs of a node read."""
        if node not in self._captured:
            self._captured[node] = list(_captured_by(node))
        return self._captured[node]

    def reads(self, node: ir.Node) -> list[ir.Value]:
        """Return every value that a node depends on, once each.

        Of the second input of CastLike (CastLike-15) that is its type: what no node of the
        other model changes, and what makes a number of ``CastLike(0, x)``.
        """
        if node not in self._reads:  # asked for again and again: no graph changes here
            inputs = node.inputs[:1] if self.type_read(node) else node.inputs
            direct = [value for value in inputs if value is not None]
            self._reads[node] = list(dict.fromkeys((*direct, *self.captured(node))))
        return self._reads[node]

    def type_read(self, node: ir.Node) -> ir.DataType | None:
        """Return the type that is all a node reads of its second input; None for no such node.

        Inference is asked only for a CastLike whose model does not tell the type.
        """
        if node.op_type != "CastLike" or node.domain not in _STANDARD or len(node.inputs) < 2:
            return None
        like = node.inputs[1]
        if like is None:
            return None
        if like.dtype is None and like.producer() is not None and self._types is None:
            self._types = ShapeTable(self._model)
        known = like.dtype if self._types is None else self._types.dtype(like)
        return None if known is ir.DataType.STRING else known

    def hangs_on(self, value: ir.Value | None, names: frozenset[str]) -> bool:
        """Return whether a constant is, or is computed from, one of these initializers."""
        known = self._hanging.setdefault(names, {})
        pending, seen = [value], {value}
        while pending:
            current = pending.pop()
            if current is None or not self.is_constant(current):
                continue
            producer = current.producer()
            if current not in known and producer is None:
                known[current] = self.keys.get(current, "") in names
            if known.get(current, False):
                known[value or current] = True
                return True
            reads = () if producer is None or current in known else producer.inputs
            pending.extend(one for one in reads if one not in seen)
            seen.update(reads)
        known.update((one, False) for one in seen if one is not None)
        return False


def _captured_by(node: ir.Node) -> Iterator[ir.Value]:
    for subgraph in subgraphs_of(node):
        inside = set(graphs_of(subgraph))
        for graph in inside:
            for inner in graph:
                for value in inner.inputs:
                    if value is not None and value.graph not in inside:
                        yield value
