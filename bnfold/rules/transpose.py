"""Transpose: the map's axis is permuted."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.model.attributes import ints_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of


class Transpose(Rule):
    """Output axis j is input axis perm[j] (Transpose-1); perm defaults to the reverse."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map on output axis j becomes one on input axis perm[j]."""
        affine = maps[0]
        if affine.axis is None:
            return Taken(onward={0: affine})
        perm = permutation(node, facts)
        return (
            perm
            if isinstance(perm, Refusal)
            else Taken(onward={0: affine.on_axis(perm[affine.axis])})
        )

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map on input axis perm[j] becomes one on output axis j."""
        affine = maps[0]
        if affine.axis is None:
            return Taken(onward={0: affine})
        perm = permutation(node, facts)
        return perm if isinstance(perm, Refusal) else Taken(onward={0: affine.permute(perm)})


def permutation(node: ir.Node, facts: Facts) -> tuple[int, ...] | Refusal:
    """Return which axis of the input each axis of the output is, or why that is unknown."""
    perm = ints_attr(node, "perm")
    if perm:
        return perm
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if rank is None:
        why = "it has no perm and the rank of its input is unknown"
        return Refusal(Code.UNKNOWN_SHAPE, name_of(node), why)
    return tuple(reversed(range(rank)))
