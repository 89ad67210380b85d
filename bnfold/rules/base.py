"""The contract of a rule: what one operator kind does with a map that reaches it.

A rule answers four questions, each with a reason when the answer is no:

- `Rule.source`: am I a map myself?
- `Rule.take_after`: maps are applied to my outputs; can I give those outputs myself?
- `Rule.take_before`: maps were applied to my inputs; can I do with the bare inputs?
- `Rule.take_within`: the same, for the results of my subgraphs.

The ``take`` questions are answered with `Taken`: edits of the node's own constants and
attributes, and the maps that go onward, to the inputs (up) or to the outputs (down). A node
that absorbs sends nothing onward; one that is merely passed edits nothing; a MatMul takes the
scale and sends a shift on. Rules are stateless, and read the graph through `Facts` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.expression import Expression
from bnfold.model.facts import Facts
from bnfold.records import NOT_EVALUATED, Code, Refusal

Maps = Mapping[int, Affine]
"""Maps by position of the input or output they apply to."""

AUTO_PADS: Final = {"auto_pad": frozenset({"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"})}
"""How Conv, ConvTranspose and the pools may be padded."""

Results = Mapping[tuple[ir.Graph, int], Affine]
"""Maps by the result of a subgraph they apply to."""


@dataclass(frozen=True, slots=True)
class SetConstant:
    """Make an input of a node this constant.

    Attributes:
        node: The node that reads it.
        index: Which input.
        expression: The new elements, in float64.
        dtype: The type they are stored in.
        channels: Axis of the tensor that runs over channels, for the range check of whole
            channels; None for an addend, where only overflow matters.
        alike: So many slices in a row along that axis read the same numbers, as the output
            channels of one group of a convolution do.
    """

    node: ir.Node
    index: int
    expression: Expression
    dtype: ir.DataType
    channels: int | None
    alike: int = 1


@dataclass(frozen=True, slots=True)
class SetAttribute:
    """Give an attribute of a node a new value."""

    node: ir.Node
    attribute: ir.Attr


@dataclass(frozen=True, slots=True)
class SetOperator:
    """Turn a node into another operator that reads the same inputs, and maybe more."""

    node: ir.Node
    op_type: str


@dataclass(frozen=True, slots=True)
class ReshapeFirst:
    """Let a product of stacked matrices read rows that are already laid out as one matrix.

    ``reshape(x · W)``, which lays rows of ``columns`` out one below the other, becomes
    ``reshape(x) · W``.

    Attributes:
        node: The product; its data is input 0, and only ``reshape`` reads its result.
        reshape: The operator that lays the result out as a matrix.
        columns: Length of the rows of x.
        shapes: Readers of the shape of the result, which is known: they become constants.
    """

    node: ir.Node
    reshape: ir.Node
    columns: int
    shapes: tuple[ir.Node, ...] = ()


@dataclass(frozen=True, slots=True)
class DropInput:
    """Take an optional input away from a node."""

    node: ir.Node
    index: int


@dataclass(frozen=True, slots=True)
class SetQuantized:
    """Change the integers and scales that an input of a node is dequantised from.

    Attributes:
        weight: The input, and in float64 what the node will read there.
        source: The DequantizeLinear; on the way from it each node reads one value.
        parts: Its inputs that change.
        axis: The axis that its scales run along from now on; None where that stays.
        rounding: How far a value may be off, because the integers had to be chosen anew.
    """

    weight: SetConstant
    source: ir.Node
    parts: tuple[SetConstant, ...]
    axis: int | None = None
    rounding: float = 0.0


Edit = SetConstant | SetQuantized | SetAttribute | SetOperator | ReshapeFirst | DropInput


@dataclass(frozen=True, slots=True)
class Source:
    """A node that applies a map: ``affine`` of its input ``index``."""

    index: int
    affine: Affine


@dataclass(frozen=True, slots=True)
class Passage:
    """Nodes that hand a map on together with the one that was asked, though none does alone.

    Attributes:
        nodes: They, in the direction of the map; each reads, or is read by, the one before it
            alone. They have one result, and their data is input 0.
        affine: The map at the far end of the last.
    """

    nodes: tuple[ir.Node, ...]
    affine: Affine


@dataclass(frozen=True, slots=True)
class Taken:
    """Yes: with these edits of the node, and these maps going onward.

    Attributes:
        edits: What the node's own constants and attributes become.
        onward: Maps that go on, by position of the input (up) or output (down).
        inside: Maps that go up into the results of the node's subgraphs.
        otherwise: Other answers as good as this one, to be tried when it leads nowhere.
        through: How the map goes on where it takes more nodes than this one.
    """

    edits: tuple[Edit, ...] = ()
    onward: Maps = field(default_factory=dict)
    inside: Results = field(default_factory=dict)
    otherwise: tuple[Taken, ...] = ()
    through: Passage | None = None

    @property
    def goes_on(self) -> bool:
        """Whether any map is left that another node must take."""
        return bool(self.onward or self.inside or self.through)


def either(ways: Sequence[Taken | Refusal]) -> Taken | Refusal:
    """Return the first way that is open, with the others as its alternatives.

    Args:
        ways: At least one; the best first.
    """
    open_ways = [way for way in ways if isinstance(way, Taken)]
    if not open_ways:
        return ways[0]
    return replace(open_ways[0], otherwise=tuple(open_ways[1:]))


def together(*parts: tuple[Edit, ...] | Refusal) -> Taken | Refusal:
    """Return one answer with the edits of all parts, or the first refusal among them."""
    edits: list[Edit] = []
    for part in parts:
        if isinstance(part, Refusal):
            return part
        edits.extend(part)
    return Taken(tuple(edits))


class Rule:
    """An operator that is no map and lets none pass; subclasses answer better.

    Attributes:
        versions: The operator sets whose versions of the operator it was checked against.
        words: What attributes may say whose value is a word; it knows no other.
    """

    words: ClassVar[Mapping[str, frozenset[str]]] = {}

    def __init__(self, *versions: int) -> None:
        """Say which versions were checked, in ascending order."""
        self.versions = versions

    def source(self, node: ir.Node, facts: Facts) -> Source | Refusal:  # noqa: ARG002  contract
        """Am I a map of one of my inputs?"""
        return Refusal(Code.NOT_AFFINE, name_of(node), f"{node.op_type} applies no map")

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Can I produce ``maps[i](output i)`` in place of output i?"""
        return unknown_operator(node)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Can I do with ``x`` where I used to read ``maps[i](x)`` at input i?"""
        return unknown_operator(node)

    def take_within(self, node: ir.Node, maps: Results, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Can I do with ``x`` where my subgraphs used to return ``maps[graph, i](x)``?"""
        return unknown_operator(node)


