"""Reshape, Flatten, Squeeze, Unsqueeze: the map is spread over the elements and read back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.model.shapes import Dims
from bnfold.records import Refusal
from bnfold.rules.base import Maps, Rule, Taken, wrong_axis
from bnfold.rules.passing import along_one_axis, unknown_shape

_MAX_ELEMENTS: Final = 1 << 22


class Reshape(Rule):
    """The elements keep their order, so a map survives if it varies along one new axis."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the output becomes the map of the input."""
        return _pass(node, maps, node.outputs[0], node.inputs[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the input becomes the map of the output."""
        return _pass(node, maps, node.inputs[0], node.outputs[0], facts)


def _pass(
    node: ir.Node, maps: Maps, here: ir.Value | None, there: ir.Value | None, facts: Facts
) -> Taken | Refusal:
    affine = maps[0]
    if affine.axis is None:
        return Taken(onward={0: affine})
    from_dims = None if here is None else _with_channels(facts.shape(here), affine)
    to_dims = None if there is None else facts.shape(there)
    if from_dims is None or to_dims is None:
        return unknown_shape(node, "the shape on its other side")
    if 0 in (*from_dims, *to_dims):
        # Exporters have written 0 for sizes they did not know: so nothing is said of the map.
        return wrong_axis(node, affine, "its value is declared to have no elements")
    moved = through_reshape(affine, from_dims, to_dims)
    if moved is None:
        why = f"they do not survive as one axis from {list(from_dims)} to {list(to_dims)}"
        why += ", which takes equal entries within each group that is merged"
        return wrong_axis(node, affine, why)
    return Taken(onward={0: moved})


def _with_channels(dims: Dims | None, affine: Affine) -> Dims | None:
    if dims is None or affine.axis is None or affine.axis >= len(dims):
        return None
    return (*dims[: affine.axis], affine.channels, *dims[affine.axis + 1 :])


def through_reshape(affine: Affine, from_dims: Dims, to_dims: Dims) -> Affine | None:
    """Return the map after its elements are laid out as ``to_dims``; None if it is none then.

    Only the block of axes that is regrouped matters: ``[N, C, H, W] → [N, C·H·W]`` spreads the
    C entries over H·W elements each. Sizes outside of the block may be unknown.
    """
    block = _block(affine.axis or 0, from_dims, to_dims)
    if block is None:
        return None
    (start, stop), (to_start, to_stop) = block
    inside = _sizes(from_dims[start:stop])
    outside = _sizes(to_dims[to_start:to_stop])
    if inside is None or outside is None or math.prod(inside) > _MAX_ELEMENTS:
        return None
    along = [1] * len(inside)
    along[(affine.axis or 0) - start] = affine.scale.size
    parts = [
        np.broadcast_to(part.reshape(along), inside).reshape(outside)
        for part in (affine.scale, affine.shift)
    ]
    found = along_one_axis(parts)
    if found is None:
        return None
    axis, (scale, shift) = found
    return Affine.per_channel(to_start + axis, scale, shift)


def _sizes(dims: Dims) -> list[int] | None:
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return sizes if len(sizes) == len(dims) else None


def _block(
    axis: int, from_dims: Dims, to_dims: Dims
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the smallest runs of axes around ``axis`` that hold the same elements.

    Runs are matched from the front while dimensions are equal, known or the same symbol, and
    from the back while the products of known sizes agree.
    """
    front = 0
    while (
        front < min(len(from_dims), len(to_dims), axis)
        and from_dims[front] is not None
        and from_dims[front] == to_dims[front]
    ):
        front += 1
    cuts = _cuts_from_back(from_dims[front:], to_dims[front:])
    bounds = [(front, front), *((front + left, front + right) for left, right in cuts)]
    stop = min((cut for cut in bounds if cut[0] > axis), default=None)
    start = max((cut for cut in bounds if cut[0] <= axis), default=None)
    if start is None or stop is None:
        return None
    return (start[0], stop[0]), (start[1], stop[1])


def _cuts_from_back(left: Sequence[object], right: Sequence[object]) -> list[tuple[int, int]]:
    """Return the positions in both shapes behind which equally many elements stand."""
    i, j = len(left), len(right)
    cuts = [(i, j)]
    while i and j:
        left_size, right_size = left[i - 1], right[j - 1]
        i, j = i - 1, j - 1
        if not isinstance(left_size, int) or not isinstance(right_size, int):
            break
        while left_size != right_size:
            if left_size < right_size:
                step = left[i - 1] if i else None
                i -= 1
                if not isinstance(step, int):
                    return cuts
                left_size *= step
            else:
                step = right[j - 1] if j else None
                j -= 1
                if not isinstance(step, int):
                    return cuts
                right_size *= step
        cuts.append((i, j))
    return cuts
