"""Linear behind linear with nothing between is one operator, where that is no dearer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import onnx_ir as ir

from bnfold.folding.merging import convolutions, products
from bnfold.folding.merging.convolutions import Convolution, read_convolution
from bnfold.folding.merging.products import Product, read_product
from bnfold.folding.merging.sums import Reader
from bnfold.folding.merging.taps import Window, composed_elements
from bnfold.folding.ranges import check_ranges
from bnfold.folding.selection import Selection
from bnfold.limits import FREE_ELEMENTS
from bnfold.model.facts import Facts
from bnfold.model.uses import uses_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, name_of

_MOST_HELD: Final = 4 * FREE_ELEMENTS
_TIMES_HELD: Final = 16
"""What weights may have on their way to be one, and in times of what they have."""
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
    if one.dtype != two.dtype or one.form.outputs != two.form.inputs:
        return Refusal(Code.WRONG_SHAPE, name_of(second), "types or channels differ")
    sizes = convolutions.input_sizes(first, len(one.form.windows), facts)
    fault = _check_border(second, one, two) or _check_work(second, one, two, sizes)
    return fault or convolutions.sequence_edits(second, two, one, two)


def _check_border(node: ir.Node, one: Convolution, two: Convolution) -> Refusal | None:
    """Refuse zeros between the two that the first would not give for zeros in front of it."""
    padded = [any(window.pads) for window in two.form.windows]
    if not any(padded):
        return None
    if one.bias is not None and one.bias.evaluate().any():
        why = "zeros are padded behind the bias of the first, which would be padded too"
        return Refusal(Code.SHIFT_MEETS_PADDING, name_of(node), why)
    pairs = zip(one.form.windows, padded, strict=True)
    if any(pad and (window.taps > 1 or any(window.pads)) for window, pad in pairs):
        why = "zeros are padded where the first would already see the border of the data"
        return Refusal(Code.SHIFT_MEETS_PADDING, name_of(node), why)
    return None


def _check_work(
    node: ir.Node, one: Convolution, two: Convolution, sizes: Sequence[int | None]
) -> Refusal | None:
    """Refuse more multiply-adds than before, or more elements of weight."""
    ratio = Fraction(1)
    for a, b, size in zip(one.form.windows, two.form.windows, sizes, strict=True):
        ratio *= _places_between(a, b, size)
    whole = one.form.then(two.form).work
    before = min(ratio, Fraction(1)) * one.work + two.work
    held = composed_elements(one.form, two.form)
    if held > max(_MOST_HELD, _TIMES_HELD * (one.work + two.work)):
        why = f"on the way to one convolution, weights would have {held} elements"
        return Refusal(Code.TOO_LARGE, name_of(node), why)
    if whole <= before:
        return None
    why = f"one convolution would take {whole} multiply-adds, in a row it is {float(before):g}"
    return Refusal(Code.NO_GAIN, name_of(node), why)


def _places_between(one: Window, two: Window, size: int | None) -> Fraction:
    """Return how many places the first computes for each of the second, or a lower bound."""
    if size is not None:
        between = one.outputs(size)
        behind = two.outputs(between)
        return Fraction(between, behind) if behind > 0 else Fraction(1)
    return Fraction(1) if two.extent < 0 else Fraction(0)


# -------------------------------------------------------------------------- products


def _products(first: ir.Node, second: ir.Node, facts: Facts) -> list[Edit] | Refusal:
    one, two = read_product(first, facts), read_product(second, facts)
    if isinstance(one, Refusal):
        return one
    if isinstance(two, Refusal):
        return two
    if not _in_a_row(one, two):
        why = "they are no products with two constant matrices of one type"
        return Refusal(Code.WRONG_SHAPE, name_of(second), why)
    whole = one.shape[0] * two.shape[1]
    before = math.prod(one.shape) + math.prod(two.shape)
    if whole > before:
        why = f"one product would take {whole} multiply-adds, in a row it is {before}"
        return Refusal(Code.NO_GAIN, name_of(second), why)
    return products.sequence_edits(second, two, one, two)


def _in_a_row(one: Product, two: Product) -> bool:
    return (
        one.index == two.index == 1
        and len(one.shape) == len(two.shape) == 2
        and one.shape[1] == two.shape[0]
        and one.dtype == two.dtype
        and not (one.turned or two.turned)
    )
