"""The places a convolution reads, as numbers: a window along each spatial axis.

Output o reads ``x[o · stride + first + step · t]`` for every tap t; what lies outside of x
counts as zero. Spelled so, the kernel size, dilations and pads of several convolutions can be
laid on one grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """The taps along one spatial axis.

    Attributes:
        first: Offset of the first tap from ``o · stride``: minus the pad in front.
        step: Distance of neighbouring taps, the dilation; 1 for a single tap.
        taps: Their number.
        stride: Distance of neighbouring outputs.
        extent: Of n elements there are ``(n + extent) // stride + 1`` outputs.
    """

    first: int
    step: int
    taps: int
    stride: int
    extent: int

    @classmethod
    def of(cls, taps: int, stride: int, dilation: int, pads: tuple[int, int]) -> Window:
        """Return the window of a convolution with these attributes."""
        extent = sum(pads) - (taps - 1) * dilation - 1
        return cls(-pads[0], dilation if taps > 1 else 1, taps, stride, extent)

    @property
    def last(self) -> int:
        """Offset of the last tap."""
        return self.first + self.step * (self.taps - 1)

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros in front of the data and behind it."""
        return -self.first, self.extent + 1 + self.last

    def outputs(self, size: int) -> int:
        """Return how many outputs ``size`` elements give."""
        return (size + self.extent) // self.stride + 1

    def agrees(self, other: Window, size: int | None) -> bool:
        """Return whether both give outputs at the same places, as many of one as the other."""
        if self.stride != other.stride:
            return False
        if self.extent == other.extent:
            return True
        return size is not None and self.outputs(size) == other.outputs(size)

    def joined(self, other: Window) -> Window:
        """Return the smallest window that has the taps of both, and the outputs of this."""
        first, last = min(self.first, other.first), max(self.last, other.last)
        spans = (self.first - first, other.first - first, *self._steps(), *other._steps())
        return self._on_grid(first, last, math.gcd(*spans), self.stride, self.extent)

    def then(self, after: Window) -> Window:
        """Return the window of ``after`` behind this one, as one."""
        first = self.first + self.stride * after.first
        last = self.last + self.stride * after.last
        spans = (*self._steps(), *(self.stride * step for step in after._steps()))
        extent = self.extent + self.stride * (1 + after.extent)
        stride = self.stride * after.stride
        return self._on_grid(first, last, math.gcd(*spans), stride, extent)

    def place(self, inner: Window) -> slice:
        """Return which taps of this window are those of ``inner``."""
        start = (inner.first - self.first) // self.step
        step = inner.step // self.step if inner.taps > 1 else 1
        return slice(start, start + step * (inner.taps - 1) + 1, step)

    def _steps(self) -> tuple[int, ...]:
        return (self.step,) if self.taps > 1 else ()

    @classmethod
    def _on_grid(cls, first: int, last: int, step: int, stride: int, extent: int) -> Window:
        step = step or 1
        return cls(first, step, (last - first) // step + 1, stride, extent)


POINT = Window(0, 1, 1, 1, -1)
"""The window of a value itself."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a convolution is apart from its numbers.

    Attributes:
        outputs: Channels it gives.
        inputs: Channels it reads.
        groups: Into how many blocks that see nothing of each other both are cut.
        windows: One for each spatial axis.
    """

    outputs: int
    inputs: int
    groups: int
    windows: tuple[Window, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight: [M, C/group, k…]."""
        taps = (window.taps for window in self.windows)
        return (self.outputs, self.inputs // self.groups, *taps)

    def as_data(self) -> dict[str, object]:
        """Return it as plain data, as a certificate holds it."""
        windows = [
            {"first": w.first, "step": w.step, "taps": w.taps, "stride": w.stride}
            for w in self.windows
        ]
        return {
            "outputs": self.outputs,
            "inputs": self.inputs,
            "groups": self.groups,
            "windows": windows,
        }

    @property
    def work(self) -> int:
        """Multiply-adds for one place of the output: as many as the weight has elements."""
        return math.prod(self.shape)

    def joined(self, other: Form) -> Form:
        """Return the form that holds a sum of both; it has the outputs of this."""
        windows = (a.joined(b) for a, b in zip(self.windows, other.windows, strict=True))
        groups = math.gcd(self.groups, other.groups)
        return Form(self.outputs, self.inputs, groups, tuple(windows))

    def then(self, after: Form) -> Form:
        """Return the form of ``after`` behind this one, as one."""
        windows = (a.then(b) for a, b in zip(self.windows, after.windows, strict=True))
        groups = math.gcd(self.groups, after.groups)
        return Form(after.outputs, self.inputs, groups, tuple(windows))

    def agrees(self, other: Form, sizes: Sequence[int | None]) -> bool:
        """Return whether both give values of the same shape, place for place."""
        if (self.outputs, self.inputs) != (other.outputs, other.inputs):
            return False
        pairs = zip(self.windows, other.windows, sizes, strict=True)
        return all(mine.agrees(theirs, size) for mine, theirs, size in pairs)


def identity_form(channels: int, rank: int) -> Form:
    """Return the value itself as a convolution: one tap, every channel by itself."""
    return Form(channels, channels, channels, (POINT,) * rank)


def embed(weight: Wide, inner: Form, outer: Form) -> Wide:
    """Return the weight of ``inner`` as one of ``outer``, zeros where it has no taps."""
    whole = np.zeros(outer.shape)
    places = tuple(o.place(i) for o, i in zip(outer.windows, inner.windows, strict=True))
    if inner.groups == outer.groups:
        whole[(slice(None), slice(None), *places)] = weight
        return whole
    rows, columns = inner.outputs // inner.groups, inner.inputs // inner.groups
    per_block = outer.inputs // outer.groups
    for block in range(inner.groups):
        outputs = slice(block * rows, (block + 1) * rows)
        start = block * columns % per_block
        inputs = slice(start, start + columns)
        whole[(outputs, inputs, *places)] = weight[outputs]
    return whole


def composed_elements(a: Form, b: Form) -> int:
    """Return how many elements `compose` holds: matrices with zeros between finer groups."""
    groups = math.gcd(a.groups, b.groups)
    forms = (Form(one.outputs, one.inputs, groups, one.windows) for one in (a, b))
    return sum(form.work for form in forms)


def compose(first: Wide, a: Form, second: Wide, b: Form) -> Wide:
    """Return the weight of ``b`` behind ``a``: the sum over the channels between them."""
    whole = a.then(b)
    groups = whole.groups
    left = embed(first, a, Form(a.outputs, a.inputs, groups, a.windows))
    right = embed(second, b, Form(b.outputs, b.inputs, groups, b.windows))
    left = left.reshape(groups, a.outputs // groups, *left.shape[1:])
    right = right.reshape(groups, b.outputs // groups, *right.shape[1:])
    out = np.zeros((groups, b.outputs // groups, *whole.shape[1:]))
    for tap in np.ndindex(*right.shape[3:]):
        places = _shifted(a, b, whole, tap)
        matrix = right[(slice(None), slice(None), slice(None), *tap)]
        product = np.stack(
            [np.tensordot(m, k, axes=(1, 0)) for m, k in zip(matrix, left, strict=True)]
        )
        out[(slice(None), slice(None), slice(None), *places)] += product
    return out.reshape(whole.shape)


def _shifted(a: Form, b: Form, whole: Form, tap: Sequence[int]) -> tuple[slice, ...]:
    """Return where the taps of ``a`` lie as tap ``tap`` of ``b`` sees them."""
    places = []
    for first, second, both, t in zip(a.windows, b.windows, whole.windows, tap, strict=True):
        start = (first.stride * second.step * t) // both.step
        step = first.step // both.step if first.taps > 1 else 1
        places.append(slice(start, start + step * (first.taps - 1) + 1, step))
    return tuple(places)
