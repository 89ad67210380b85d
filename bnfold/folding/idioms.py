"""Operators spelled out in nodes that runtimes know and run as one: these are left whole.

A Gelu spelled ``x · (1 + erf(x / √2)) / 2`` has three scalar maps in it, a layer normalisation
two in its tail. Moving one of them away saves a pass in the graph and costs five at run time:
the runtime no longer recognises the rest. repvit_m1 has 252 nodes after ONNX Runtime's own
fusions, and 330 when the halves of its Gelus are folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.folding.spelled_norms import spelled_at
from bnfold.model.facts import Facts
from bnfold.records import Refusal

_HALF: Final = 0.5
_INNER: Final = frozenset({"Mul", "Div", "Add", "Pow"})
_OF_INTEGERS: Final = frozenset({"MatMulInteger", "ConvInteger"})
_DEEPEST: Final = 6
"""A Gelu by Tanh has so many nodes in front of it, at most."""


@dataclass(frozen=True, slots=True)
class Idioms:
    """Nodes that have to stay for a runtime to recognise what they spell.

    Attributes:
        whole: Nodes that are neither moved nor written to.
        tails: Maps that stay where they are, but take others into their constants.
        scales: The same, of weights that a product of integers is multiplied by.
    """

    whole: frozenset[ir.Node] = frozenset()
    tails: frozenset[ir.Node] = frozenset()
    scales: frozenset[ir.Node] = frozenset()


NO_IDIOMS: Final = Idioms()


def find_idioms(facts: Facts) -> Idioms:
    """Return the spelled-out operators of a model."""
    whole: set[ir.Node] = set()
    tails: set[ir.Node] = set()
    scales: set[ir.Node] = set()
    for node in facts.nodes():
        if not facts.is_standard(node):
            continue
        if node.op_type in ("Erf", "Tanh"):
            gelu = gelu_at(node, facts)
            whole.update(() if gelu is None else gelu.nodes)
        elif node.op_type == "Sqrt" and not facts.permissions.norms:
            tails.update(tail_of_norm(node, facts))
        elif node.op_type == "DynamicQuantizeLinear":
            scales.update(scales_behind(node, facts))
    return Idioms(frozenset(whole), frozenset(tails), frozenset(scales))


@dataclass(frozen=True, slots=True, eq=False)
class Gelu:
    """A spelled-out Gelu, exact or approximate.

    Attributes:
        data: x.
        core: The Erf or Tanh.
        nodes: All nodes of it.
        half: The node that multiplies by one half.
        product: The node that multiplies by x, or by half of it.
        last: The node that writes the result.
    """

    data: ir.Value
    core: ir.Node
    nodes: frozenset[ir.Node]
    half: ir.Node
    product: ir.Node
    last: ir.Node


def gelu_at(core: ir.Node, facts: Facts) -> Gelu | None:
    """Return ``x · (1 + core(f(x))) / 2``, the half anywhere, if that is what is spelled."""
    plus = _only_reader(core, facts)
    if plus is None or plus.op_type != "Add" or _number(plus, facts) != 1.0:
        return None
    gate, product = plus, _only_reader(plus, facts)
    half = product if product is not None and _is_half(product, facts) else None
    if half is not None:
        gate, product = half, _only_reader(half, facts)
    if product is None or product.op_type != "Mul" or _number(product, facts) is not None:
        return None
    data = next((value for value in product.inputs if value is not gate.outputs[0]), None)
    before = None if data is None else data.producer()
    if half is None and before is not None and _is_half(before, facts):
        half = before
        data = next(v for v in half.inputs if v is not None and not _holds(v, facts))
    after = _only_reader(product, facts)
    last = product
    if half is None and after is not None and _is_half(after, facts):
        half = last = after
    inner = None if data is None else _between(data, core, facts)
    if data is None or half is None or inner is None:
        return None
    return Gelu(data, core, inner | {core, plus, half, product}, half, product, last)


def _between(data: ir.Value, core: ir.Node, facts: Facts) -> frozenset[ir.Node] | None:
    """Return the nodes that compute the input of ``core`` from ``data`` and constants."""
    found: set[ir.Node] = set()
    pending = [core.inputs[0]]
    while pending:
        value = pending.pop()
        if value is None or value is data or _holds(value, facts):
            continue
        node = value.producer()
        if node is None or node.op_type not in _INNER or len(found) > _DEEPEST:
            return None
        found.add(node)
        pending.extend(node.inputs)
    return frozenset(found)


def tail_of_norm(root: ir.Node, facts: Facts) -> Iterator[ir.Node]:
    """Yield the Mul and Add by constants behind a normalisation over the last axes."""
    quotient = _only_reader(root, facts)
    spelled = spelled_at(root, facts)
    if quotient is None or quotient.op_type != "Div" or spelled is None:
        return
    rank = facts.rank(spelled.data) or 0
    if spelled.axes != tuple(range(rank - len(spelled.axes), rank)):
        return
    node: ir.Node | None = quotient
    for kind in ("Mul", "Add"):
        node = None if node is None else _only_reader(node, facts)
        if node is None or node.op_type != kind or not facts.constant_inputs(node):
            return
        yield node


def scales_behind(source: ir.Node, facts: Facts) -> Iterator[ir.Node]:
    """Yield each ``a_scale · b_scale`` of a product that is quantised when it runs.

    ``Cast(MatMulInteger(a, B)) · (a_scale · b_scale)``, a and a_scale by ``source``: runtimes
    run all of it as one. The constant b_scale is a map of the number a_scale, and costs
    nothing where it is; anywhere else it breaks the operator up.
    """
    for scaled, _ in facts.reads(source.outputs[1]) if len(source.outputs) > 1 else ():
        whole = _only_reader(scaled, facts) if scaled.op_type == "Mul" else None
        if whole is None or whole.op_type != "Mul" or not facts.constant_inputs(scaled):
            continue
        others = (value for value in whole.inputs if value is not scaled.outputs[0])
        cast = next((v.producer() for v in others if v is not None), None)
        product = None
        if cast is not None and cast.op_type == "Cast" and cast.inputs[0] is not None:
            product = cast.inputs[0].producer()
        if product is not None and product.op_type in _OF_INTEGERS:
            yield scaled


def _only_reader(node: ir.Node, facts: Facts) -> ir.Node | None:
    uses = facts.reads(node.outputs[0])
    if len(uses) != 1 or facts.leaves(node.outputs[0]):
        return None
    reader = uses[0][0]
    return reader if reader.graph is node.graph and facts.is_standard(reader) else None


def _is_half(node: ir.Node, facts: Facts) -> bool:
    number = _number(node, facts)
    return (node.op_type, number) in (("Mul", _HALF), ("Div", 1.0 / _HALF))


def _number(node: ir.Node, facts: Facts) -> float | None:
    """Return the one number that a binary operator has beside its data."""
    places = facts.constant_inputs(node)
    if len(places) != 1 or len(node.inputs) != 2:
        return None
    held = facts.constant(node.inputs[next(iter(places))])
    if isinstance(held, Refusal) or not held.is_float or int(np.prod(held.shape)) != 1:
        return None
    return float(held.wide().reshape(-1)[0])


def _holds(value: ir.Value, facts: Facts) -> bool:
    return not isinstance(facts.constant(value), Refusal)