def name_of(node: ir.Node) -> str:
    """Return what a person calls the node: its name, or what it writes."""
    if node.name:
        return node.name
    return f"{node.op_type} → {node.outputs[0].name}" if node.outputs else node.op_type


def unknown_version(node: ir.Node, why: str) -> Refusal:
    """Refuse because a node is of a version, or has attributes, that no rule knows."""
    remedy = "export for an operator set that bnfold knows, or ask for this one"
    return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), f"not checked: {why}", remedy)


def unknown_operator(node: ir.Node) -> Refusal:
    """Refuse because no rule says how a map passes this operator."""
    domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    why = f"bnfold has no rule that moves a map through {domain}{node.op_type}"
    return Refusal(Code.UNKNOWN_OPERATOR, name_of(node), why)


def wrong_axis(node: ir.Node, affine: Affine, why: str) -> Refusal:
    """Refuse because the map runs along an axis that the operator's constants do not have."""
    entries = f"{affine.channels} entries along axis {affine.axis}"
    return Refusal(Code.WRONG_AXIS, name_of(node), f"the map has {entries}; {why}")


_OWN_REASON: Final = NOT_EVALUATED | {Code.OVERRIDABLE}


def dynamic_weight(node: ir.Node, refusal: Refusal) -> Refusal:
    """Refuse because a weight cannot be rewritten: it is no dependable constant."""
    code = refusal.code if refusal.code in _OWN_REASON else Code.DYNAMIC_WEIGHT
    return Refusal(code, name_of(node), refusal.why, refusal.remedy)


def computed(node: ir.Node, refusal: Refusal, why: str) -> Refusal:
    """Refuse because what must be constant is computed, or is not known though it is one."""
    if refusal.code in NOT_EVALUATED:
        return Refusal(refusal.code, name_of(node), refusal.why, refusal.remedy)
    return Refusal(Code.DYNAMIC_CONSTANT, name_of(node), why)
