"""Write a chain that cannot leave in the fewest nodes: a BatchNormalization, Mul, Add."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.folding.ranges import check_ranges
from bnfold.folding.sites import Chain
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import SetConstant
from bnfold.rules.batch_norm import rewrite_as
from bnfold.rules.mul_add import NUMPY_BROADCAST_SINCE, laid_out


@dataclass(frozen=True, slots=True, eq=False)
class Remainder:
    """The nodes of a chain that stay, and what they become.

    Attributes:
        kept: Nodes that stay, with the operator each becomes, in graph order.
        edits: Edits of their constants.
    """

    kept: tuple[tuple[ir.Node, str], ...]
    edits: tuple[SetConstant, ...]


def shorten(chain: Chain, left: Affine, facts: Facts) -> Remainder | Refusal:
    """Return fewer nodes than ``chain`` has that apply ``left`` in its place."""
    remainder = write_as(chain, left, facts)
    if isinstance(remainder, Refusal):
        return remainder
    if _cost([kind for _, kind in remainder.kept]) >= _cost([n.op_type for n in chain.nodes]):
        why = "its maps already stand in the fewest nodes"
        return Refusal(Code.NO_GAIN, chain.names[0], why)
    return check_ranges(remainder.edits) or remainder


def write_as(chain: Chain, left: Affine, facts: Facts) -> Remainder | Refusal:
    """Return the fewest nodes of ``chain`` that can apply ``left`` in its place.

    The constant becomes the second operand, of shape [C, 1, …]: what runtimes fuse best.
    """
    if left.is_identity:
        # Its input and its output are both part of the interface: something must join them.
        return Remainder(((chain.nodes[-1], "Identity"),), ())
    return _as_batch_norm(chain, left, facts) or _as_mul_add(chain, left, facts)


def _cost(kinds: list[str]) -> int:
    """Count scales and shifts: a BatchNormalization is both in one node."""
    return sum(2 if kind == "BatchNormalization" else 1 for kind in kinds)


def _as_batch_norm(chain: Chain, left: Affine, facts: Facts) -> Remainder | None:
    """Use a BatchNormalization of the chain, when both scale and shift remain."""
    found = [node for node in chain.nodes if node.op_type == "BatchNormalization"]
    if not found or not (left.has_scale and left.has_shift):
        return None
    edits = rewrite_as(found[0], left, facts)
    if isinstance(edits, Refusal):
        return None  # it runs along another axis; Mul and Add may do
    return Remainder(((found[0], "BatchNormalization"),), edits)


def _as_mul_add(chain: Chain, left: Affine, facts: Facts) -> Remainder | Refusal:
    wanted = [
        (kind, vector, channels)
        for kind, vector, channels, needed in (
            ("Mul", left.scale, 0, left.has_scale),
            ("Add", left.shift, None, left.has_shift),
        )
        if needed
    ]
    if facts.opset() < NUMPY_BROADCAST_SINCE:
        why = "before opset 7 a Mul or Add would broadcast its constant by an attribute"
        return Refusal(Code.NO_GAIN, chain.names[0], why)
    if len(chain.nodes) < len(wanted):
        return Refusal(Code.NO_GAIN, chain.names[0], "a scale and a shift need two nodes")
    dtype = facts.dtype(chain.source) or facts.dtype(chain.result)
    nodes = _nodes_for([kind for kind, _, _ in wanted], chain)
    edits: list[SetConstant] = []
    for node, (_, vector, channels) in zip(nodes, wanted, strict=True):
        expression = laid_out(vector, left.axis, facts.rank(chain.source))
        if expression is None or dtype is None:
            why = "the type or rank of the value is unknown"
            return Refusal(Code.UNKNOWN_SHAPE, chain.names[0], why)
        edits.append(SetConstant(node, 1, expression, dtype, channels))
    kinds = [kind for kind, _, _ in wanted]
    return Remainder(tuple(zip(nodes, kinds, strict=True)), tuple(edits))


def _nodes_for(kinds: list[str], chain: Chain) -> list[ir.Node]:
    """Choose nodes of the chain to keep: of the same kind where there is one, in order."""
    if len(kinds) == 1:
        same = [node for node in chain.nodes if node.op_type == kinds[0]]
        return (same or list(chain.nodes))[:1]
    return list(chain.nodes[: len(kinds)])
