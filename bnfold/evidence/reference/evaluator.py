"""Evaluate a model in float64.

Casts between float types keep the value, so two models that differ only in how they round
their activations evaluate to the same numbers here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import onnx_ir as ir

from bnfold.errors import UsageError
from bnfold.evidence.reference.arrays import (
    Array,
    NoKernelError,
    read_tensor,
    widen,
    widen_result,
)
from bnfold.evidence.reference.call import Call, name_of
from bnfold.evidence.reference.control import run_control
from bnfold.evidence.reference.nodes import evaluate_node
from bnfold.evidence.reference.references import bound
from bnfold.evidence.reference.schedule import Schedule, schedule
from bnfold.model.graphs import subgraphs_of
from bnfold.model.values import values_in

Fallback: TypeAlias = Callable[[ir.Node, Sequence[Array | None], int], Sequence[Array | None]]
"""Evaluates a node without a float64 kernel: node, inputs, opset → outputs."""
OnNode: TypeAlias = Callable[[ir.Node], None]


@dataclass(slots=True)
class _Scope:
    """What one run of the main graph, or of one function, knows."""

    values: dict[ir.Value, Any]
    opsets: Mapping[str, int]
    given: Mapping[str, ir.Attr]
    schedules: dict[ir.Graph, Schedule]


class Evaluator:
    """Evaluates a model in which every float is float64.

    Args:
        model: The model; it is only read, its weights one at a time.
        fallback: Asked for operators without a float64 kernel.
        constants: Replaces initializers of the main graph, by name.

    Attributes:
        fell_back: The operators that the fallback ran, so far.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        fallback: Fallback | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> None:
        self._model = model
        self._fallback = fallback
        self._constants = constants or {}
        self.fell_back: set[str] = set()

    def run(
        self,
        feeds: Mapping[str, Array],
        wanted: Sequence[str] = (),
        on_node: OnNode | None = None,
    ) -> dict[str, Array]:
        """Return the outputs, and the wanted values of the main graph, by name.

        Args:
            feeds: The inputs by name.
            wanted: Names of values in between.
            on_node: Told of every node of the main graph once it has run.

        Raises:
            UsageError: If an input is missing or a wanted value is not in the graph.
            NoKernelError: If an operator has no kernel and there is no fallback for it.
        """
        graph = self._model.graph
        targets = {str(value.name): value for value in graph.outputs}
        targets |= self._named(wanted)
        scope = _Scope(self._fed(feeds), self._model.opset_imports, {}, {})
        scope.schedules[graph] = schedule(graph, set(targets.values()))
        self._run_nodes(graph, scope, on_node)
        return {name: self._value(value, scope) for name, value in targets.items()}

    def _named(self, wanted: Sequence[str]) -> dict[str, ir.Value]:
        if not wanted:
            return {}
        known = {str(value.name): value for value in values_in(self._model.graph)}
        for name in wanted:
            if name not in known:
                raise UsageError("the value is not in the graph", where=f"value {name!r}")
        return {name: known[name] for name in wanted}

    def _fed(self, feeds: Mapping[str, Array]) -> dict[ir.Value, Any]:
        inputs = self._model.graph.inputs
        for value in inputs:
            if value.name not in feeds and value.const_value is None:
                raise UsageError("an input is missing", where=f"input {value.name!r}")
        return {v: widen_result(feeds[v.name]) for v in inputs if v.name and v.name in feeds}

    def _run_nodes(self, graph: ir.Graph, scope: _Scope, on_node: OnNode | None) -> None:
        if graph not in scope.schedules:
            scope.schedules[graph] = schedule(graph, set(graph.outputs))
        for node, dying in scope.schedules[graph]:
            inputs = [None if v is None else self._value(v, scope) for v in node.inputs]
            results = self._results(node, inputs, scope)
            for value, result in zip(node.outputs, results, strict=False):
                scope.values[value] = result
            for value in dying:
                scope.values.pop(value, None)
            if on_node is not None:
                on_node(node)

    def _value(self, value: ir.Value, scope: _Scope) -> Any:
        if value not in scope.values:
            scope.values[value] = self.stored(value)
        return scope.values[value]

    def run_node(
        self, node: ir.Node, inputs: Sequence[Any], captured: Mapping[ir.Value, Any]
    ) -> Sequence[Any]:
        """Return the outputs of one node of the main graph: an operator or a function.

        Args:
            node: The node.
            inputs: Its inputs, None where absent.
            captured: The values of the main graph that its subgraphs read.

        Raises:
            NoKernelError: If an operator has no kernel and there is no fallback for it.
        """
        scope = _Scope(dict(captured), self._model.opset_imports, {}, {})
        return self._results(node, inputs, scope)

    def stored(self, value: ir.Value) -> Array:
        """Return a weight, of whatever graph, in float64.

        Raises:
            UsageError: If there is none.
        """
        main = value.graph is self._model.graph or value.graph is None
        if main and value.name and value.name in self._constants:
            return widen(self._constants[value.name])
        if value.const_value is None:
            raise UsageError("a value is computed by no node", where=f"value {value.name!r}")
        return read_tensor(value.const_value)

    def _results(self, node: ir.Node, inputs: Sequence[Any], scope: _Scope) -> Sequence[Any]:
        function = self._model.functions.get(node.op_identifier())
        node = bound(node, scope.given)
        opset = _opset(scope.opsets, node.domain)
        if function is not None:
            return self._call(function, node, inputs)
        if next(subgraphs_of(node), None) is not None:
            run = partial(self._run_subgraph, scope)
            return run_control(Call(node, inputs, opset), run)
        try:
            return evaluate_node(node, inputs, opset)
        except NoKernelError:
            if self._fallback is None:
                raise
        self.fell_back.add(name_of(node))
        return [widen_result(value) for value in self._fallback(node, inputs, opset)]

    def _run_subgraph(
        self, scope: _Scope, graph: ir.Graph, inputs: Sequence[Any]
    ) -> list[Any]:
        for value in graph.initializers.values():
            scope.values.pop(value, None)
        scope.values.update(zip(graph.inputs, inputs, strict=True))
        self._run_nodes(graph, scope, None)
        return [self._value(value, scope) for value in graph.outputs]

    def _call(self, function: ir.Function, node: ir.Node, inputs: Sequence[Any]) -> list[Any]:
        given = {name: a for name, a in function.attributes.items() if a.value is not None}
        given |= node.attributes
        values = dict(zip(function.inputs, inputs, strict=False))
        values |= dict.fromkeys(function.inputs[len(inputs) :])
        scope = _Scope(values, function.opset_imports, given, {})
        self._run_nodes(function.graph, scope, None)
        return [self._value(value, scope) for value in function.outputs]


def _opset(opsets: Mapping[str, int], domain: str) -> int:
    """The version a domain is read in; the standard one has two names."""
    if domain in ("", "ai.onnx"):
        return opsets.get("", opsets.get("ai.onnx", 1))
    return opsets.get(domain, 1)
