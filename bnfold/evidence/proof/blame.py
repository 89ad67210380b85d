"""Which node of the folded model a wrong value comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.links import Link
from bnfold.evidence.proof.lockstep import Lockstep
from bnfold.evidence.proof.mutations import targets_at
from bnfold.evidence.proof.outcomes import Lost
from bnfold.evidence.proof.sides import Side

_AS_GOOD = 1e-6
"""A fitted scale this near to one is one: fits beside rounding noise are no better."""

Blame = tuple[str, ir.Node | None, int | None]
"""Name of the value, the node, and the channel of the value."""


def blame(walk: Lockstep, lost: Lost, channel: int | None) -> Blame:
    """Return the node that computes a lost value, or the one that a stray map is from."""
    changed = [node for node in lost.nodes if is_changed(walk, node)]
    suspects = [node for node in changed if not is_renamed(walk, node)]
    strays = [read for read in lost.maps if _link(walk, read) is not None]
    sparse = [read for read in strays if _is_sparse(_link(walk, read))]
    if strays and (sparse or not suspects):
        name, channel = _picked(walk, lost.nodes[-1], sparse or strays, channel)
        return origin(walk, name, channel)
    holding = [node for node in suspects if _holds_something(walk, node)]
    named = holding or suspects or changed or list(lost.nodes)
    return lost.name, named[-1] if named else None, channel


def origin(walk: Lockstep, name: str, channel: int | None) -> Blame:
    """Follow a map backwards, through nodes that hand it on, to one that may have made it."""
    while True:
        value = walk.folded.values.get(name)
        node = None if value is None else value.producer()
        if node is None or (is_changed(walk, node) and not is_renamed(walk, node)):
            return name, node, channel
        names = [read.name or "" for read in node.inputs if read is not None]
        strays = [read for read in names if _link(walk, read) is not None]
        if not strays:
            return name, node, channel
        name, channel = _picked(walk, node, strays, channel)


def is_changed(walk: Lockstep, node: ir.Node) -> bool:
    """Return whether a node of the folded model, or one of its tensors, changed."""
    tensors = [v.name or "" for v in node.inputs if v is not None and v.is_initializer()]
    return not walk.comparer.is_same(node) or any(
        name not in walk.comparer.same_tensors for name in tensors
    )


def is_renamed(walk: Lockstep, node: ir.Node) -> bool:
    """Return whether nothing about a changed node is new but the names it reads and writes.

    Its operator, attributes and constants are those of some node of the original.
    """
    folded, comparer = walk.folded, walk.comparer
    constants = [v for v in node.inputs if v is not None and folded.is_constant(v)]
    if not all(map(comparer.is_same_constant, constants)):
        return False
    wanted = _nature(folded, node)
    return any(_nature(walk.original, one) == wanted for one in walk.original.position)


def _holds_something(walk: Lockstep, node: ir.Node) -> bool:
    """Return whether a node reads numbers that the original has not."""
    return any(targets_at(node, walk.folded, walk.comparer))


def _nature(side: Side, node: ir.Node) -> tuple[object, ...]:
    """Return what a node does, whatever values it does it with."""
    reads = [
        (value.name if side.is_constant(value) else "") if value is not None else None
        for value in node.inputs
    ]
    proto = ir.serde.serialize_node(node)
    attributes = sorted(bytes(one.SerializeToString()) for one in proto.attribute)
    return node.domain, node.op_type, tuple(reads), tuple(attributes)


def _link(walk: Lockstep, name: str) -> Link | None:
    return walk.relations.get(name)


def _is_sparse(link: Link | None) -> bool:
    """Return whether a map leaves most channels alone."""
    if link is None:
        return False
    same = np.isclose(link.scale, 1.0, rtol=_AS_GOOD, atol=0.0) & (
        np.abs(link.shift) < _AS_GOOD
    )
    return bool(np.mean(same) > 0.5)


def _picked(
    walk: Lockstep, node: ir.Node, strays: Sequence[str], channel: int | None
) -> tuple[str, int | None]:
    """Return which of the mapped values a channel comes from, and its channel there."""
    start = 0
    for value in node.inputs if node.op_type == "Concat" and channel is not None else ():
        link = None if value is None else _link(walk, value.name or "")
        if value is None or link is None or value.name not in strays:
            break
        if channel is not None and channel < start + link.scale.size:
            return value.name or "", channel - start
        start += link.scale.size
    link = _link(walk, strays[-1])
    return strays[-1], None if link is None else link.gap.channel
