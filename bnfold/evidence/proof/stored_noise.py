"""What of a folded model is known no better than it is stored; models nudged by that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.proof.nudged import NudgedSide
from bnfold.evidence.proof.rounding import elements_left_alone, roundoff_of
from bnfold.evidence.proof.sides import Segment, Side
from bnfold.model.graphs import graphs_of, subgraphs_of

Array = NDArray[Any]

_ABSORBERS: Final = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization"}
    | {"LayerNormalization", "GroupNormalization", "RMSNormalization"}
)
"""Operators whose weights take up a map from some way off."""
_NEIGHBOURS: Final = frozenset({"Add", "Sub", "Mul", "Div", "PRelu", "Clip", "Max", "Min"})
"""Operators whose constants take one up only where they stand beside it. No others: a scale of
a Resize, a limit of a Range are sizes."""


@dataclass(slots=True)
class StoredNoise:
    """What may be rounded, and how coarsely.

    Attributes:
        original: The one model.
        folded: The other.
        is_same: Says of a node of the folded model whether it is the same, byte for byte.
        rounded: Initializers of the folded model whose unrounded elements are not known.
        kept: Those that are the same in both models, where nothing tells whether they were
            rounded to that.
        coarsest: Half an ulp of one, in the coarsest type of these.
        seed: Of all moves.
    """

    original: Side
    folded: Side
    is_same: Callable[[ir.Node], bool]
    rounded: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    coarsest: float = 0.0
    seed: int = 0
    _nudged: dict[frozenset[str], list[NudgedSide]] = field(default_factory=dict)
    _rounded_nodes: dict[ir.Node, bool] = field(default_factory=dict)
    _noisy_nodes: dict[ir.Node, bool] = field(default_factory=dict)
    _alone: dict[str, Array | None] = field(default_factory=dict)

    def is_in(self, segment: Segment) -> bool:
        """Return whether something that a segment reads is known no better than stored."""
        return any(map(self.is_at, segment.nodes))

    def is_at(self, node: ir.Node) -> bool:
        """Return whether something that a node reads is known no better than stored."""
        return self.is_rounded(node) or (bool(self.rounded) and self._reads_rounded(node))

    def is_read(self, segment: Segment) -> bool:
        """Return whether a segment reads a tensor that is known no better than stored."""
        return bool(self.rounded) and any(map(self._reads_rounded, segment.nodes))

    def is_rounded(self, node: ir.Node) -> bool:
        """Return whether a node changed and has numbers among its attributes.

        Those are stored in float32, and nothing tells what they were rounded from. A
        HardSwish has a sixth among its constants, whoever spells it out has it rounded.
        """
        found = self._rounded_nodes.get(node)
        if found is None:  # asked of every node in every trial: no graph changes here
            floats = (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS)
            numbers = any(attribute.type in floats for attribute in node.attributes.values())
            found = (numbers or node.op_type == "HardSwish") and not self.is_same(node)
            self._rounded_nodes[node] = found
        return found

    def _reads_rounded(self, node: ir.Node) -> bool:
        found = self._noisy_nodes.get(node)
        if found is None:
            inner = (
                value
                for subgraph in subgraphs_of(node)
                for graph in graphs_of(subgraph)
                for value in graph.initializers.values()
            )
            read = (*self.folded.reads(node), *inner)
            found = any(self.folded.survey.hangs_on(value, self.rounded) for value in read)
            self._noisy_nodes[node] = found
        return found

    def kept_by(
        self, nodes: Iterable[ir.Node], edited: set[ir.Node]
    ) -> tuple[frozenset[str], float] | None:
        """Return the tensors that did not change, and may have been rounded to that.

        A factor of 0.9999 leaves every number of a bfloat16 weight as it is. A constant of a
        node that did not change, and is no weight, is none of these: the penalty of a mask.

        Args:
            nodes: Of the folded model.
            edited: Nodes that are not the same in both models.

        Returns:
            Their names, and half an ulp of one in the coarsest of their types; None if there
            are none.
        """
        readers = (
            one
            for one in nodes
            if one.op_type in _ABSORBERS or (one in edited and one.op_type in _NEIGHBOURS)
        )
        read = {value for node in readers for value in node.inputs if value is not None}
        held = [value for value in read if self.folded.key_of(value) in self.kept]
        kinds = {one.const_value.dtype.numpy() for one in held if one.const_value is not None}
        if not kinds:
            return None
        return frozenset(map(self.folded.key_of, held)), max(map(roundoff_of, kinds))

    def sides(self, count: int, kept: frozenset[str]) -> Sequence[NudgedSide]:
        """Return so many models in which all of this is moved by up to half an ulp."""
        sides = self._nudged.setdefault(kept, [])

        def is_moved(key: str) -> bool:
            return key in self.rounded or key in kept

        while len(sides) < count:
            rng = np.random.default_rng((self.seed, len(sides)))
            side = NudgedSide(self.folded, is_moved, self.is_rounded, rng, self._left_alone)
            sides.append(side)
        return sides[:count]

    def _left_alone(self, key: str) -> Array | None:
        """Return which elements of a changed tensor are the original's, and not rounded."""
        if key not in self._alone:
            before, after = self.original.tensor_of(key), self.folded.tensor_of(key)
            found = None
            if before is not None and after is not None:
                found = elements_left_alone(before.numpy(), after.numpy())
            self._alone[key] = found
        return self._alone[key]
