"""Linear operators in a row, read as one: what it would be, what the row costs as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import onnx_ir as ir

from bnfold.folding.merging import convolutions, products
from bnfold.folding.merging.convolutions import Convolution, read_convolution
from bnfold.folding.merging.products import Product, read_product
from bnfold.folding.merging.taps import Window, composed_elements
from bnfold.limits import FREE_ELEMENTS
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import name_of

_MOST_HELD: Final = 4 * FREE_ELEMENTS
_TIMES_HELD: Final = 16
"""What weights may have on their way to be one, and in times of what they have."""


def read_convolutions(nodes: Sequence[ir.Node], facts: Facts) -> Convolution | Refusal:
    """Return Convs in a row as one, whose work is that of the row."""
    whole = read_convolution(nodes[0], facts)
    for node in nodes[1:]:
        behind = read_convolution(node, facts)
        if isinstance(whole, Refusal) or isinstance(behind, Refusal):
            return whole if isinstance(whole, Refusal) else behind
        sizes = convolutions.input_sizes(nodes[0], len(whole.form.windows), facts)
        fault = check_convolutions(node, whole, behind)
        if fault is not None:
            return fault
        work = math.floor(work_in_a_row(whole, behind, sizes))
        whole = convolutions.in_a_row(whole, behind, work)
    return whole


def read_products(nodes: Sequence[ir.Node], facts: Facts) -> Product | Refusal:
    """Return products with matrices in a row as one."""
    whole = read_product(nodes[0], facts)
    for node in nodes[1:]:
        behind = read_product(node, facts)
        if isinstance(whole, Refusal) or isinstance(behind, Refusal):
            return whole if isinstance(whole, Refusal) else behind
        fault = check_products(node, whole, behind)
        if fault is not None:
            return fault
        whole = products.in_a_row(whole, behind)
    return whole


def check_convolutions(node: ir.Node, one: Convolution, two: Convolution) -> Refusal | None:
    """Refuse what is no single convolution, or takes too much room to compute."""
    if one.dtype != two.dtype or one.form.outputs != two.form.inputs:
        return Refusal(Code.WRONG_SHAPE, name_of(node), "types or channels differ")
    fault = _check_border(node, one, two)
    held = composed_elements(one.form, two.form)
    if fault is None and held > max(_MOST_HELD, _TIMES_HELD * (one.work + two.work)):
        why = f"on the way to one convolution, weights would have {held} elements"
        return Refusal(Code.TOO_LARGE, name_of(node), why)
    return fault


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


def work_in_a_row(one: Convolution, two: Convolution, sizes: Sequence[int | None]) -> Fraction:
    """Return the multiply-adds of both for one place of the result, or a lower bound."""
    ratio = Fraction(1)
    for a, b, size in zip(one.form.windows, two.form.windows, sizes, strict=True):
        ratio *= _places_between(a, b, size)
    return min(ratio, Fraction(1)) * one.work + two.work


def _places_between(one: Window, two: Window, size: int | None) -> Fraction:
    """Return how many places the first computes for each of the second, or a lower bound."""
    if size is not None:
        between = one.outputs(size)
        behind = two.outputs(between)
        return Fraction(between, behind) if behind > 0 else Fraction(1)
    return Fraction(1) if two.extent < 0 else Fraction(0)


def check_products(node: ir.Node, one: Product, two: Product) -> Refusal | None:
    """Refuse what is no single product with a matrix."""
    fits = (
        one.index == two.index == 1
        and len(one.shape) == len(two.shape) == 2
        and one.shape[1] == two.shape[0]
        and one.dtype == two.dtype
        and not (one.turned or two.turned)
    )
    why = "they are no products with two constant matrices of one type"
    return None if fits else Refusal(Code.WRONG_SHAPE, name_of(node), why)
