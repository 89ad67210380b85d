"""GatherElements, GatherND, ReverseSequence: elements are placed anew, each with its map."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal
from bnfold.rules.base import Maps, Rule, Taken, wrong_axis
from bnfold.rules.passing import channels_of, pick_after, pick_before, unknown_shape
from bnfold.rules.weights import only_map


class GatherElements(Rule):
    """``y[i, j] = x[indices[i, j], j]`` for axis 0 (GatherElements-11, -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map passes that does not run along its axis."""
        return _elements(node, maps[0], facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map passes that does not run along its axis."""
        affine = only_map(node, maps, 0, "indices")
        if isinstance(affine, Refusal):
            return affine
        return _elements(node, affine, facts, up=False)


class GatherND(Rule):
    """``y[…, k] = x[indices[…], k]`` (GatherND-11 to -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map passes along axes that are taken as a whole, or along batches."""
        return _slices(node, maps[0], facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A map passes along axes that are taken as a whole, or along batches."""
        affine = only_map(node, maps, 0, "indices")
        return (
            affine if isinstance(affine, Refusal) else _slices(node, affine, facts, up=False)
        )


class ReverseSequence(Rule):
    """The first places of each sequence, backwards (ReverseSequence-10, -28)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """A map passes that does not run along time."""
        return _reversed(node, maps[0])

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """A map passes that does not run along time."""
        affine = only_map(node, maps, 0, "lengths")
        return affine if isinstance(affine, Refusal) else _reversed(node, affine)


def _elements(node: ir.Node, affine: Affine, facts: Facts, *, up: bool) -> Taken | Refusal:
    """Along the other axes the first channels are taken, as many as there are indices."""
    if affine.axis is None:
        return Taken(onward={0: affine})
    data, indices = node.inputs[:2]
    rank = None if data is None else facts.rank(data)
    if rank is None:
        return unknown_shape(node, "the rank of its input")
    if affine.axis == int_attr(node, "axis", 0) % rank:
        return wrong_axis(node, affine, "each of its indices counts along that axis")
    channels = channels_of(data, affine.axis, facts)
    taken = channels_of(indices, affine.axis, facts)
    if channels is None or taken is None or taken > channels:
        return unknown_shape(node, "how many channels it takes, and of how many,")
    pick = pick_after if up else pick_before
    return pick(node, affine, np.arange(taken), channels)


def _slices(node: ir.Node, affine: Affine, facts: Facts, *, up: bool) -> Taken | Refusal:
    if affine.axis is None:
        return Taken(onward={0: affine})
    batches = int_attr(node, "batch_dims", 0)
    if affine.axis < batches:
        return Taken(onward={0: affine})
    indices = node.inputs[1]
    rank = None if indices is None else facts.rank(indices)
    depth = None if rank is None else channels_of(indices, rank - 1, facts)
    if rank is None or depth is None:
        return unknown_shape(node, "the shape of its indices")
    outer, inner = rank - 1, batches + depth
    before, behind = (outer, inner) if up else (inner, outer)
    if affine.axis < before:
        return wrong_axis(node, affine, "its indices pick along that axis")
    return Taken(onward={0: affine.on_axis(affine.axis - before + behind)})


def _reversed(node: ir.Node, affine: Affine) -> Taken | Refusal:
    if affine.axis is not None and affine.axis == int_attr(node, "time_axis", 0):
        return wrong_axis(node, affine, "it reverses a part of that axis")
    return Taken(onward={0: affine})
