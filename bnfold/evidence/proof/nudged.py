"""A model whose numbers are moved by up to half an ulp: the noise of what it stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.by_rows import Rows
from bnfold.evidence.proof.rounding import nudged
from bnfold.evidence.proof.sides import Side, named_as

Array = NDArray[Any]

_MANY: Final = 1 << 20
"""Weights of so many elements are not nudged: what they give is, see `NudgedSide`."""

_FLOAT32: Final = 2.0**-24


class NudgedSide(Side):
    """A model some of whose numbers are moved by up to half an ulp: its storage noise."""

    def __init__(
        self,
        side: Side,
        is_moved: Callable[[str], bool],
        is_rounded: Callable[[ir.Node], bool],
        rng: np.random.Generator,
        exact: Callable[[str], Array | None] = lambda _: None,
    ) -> None:
        """Nudge initializers and attributes of the model of ``side``, once and for all.

        Args:
            side: The model.
            is_moved: Says of the key of an initializer whether it is nudged.
            is_rounded: Says of a node whether its attributes are moved.
            rng: Where the moves come from.
            exact: Gives, for the key of an initializer, which of its elements are no rounded
                ones; None for none of them.
        """
        super().__init__(side.model, side.wide, survey=side.survey)
        self._source = side
        self._is_rounded = is_rounded
        self._copies: dict[ir.Node, ir.Node] = {}
        self._is_moved = is_moved
        self._rng = rng
        self._exact = exact
        self._drawn: dict[str, Array] = {}

    def _run(
        self, node: ir.Node, given: list[Array | None], captured: Mapping[ir.Value, Array]
    ) -> Sequence[Array | None]:
        if not self._is_rounded(node):
            results = super()._run(node, given, captured)
            return self._with_noise(node, given, results)
        if node not in self._copies:
            self._copies[node] = _with_moved_attributes(node, self._rng)
        results = super()._run(self._copies[node], given, captured)
        # Bounds, such as the one of a HardSigmoid, may have been numbers of the model too.
        factor = 1.0 + _FLOAT32 * self._rng.uniform(-1.0, 1.0)
        moved = [
            one * factor if one is not None and one.dtype == np.float64 else one
            for one in results
        ]
        if node.op_type != "HardSwish" or given[0] is None or moved[0] is None:
            return moved
        return [given[0] * moved[0]]

    def _is_moved_behind(self, value: ir.Value) -> bool:
        """Return whether a weight is so large that what it gives is moved instead."""
        tensor = value.const_value
        if tensor is None or tensor.size <= _MANY or value.producer() is not None:
            return False
        return all(_takes_noise(use.node, use.idx) for use in value.uses())

    def rows(self, _: ir.Value, *, as_stored: bool = False) -> Rows | None:  # noqa: ARG002  a side's signature
        """Return nothing: what a large weight gives is moved, and that asks for the weight."""
        return None

    def constant_of_any_kind(self, value: ir.Value) -> Any:
        """Return a constant; a large one that is not moved itself is read only once."""
        if self._is_moved_behind(value):
            return self._source.constant_of_any_kind(value)
        return super().constant_of_any_kind(value)

    def _with_noise(
        self, node: ir.Node, given: list[Array | None], results: Sequence[Array | None]
    ) -> Sequence[Array | None]:
        """Add what half-ulp moves of a large weight would make of what it gives.

        Errors of rounding are even within half an ulp and hang on nothing, so of a sum
        Σ x·w they are normal with the variance Σ x²·h²/3; to draw them so costs one product
        where to move the weight costs a copy of it, and a product each time.
        """
        value = node.inputs[1] if len(node.inputs) > 1 else None
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or results[0] is None:
            return results
        if not self._is_moved(self.key_of(value)) or not self._is_moved_behind(value):
            return results
        spread = self._source.spread(node, given, tensor)
        moves = self._rng.standard_normal(results[0].shape)
        return [results[0] + spread * moves, *results[1:]]

    def stored(self, value: ir.Value) -> Array | None:
        """Return an initializer, moved if it is one of those."""
        key, tensor = self.key_of(value), value.const_value
        if not self._is_moved(key) or tensor is None or value.producer() is not None:
            return super().stored(value)
        if self._is_moved_behind(value):
            return super().stored(value)
        if key not in self._drawn:
            stored = np.asarray(tensor.numpy())
            moved, exact = nudged(stored, self._rng), self._exact(key)
            if exact is not None:
                moved = np.where(exact, stored.astype(np.float64), moved)
            self._drawn[key] = moved
        return self._drawn[key]


def _takes_noise(node: ir.Node, slot: int) -> bool:
    """Return whether a node is linear in a weight at this slot: its noise adds up there."""
    return slot == 1 and node.op_type in ("MatMul", "Gemm", "Conv")


def _with_moved_attributes(node: ir.Node, rng: np.random.Generator) -> ir.Node:
    """Return a node of its own, in no graph, whose numbers are moved by half a float32 ulp."""
    moved = []
    op_type, attributes = node.op_type, list(node.attributes.values())
    if op_type == "HardSwish":  # x · HardSigmoid(x) with these numbers (HardSwish-14)
        op_type = "HardSigmoid"
        attributes = [ir.AttrFloat32("alpha", 1 / 6), ir.AttrFloat32("beta", 0.5)]
    for attribute in attributes:
        if attribute.type == ir.AttributeType.FLOAT and not attribute.is_ref():
            held = np.array(attribute.as_float(), np.float32)
            moved.append(ir.AttrFloat32(attribute.name, float(nudged(held, rng))))
        else:
            moved.append(attribute)
    count = len(node.outputs)
    copy = ir.Node(node.domain, op_type, (), moved, num_outputs=count, name=node.name)
    return named_as(copy, node)
