"""Convolutions of one value, and what counts as one: their sum, and one behind the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine, Vector
from bnfold.expression import Expression, Made
from bnfold.folding.merging.taps import Form, Wide, Window, compose, embed, identity_form
from bnfold.model.attributes import int_attr, ints_attr, string_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, SetAttribute, SetConstant, name_of
from bnfold.rules.passing import unknown_shape
from bnfold.rules.weights import bias_edit, has_input, read_float_weight

_WEIGHT: Final = 1
_BIAS: Final = 2
_SAME: Final = frozenset({"SAME_UPPER", "SAME_LOWER"})


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution of a value, or a map of it spelled as one.

    Attributes:
        form: Its channels, groups and windows.
        weight: [M, C/group, k…].
        bias: [M]; None when absent.
        dtype: The type of the weight; None for a map, which has none of its own.
        work: Multiply-adds for one place of the output; a map costs none.
    """

    form: Form
    weight: Expression
    bias: Expression | None
    dtype: ir.DataType | None
    work: int

    def mapped(self, affine: Affine) -> Convolution:
        """Return the convolution with a map of its outputs behind it."""
        if affine.is_identity:
            return self
        scale, shift = affine.entries(self.form.outputs)
        weight = self.weight.times(np.array(scale), (0,))
        bias = Expression.of(self.bias_or_zero() * scale + shift)
        return replace(self, weight=weight, bias=bias)

    def bias_or_zero(self) -> Vector:
        """Return the bias in float64."""
        return np.zeros(self.form.outputs) if self.bias is None else self.bias.evaluate()


Part = tuple[float, Convolution]
"""A convolution and its sign in a sum."""


def read_convolution(node: ir.Node, facts: Facts) -> Convolution | Refusal:
    """Return what a Conv computes, if its weights are constants and its pads are known."""
    weight = read_float_weight(node, _WEIGHT, facts)
    if isinstance(weight, Refusal):
        return weight
    outputs, per_group, *kernel = weight.shape
    bias = None
    if has_input(node, _BIAS):
        held = read_float_weight(node, _BIAS, facts)
        if isinstance(held, Refusal):
            return held
        if held.shape != (outputs,) or held.constant.dtype != weight.constant.dtype:
            return _mismatch(node, "its bias has another type or shape than its weight asks")
        bias = held.constant.expression
    windows = _windows(node, kernel, facts)
    if isinstance(windows, Refusal):
        return windows
    groups = int_attr(node, "group", 1)
    if groups < 1 or outputs % groups or any(taps < 1 for taps in kernel):
        return _mismatch(node, "its groups do not divide its channels")
    form = Form(outputs, per_group * groups, groups, windows)
    expression = weight.constant.expression
    return Convolution(form, expression, bias, weight.constant.dtype, form.work)


def map_as_convolution(affine: Affine, channels: int, rank: int) -> Convolution | Refusal:
    """Return a map of channels as a convolution with one tap, each channel by itself."""
    if affine.axis not in (None, 1) or affine.channels not in (None, channels):
        return Refusal(Code.WRONG_AXIS, "", f"the map runs along axis {affine.axis}")
    scale, shift = affine.entries(channels)
    weight = Expression.of(scale.reshape(channels, 1, *[1] * rank))
    bias = Expression.of(shift) if affine.has_shift else None
    return Convolution(identity_form(channels, rank), weight, bias, None, 0)


def _windows(
    node: ir.Node, kernel: Sequence[int], facts: Facts
) -> tuple[Window, ...] | Refusal:
    rank = len(kernel)
    strides = ints_attr(node, "strides", (1,) * rank)
    dilations = ints_attr(node, "dilations", (1,) * rank)
    if len(strides) != rank or len(dilations) != rank:
        return _mismatch(node, "its attributes do not fit the rank of its weight")
    pads = _pads(node, kernel, strides, dilations, facts)
    if isinstance(pads, Refusal):
        return pads
    if len(pads) != rank or any(pad < 0 for pair in pads for pad in pair):
        return _mismatch(node, "its pads are negative or do not fit the rank of its weight")
    rows = zip(kernel, strides, dilations, pads, strict=True)
    return tuple(Window.of(*row) for row in rows)


def _pads(
    node: ir.Node,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    facts: Facts,
) -> list[tuple[int, int]] | Refusal:
    """Return the zeros in front and behind along each axis (Conv-22, auto_pad)."""
    rank = len(kernel)
    kind = string_attr(node, "auto_pad", "NOTSET")
    if kind not in _SAME:
        flat = (0,) * 2 * rank if kind == "VALID" else ints_attr(node, "pads", (0,) * 2 * rank)
        return list(zip(flat[:rank], flat[rank:], strict=False))
    if any(dilation != 1 for dilation in dilations):
        return _mismatch(node, f"runtimes differ in what {kind} means with dilations")
    pads = []
    for axis, (taps, stride) in enumerate(zip(kernel, strides, strict=True)):
        size = _size(node, axis, facts)
        if stride == 1:
            total = taps - 1
        elif size is None:
            return unknown_shape(node, f"the size of its input, which decides {kind},")
        else:
            total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if kind == "SAME_UPPER" else (more, less))
    return pads


def _size(node: ir.Node, axis: int, facts: Facts) -> int | None:
    value = node.inputs[0]
    size = None if value is None else facts.dim(value, axis + 2)
    return size if isinstance(size, int) else None


