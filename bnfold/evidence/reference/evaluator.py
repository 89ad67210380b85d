"""Evaluate a model in float64.

Casts of activations between float types keep the value, so two models that differ only in how
they round their activations evaluate to the same numbers here. What depends on constants only
is known in the model's own types too, for operators that make a step of a last bit (`typed`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from bnfold.errors import UsageError
from bnfold.evidence import clock
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
from bnfold.evidence.reference.sizes import check_size
from bnfold.evidence.reference.smooth import is_float
from bnfold.evidence.reference.tracking import Outcome, evaluate_known, exactly
from bnfold.evidence.reference.typed import Known
from bnfold.evidence.reference.typed import known as typed_value
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
    known: dict[ir.Value, Known | None] = field(default_factory=dict)


_Passed: TypeAlias = dict[int, tuple[Any, Known]]
"""What is known of arrays that graphs hand to each other, by identity."""


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
        self._plain: dict[ir.Node, bool] = {}
        self._opsets = _opsets(model.opset_imports)

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
        fed = self._fed(feeds)
        scope = _Scope(fed, self._opsets, {}, {}, dict.fromkeys(fed))
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
            # a body may run again: what it stores is read once
            kept = {*graph.outputs, *graph.initializers.values()}
            scope.schedules[graph] = schedule(graph, kept)
        for node, dying in scope.schedules[graph]:
            clock.check()
            inputs = [None if v is None else self._value(v, scope) for v in node.inputs]
            outcome = self._evaluate(node, inputs, scope)
            entries = zip(node.outputs, outcome.results, outcome.known, strict=False)
            for value, result, known in entries:
                scope.values[value], scope.known[value] = result, known
            for value in dying:
                scope.values.pop(value, None)
                scope.known.pop(value, None)
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
        return self.run_known(node, inputs, captured).results

    def run_known(
        self, node: ir.Node, inputs: Sequence[Any], captured: Mapping[ir.Value, Any]
    ) -> Outcome:
        """Return the outputs of one node, as `run_node` does, with what is known of them."""
        scope = _Scope(dict(captured), self._opsets, {}, {})
        return self._evaluate(node, inputs, scope)

    def known_outside(self, value: ir.Value) -> Known | None:
        """Return what is known of a value that nothing here has computed: of a weight."""
        tensor = value.const_value
        if tensor is None or value.producer() is not None:
            return None
        dtype = tensor.dtype if is_float(tensor.dtype) else None
        return typed_value(dtype, partial(self.stored, value))

    def _known(self, value: ir.Value | None, scope: _Scope) -> Known | None:
        if value is None:
            return None
        return scope.known[value] if value in scope.known else self.known_outside(value)

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

    def _is_plain(self, node: ir.Node) -> bool:
        """Return whether a node is an operator alone: no function, subgraph or reference.

        The same few nodes are evaluated thousands of times, so the answer is kept.
        """
        found = self._plain.get(node)
        if found is None:
            found = (
                node.op_identifier() not in self._model.functions
                and next(subgraphs_of(node), None) is None
                and not any(one.is_ref() for one in node.attributes.values())
            )
            self._plain[node] = found
        return found

    def _evaluate(self, node: ir.Node, inputs: Sequence[Any], scope: _Scope) -> Outcome:
        given = [self._known(value, scope) for value in node.inputs]
        opset = scope.opsets.get(_domain(node.domain), 1)
        if self._is_plain(node):
            return evaluate_known(node, inputs, given, partial(self._operator, node, opset))
        function = self._model.functions.get(node.op_identifier())
        node = bound(node, scope.given)
        passed: _Passed = {
            id(x): (x, k) for x, k in zip(inputs, given, strict=False) if k is not None
        }
        if function is not None:
            results = self._call(function, node, inputs, scope.schedules, passed)
        elif next(subgraphs_of(node), None) is not None:
            run = partial(self._run_subgraph, scope, passed)
            results = run_control(Call(node, inputs, opset), run)
        else:
            return evaluate_known(node, inputs, given, partial(self._operator, node, opset))
        return Outcome(results, [_passed_on(one, passed) for one in results])

    def _operator(self, node: ir.Node, opset: int, inputs: Sequence[Any]) -> Sequence[Any]:
        check_size(node, inputs, opset)
        try:
            return evaluate_node(node, inputs, opset)
        except NoKernelError:
            if self._fallback is None:
                raise
        self.fell_back.add(name_of(node))
        return [widen_result(value) for value in self._fallback(node, inputs, opset)]

    def _run_subgraph(
        self, scope: _Scope, passed: _Passed, graph: ir.Graph, inputs: Sequence[Any]
    ) -> list[Any]:
        scope.values.update(zip(graph.inputs, inputs, strict=True))
        scope.known.update(
            (v, _passed_on(x, passed)) for v, x in zip(graph.inputs, inputs, strict=True)
        )
        self._run_nodes(graph, scope, None)
        return self._handed_over(graph.outputs, scope, passed)

    def _handed_over(
        self, values: Sequence[ir.Value], scope: _Scope, passed: _Passed
    ) -> list[Any]:
        """Return the results of a graph, and take note of what is known of them."""
        results = [self._value(value, scope) for value in values]
        for value, result in zip(values, results, strict=True):
            known = self._known(value, scope)
            if known is not None:
                passed[id(result)] = (result, known)
        return results

    def _call(
        self,
        function: ir.Function,
        node: ir.Node,
        inputs: Sequence[Any],
        schedules: dict[ir.Graph, Schedule],
        passed: _Passed,
    ) -> list[Any]:
        given = {name: a for name, a in function.attributes.items() if a.value is not None}
        given |= node.attributes
        values = dict(zip(function.inputs, inputs, strict=False))
        values |= dict.fromkeys(function.inputs[len(inputs) :])
        scope = _Scope(values, _opsets(function.opset_imports), given, schedules)
        scope.known.update((value, _passed_on(x, passed)) for value, x in values.items())
        self._run_nodes(function.graph, scope, None)
        return self._handed_over(function.outputs, scope, passed)


def _passed_on(array: Any, passed: _Passed) -> Known | None:
    """Return what is known of an array that comes from another graph."""
    found = passed.get(id(array))
    if found is not None:
        return found[1]
    counts = isinstance(array, np.ndarray) and array.dtype.kind in "iub" and not array.ndim
    return exactly(array) if counts else None


def _opsets(imports: Mapping[str, int]) -> dict[str, int]:
    return {_domain(domain): version for domain, version in imports.items()}


def _domain(name: str) -> str:
    """The default domain has two names."""
    return "" if name == "ai.onnx" else name
