"""Impulses: a window of affine operators is known completely by them.

An affine function is told by its value at zero and by its answer to a one in every place. So
where both sides of a segment are affine functions of one value, zeros and an impulse on every
channel, at every place, decide for all inputs: without data, and without drawing numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.extents import Sizes
from bnfold.evidence.proof.links import EXACT, Array, Gap, gap
from bnfold.evidence.proof.sides import CannotEvaluateError, Segment, Side

_MOST: Final = 1 << 12
"""Windows with more channels and places than this are left to drawn numbers."""

_CHUNK: Final = 1 << 21
"""Elements of impulses that are evaluated at once."""

_ONE_FACTOR: Final = frozenset(
    {"Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "BatchNormalization"}
)
"""Affine if all inputs but one are constant."""

# fmt: off
_AFFINE: Final = _ONE_FACTOR | {
    "Add", "Sub", "Neg", "Sum", "Mean", "Identity", "Dropout", "Cast", "Transpose", "Reshape",
    "Flatten", "Squeeze", "Unsqueeze", "Concat", "Slice", "Split", "Gather", "Expand", "Tile",
    "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "DepthToSpace",
    "SpaceToDepth", "Pad",
}
# fmt: on


def is_affine(segment: Segment, side: Side) -> bool:
    """Return whether a segment is an affine function of its one input."""
    return len(segment.inputs) == 1 and all(keeps_affine(node, side) for node in segment.nodes)


def keeps_affine(node: ir.Node, side: Side) -> bool:
    """Return whether a node computes an affine function of what is no constant of a model."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _AFFINE:
        return False
    if node.op_type not in _ONE_FACTOR:
        return True
    moving = [
        place
        for place, value in enumerate(node.inputs)
        if value is not None and not side.is_constant(value)
    ]
    return len(moving) == 1 and (node.op_type != "Div" or moving == [0])


def impulses(shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield zeros and every impulse, in batches along axis 0.

    Args:
        shape: Of the value; its axis 0 is the batch.
    """
    places = math.prod(shape[1:])
    rows = max(_CHUNK // max(places, 1), 1)
    for start in range(0, places + 1, rows):
        numbers = np.arange(start, min(start + rows, places + 1))
        batch = np.zeros((len(numbers), places))
        hit = numbers > 0
        batch[np.flatnonzero(hit), numbers[hit] - 1] = 1.0
        yield batch.reshape(-1, *shape[1:])


def probe(comparer: Comparer, pair: Pair, sizes: Sizes) -> Gap | None:
    """Hold two affine segments against each other at zero and at every impulse.

    Returns:
        How far apart they are, zero if they are not; None where they are not affine functions
        of one value of moderate size, or hold only for their own number of samples.
    """
    one, two = pair.original, pair.folded
    dims = comparer.dims.get(two.inputs[0]) if two.inputs else None
    if dims is None or one.inputs != two.inputs or comparer.is_noisy(pair):
        return None
    shape = comparer.shapes(pair, sizes)[two.inputs[0]]
    affine = is_affine(one, comparer.original) and is_affine(two, comparer.folded)
    if not affine or len(shape) < 2 or math.prod(shape[1:]) > _MOST:
        return None
    try:
        for batch in impulses(shape):
            trial = comparer.trial(pair, {one.inputs[0]: batch})
            found = gap(trial.original, trial.folded)
            if found.size > EXACT:
                return found
    except CannotEvaluateError:
        return None
    return Gap(0.0)
