"""Linear behind linear with nothing between is one operator, where that is no dearer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.folding.merging import convolutions, products, rows
from bnfold.folding.merging.convolutions import Convolution, read_convolution
from bnfold.folding.merging.products import read_product
from bnfold.folding.merging.sums import Reader
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.model.facts import Facts
from bnfold.model.uses import uses_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, name_of

_PRODUCTS: Final = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Two linear operators in a row that become the second.

    Attributes:
        first: The one that goes.
        second: The one that becomes both.
        edits: Its new constants and attributes.
    """

    first: ir.Node
    second: ir.Node
    edits: tuple[Edit, ...]


def plan_sequence(
    second: ir.Node, reader: Reader, facts: Facts, selection: Selection
) -> Row | Refusal:
    """Return how ``second`` takes the operator in front of it, or why it does not."""
    first = _in_front(second, reader, facts)
    if isinstance(first, Refusal):
        return first
    blocked = selection.refuse_site(first) or selection.refuse_touch(second)
    blocked = blocked or _check_shared(first) or _check_shared(second)
    if blocked is not None:
        return blocked
    edits = (
        _convolutions(first, second, facts)
        if second.op_type == "Conv"
        else _products(first, second, facts)
    )
    if isinstance(edits, Refusal):
        return edits
    return check_ranges(edits) or Row(first, second, tuple(edits))


def _in_front(second: ir.Node, reader: Reader, facts: Facts) -> ir.Node | Refusal:
    value = second.inputs[0] if second.inputs else None
    first = None if value is None else value.producer()
    kinds = _PRODUCTS if second.op_type in _PRODUCTS else frozenset({second.op_type})
    if (
        value is None
        or first is None
        or first.op_type not in kinds
        or first.graph is not second.graph
        or not (facts.is_standard(first) and facts.is_standard(second))
    ):
        return Refusal(Code.NOT_AFFINE, name_of(second), "no like operator stands before it")
    if not reader.read_once(value):
        return Refusal(Code.SHARED_VALUE, name_of(second), "its input is read elsewhere")
    return first


def _check_shared(node: ir.Node) -> Refusal | None:
    """Refuse a weight that stays for others: the merged one would come on top."""
    for value in node.inputs[1:]:
        if value is not None and (len(uses_of(value)) > 1 or value.is_graph_output()):
            why = f"{value.name!r} is read elsewhere and would stay beside the merged one"
            return Refusal(Code.NO_GAIN, name_of(node), why)
    return None


# ---------------------------------------------------------------------- convolutions


def _convolutions(first: ir.Node, second: ir.Node, facts: Facts) -> list[Edit] | Refusal:
    one, two = read_convolution(first, facts), read_convolution(second, facts)
    if isinstance(one, Refusal):
        return one
    if isinstance(two, Refusal):
        return two
    sizes = convolutions.input_sizes(first, len(one.form.windows), facts)
    fault = rows.check_convolutions(second, one, two) or _check_work(second, one, two, sizes)
    return fault or convolutions.sequence_edits(second, two, one, two)


def _check_work(
    node: ir.Node, one: Convolution, two: Convolution, sizes: Sequence[int | None]
) -> Refusal | None:
    """Refuse more multiply-adds than before, or more elements of weight."""
    whole = one.form.then(two.form).work
    before = rows.work_in_a_row(one, two, sizes)
    if whole <= before:
        return None
    why = f"one convolution would take {whole} multiply-adds, in a row it is {float(before):g}"
    return Refusal(Code.NO_GAIN, name_of(node), why)


# -------------------------------------------------------------------------- products


def _products(first: ir.Node, second: ir.Node, facts: Facts) -> list[Edit] | Refusal:
    one, two = read_product(first, facts), read_product(second, facts)
    if isinstance(one, Refusal):
        return one
    if isinstance(two, Refusal):
        return two
    fault = rows.check_products(second, one, two)
    if fault is not None:
        return fault
    whole = one.shape[0] * two.shape[1]
    before = math.prod(one.shape) + math.prod(two.shape)
    if whole > before:
        why = f"one product would take {whole} multiply-adds, in a row it is {before}"
        return Refusal(Code.NO_GAIN, name_of(second), why)
    return products.sequence_edits(second, two, one, two)