def input_sizes(node: ir.Node, rank: int, facts: Facts) -> tuple[int | None, ...]:
    """Return the size of a Conv's input along each spatial axis; None where unknown."""
    return tuple(_size(node, axis, facts) for axis in range(rank))


def joined_form(
    base: Form, own_work: int, other: Convolution, sizes: Sequence[int | None]
) -> Form | Refusal:
    """Return the form of a sum, if the sum is no more work than its two parts."""
    if not base.agrees(other.form, sizes):
        why = "their outputs lie at other places, or have other channels"
        return Refusal(Code.WRONG_SHAPE, "", why)
    form = base.joined(other.form)
    if form.work > own_work + other.work:
        before = own_work + other.work
        why = f"one convolution would take {form.work} multiply-adds, apart it is {before}"
        return Refusal(Code.NO_GAIN, "", why)
    return form


def sum_edits(
    node: ir.Node, own: Convolution, parts: Sequence[Part], form: Form
) -> list[Edit]:
    """Return the edits after which the Conv ``node`` is the sum of ``parts``."""
    settings = {
        "form": form.as_data(),
        "parts": [{"sign": sign, "form": part.form.as_data()} for sign, part in parts],
    }
    origin = Made("sum of convolutions", settings, tuple(part.weight for _, part in parts))
    weight = Expression.derived(partial(_sum, tuple(parts), form), form.shape, origin)
    biases = [sign * part.bias_or_zero() for sign, part in parts if part.bias is not None]
    bias = np.sum(biases, axis=0) if biases else None
    return conv_edits(node, own, form, weight, bias)


def _sum(parts: Sequence[Part], form: Form) -> Wide:
    whole = np.zeros(form.shape)
    for sign, part in parts:
        whole += sign * embed(part.weight.evaluate(), part.form, form)
    return whole


def in_a_row(first: Convolution, second: Convolution, work: int) -> Convolution:
    """Return ``second`` behind ``first`` as one convolution; the row takes ``work``."""
    form = first.form.then(second.form)
    settings = {
        "form": form.as_data(),
        "first": first.form.as_data(),
        "second": second.form.as_data(),
    }
    origin = Made("convolution behind convolution", settings, (first.weight, second.weight))
    weight = Expression.derived(partial(_behind, first, second), form.shape, origin)
    bias = second.bias
    if first.bias is not None:
        image = _image(first.bias.evaluate(), second)
        bias = Expression.of(second.bias_or_zero() + image)
    return Convolution(form, weight, bias, second.dtype, work)


def sequence_edits(
    node: ir.Node, own: Convolution, first: Convolution, second: Convolution
) -> list[Edit]:
    """Return the edits after which the Conv ``node`` is ``second`` behind ``first``."""
    whole = in_a_row(first, second, own.work)
    bias = None if whole.bias is None else whole.bias.evaluate()
    return conv_edits(node, own, whole.form, whole.weight, bias)


def _behind(first: Convolution, second: Convolution) -> Wide:
    return compose(first.weight.evaluate(), first.form, second.weight.evaluate(), second.form)


def _image(shift: Vector, conv: Convolution) -> Vector:
    """Return what a convolution makes of one number for each channel, far from its border."""
    form = conv.form
    rows = conv.weight.evaluate().reshape(*form.shape[:2], -1).sum(axis=2)
    per_output = shift.reshape(form.groups, -1).repeat(form.outputs // form.groups, axis=0)
    return np.asarray((rows * per_output).sum(axis=1))


def conv_edits(
    node: ir.Node, own: Convolution, form: Form, weight: Expression, bias: Vector | None
) -> list[Edit]:
    """Return the edits that give a Conv another form and other numbers."""
    if own.dtype is None:
        message = f"{name_of(node)} has no weight"
        raise ValueError(message)
    edits: list[Edit] = [SetConstant(node, _WEIGHT, weight, own.dtype, 0)]
    if bias is not None and (has_input(node, _BIAS) or bias.any()):
        edits.append(bias_edit(node, _BIAS, bias, own.dtype))
    if form != own.form:
        edits.extend(SetAttribute(node, attribute) for attribute in _attributes(node, form))
    return edits


def _attributes(node: ir.Node, form: Form) -> Iterable[ir.Attr]:
    """Spell a form in the attributes of a Conv; those that are absent keep their default."""
    windows = form.windows
    pads = [window.pads for window in windows]
    wanted = {
        "kernel_shape": [window.taps for window in windows],
        "strides": [window.stride for window in windows],
        "dilations": [window.step for window in windows],
        "pads": [pair[0] for pair in pads] + [pair[1] for pair in pads],
    }
    default = {"strides": {1}, "dilations": {1}, "pads": {0}}
    if "auto_pad" in node.attributes:
        yield ir.AttrString("auto_pad", "NOTSET")
    for name, values in wanted.items():
        if name in node.attributes or not set(values) <= default.get(name, set(values)):
            yield ir.AttrInt64s(name, values)
    if "group" in node.attributes or form.groups != 1:
        yield ir.AttrInt64("group", form.groups)


def _mismatch(node: ir.Node, why: str) -> Refusal:
    return Refusal(Code.WRONG_SHAPE, name_of(node), why)
