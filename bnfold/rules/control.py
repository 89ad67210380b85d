"""If, Loop and Scan: a map passes where every branch, or every turn, takes it.

Maps of values that a subgraph reads from outside never meet these operators: the readers
inside answer for themselves.
"""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import ints_attr
from bnfold.model.facts import Facts
from bnfold.model.graphs import subgraphs_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Results, Rule, Taken, name_of, wrong_axis
from bnfold.rules.passing import all_equal, maps_differ, unknown_shape

_CONDITION: Final = 1
"""The first result of a Loop's body says whether it goes on."""


class If(Rule):
    """Result i is result i of the branch taken (If-1 to -25)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """All branches give their result with the map."""
        inside = {
            (graph, place): affine
            for graph in subgraphs_of(node)
            for place, affine in maps.items()
        }
        return Taken(inside=inside)

    def take_within(self, node: ir.Node, maps: Results, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """All branches bring the same map."""
        branches = list(subgraphs_of(node))
        places = dict.fromkeys(place for _, place in maps)
        onward: dict[int, Affine] = {}
        for place in places:
            brought = [maps.get((graph, place), Affine.uniform()) for graph in branches]
            if not all_equal(brought):
                return maps_differ(node, "its branches do not all bring the same map")
            onward[place] = brought[0]
        return Taken(onward=onward)


class _Turns(Rule):
    """A body that runs many times, and stacks some of its results along a new axis."""

    def carried(self, node: ir.Node) -> int:
        """Return how many outputs are the last state, and not a stack of results."""
        raise NotImplementedError

    def results_before(self) -> int:
        """Return how many results of the body stand in front of the states."""
        raise NotImplementedError

    def stack_axis(self, node: ir.Node, place: int, facts: Facts) -> int | Refusal:
        """Return the axis of output ``place`` that the turns are stacked along."""
        raise NotImplementedError

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map of stacked results goes into the result of every turn."""
        (body,) = subgraphs_of(node)
        inside: dict[tuple[ir.Graph, int], Affine] = {}
        for place, affine in maps.items():
            axis = self._axis(node, place, facts)
            if isinstance(axis, Refusal):
                return axis
            if affine.axis == axis:
                return wrong_axis(node, affine, "it runs over the turns")
            inner = affine
            if affine.axis is not None and affine.axis > axis:
                inner = affine.on_axis(affine.axis - 1)
            inside[body, place + self.results_before()] = inner
        return Taken(inside=inside)

    def take_within(self, node: ir.Node, maps: Results, facts: Facts) -> Taken | Refusal:
        """A map of every turn's result becomes one of the stack."""
        onward: dict[int, Affine] = {}
        for (_, result), affine in maps.items():
            place = result - self.results_before()
            axis = self._axis(node, place, facts)
            if isinstance(axis, Refusal):
                return axis
            outer = affine
            if affine.axis is not None and affine.axis >= axis:
                outer = affine.on_axis(affine.axis + 1)
            onward[place] = outer
        return Taken(onward=onward)

    def _axis(self, node: ir.Node, place: int, facts: Facts) -> int | Refusal:
        if place < self.carried(node):
            why = "the value is a state that the next turn reads again, or decides on"
            return Refusal(Code.SHARED_VALUE, name_of(node), why)
        return self.stack_axis(node, place, facts)


class Loop(_Turns):
    """States first, then stacks along axis 0 (Loop-1 to -25)."""

    def carried(self, node: ir.Node) -> int:
        """Return the number of states: all inputs but the count and the condition."""
        return len(node.inputs) - 2

    def results_before(self) -> int:
        """The body says first whether it goes on."""
        return _CONDITION

    def stack_axis(self, node: ir.Node, place: int, facts: Facts) -> int | Refusal:  # noqa: ARG002  contract
        """Return the first axis."""
        return 0


class Scan(_Turns):
    """States first, then stacks along ``scan_output_axes`` (Scan-9 to -25)."""

    def carried(self, node: ir.Node) -> int:
        """Return the number of states: the inputs that are not scanned."""
        scanned = node.attributes.get("num_scan_inputs")
        return len(node.inputs) - (0 if scanned is None else scanned.as_int())

    def results_before(self) -> int:
        """No result stands in front of the states."""
        return 0

    def stack_axis(self, node: ir.Node, place: int, facts: Facts) -> int | Refusal:
        """Return the axis that the attribute names; the first by default."""
        axes = ints_attr(node, "scan_output_axes")
        axis = axes[place - self.carried(node)] if axes else 0
        if axis >= 0:
            return axis
        rank = facts.rank(node.outputs[place])
        return unknown_shape(node, "the rank of its output") if rank is None else axis + rank
