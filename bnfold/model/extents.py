"""The sizes of values and the integers computed from them, as polynomials over open sizes.

onnx's inference keeps a symbol but computes nothing with one: ``2 · h`` or ``h − 2`` is
unknown to it, and so is a Reshape to a list of such sizes. What it knows is taken from it; the
rest is followed from the inputs of the model here, each value once, without recursion.
"""

from __future__ import annotations

from typing import Final, Protocol

import onnx_ir as ir

from bnfold.model.constants import Constant
from bnfold.model.integers import CONTENTS
from bnfold.model.questions import MOST_ENTRIES, Asked, At, Following, Sizes
from bnfold.model.result_sizes import RESULTS
from bnfold.model.shapes import Dim, Dims
from bnfold.model.sizes import Size, Symbols
from bnfold.records import Refusal

_INTEGERS: Final = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


class Known(Protocol):
    """What must be known of a model beforehand."""

    def inferred(self, value: ir.Value) -> Dims | None:
        """Return what inference by onnx tells of the dimensions of a value."""
        ...

    def constant(self, value: ir.Value) -> Constant | Refusal:
        """Return the constant a value holds, or why it is none that may be relied on."""
        ...

    def is_standard(self, node: ir.Node) -> bool:
        """Return whether the node is an operator of the ONNX specification."""
        ...


class Extents:
    """Sizes of values by symbols; what was found is kept until it is forgotten."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.symbols = Symbols()
        self._found: dict[Asked, Sizes | None] = {}
        self._dims: dict[ir.Value, Dims | None] = {}

    def of(self, value: ir.Value) -> tuple[Size, ...] | None:
        """Return the size of a value along each axis; None when even the rank is unknown."""
        found = self._find(("extents", value))
        return None if found is None else tuple(size for size in found if size is not None)

    def dims(self, value: ir.Value) -> Dims | None:
        """Return the same as numbers and names, None for a size that has no name."""
        if value not in self._dims:
            inferred = self._known.inferred(value)
            if not _all_numbers(inferred):
                inferred = self._refined(inferred, self.of(value))
            self._dims[value] = inferred
        return self._dims[value]

    def contents(self, value: ir.Value) -> Sizes | None:
        """Return the entries of a list of integers, or of one integer; None if unknown.

        An entry that is unknown is None.
        """
        return self._find(("contents", value))

    def forget(self, *values: ir.Value) -> None:
        """Take note that values have other shapes than they had."""
        for value in values:
            self._dims.pop(value, None)
            self._found.pop(("extents", value), None)
            self._found.pop(("contents", value), None)

    def _refined(self, inferred: Dims | None, sizes: Sizes | None) -> Dims | None:
        if sizes is None:
            return inferred
        told = inferred or (None,) * len(sizes)
        pairs = zip(told, sizes, strict=True)
        return tuple(self._dim(dim, size) for dim, size in pairs)

    def _dim(self, dim: Dim, size: Size | None) -> Dim:
        if size is None or isinstance(dim, int):
            return dim
        number = size.number
        if number is not None and number >= 0:
            return number
        return self.symbols.name(size) if dim is None else dim

    def _find(self, wanted: Asked) -> Sizes | None:
        """Answer a question and those it hangs on, deepest first."""
        if wanted in self._found:
            return self._found[wanted]
        stack: list[tuple[Asked, Following]] = [(wanted, self._ask(wanted))]
        answer: Sizes | None = None
        while stack:
            asked, answering = stack[-1]
            try:
                other = answering.send(answer)
            except StopIteration as end:
                answer = self._found[asked] = end.value
                stack.pop()
                continue
            answer = self._found.get(other)
            if other not in self._found:
                stack.append((other, self._ask(other)))
        return self._found[wanted]

    def _ask(self, asked: Asked) -> Following:
        kind, value = asked
        return self._extents(value) if kind == "extents" else self._contents(value)

    def _extents(self, value: ir.Value) -> Following:
        inferred = self._known.inferred(value)
        if _all_numbers(inferred) and 0 not in (inferred or ()):
            return tuple(Size.of(dim) for dim in inferred or () if isinstance(dim, int))
        node, followed = value.producer(), None
        if node is not None and self._is_followed(node, value):
            followed = yield from RESULTS[node.op_type](At(node, value, self.symbols))
        if followed is None and inferred is None:
            return None
        if followed is None or (inferred is not None and len(followed) != len(inferred)):
            followed = (None,) * len(inferred or ())
        dims = inferred or (None,) * len(followed)
        pairs = zip(dims, followed, strict=True)
        return tuple(self._size(value, axis, *pair) for axis, pair in enumerate(pairs))

    def _is_followed(self, node: ir.Node, value: ir.Value) -> bool:
        """Return whether sizes are followed to a result: the first one, any part of Split."""
        known = node.op_type in RESULTS and self._known.is_standard(node)
        return known and (value.index() == 0 or node.op_type == "Split")

    def _size(self, value: ir.Value, axis: int, dim: Dim, followed: Size | None) -> Size:
        """Return a known size, or the best that is known of an open one.

        A declared 0 may be any size: exporters have written it for what they did not know.
        """
        if isinstance(dim, int) and dim:
            return Size.of(dim)
        if followed is not None and (followed.number is None or dim != 0):
            return followed
        return (
            self.symbols.named(dim)
            if isinstance(dim, str)
            else self.symbols.unknown(value, axis)
        )

    def _contents(self, value: ir.Value) -> Following:
        node = value.producer()
        if node is None or node.op_type == "Constant":
            return self._stored(value)
        if self._known.is_standard(node) and node.op_type in CONTENTS:
            found = yield from CONTENTS[node.op_type](At(node, value, self.symbols))
            return None if found is None or len(found) > MOST_ENTRIES else found
        return None

    def _stored(self, value: ir.Value) -> Sizes | None:
        constant = self._known.constant(value)
        if isinstance(constant, Refusal) or constant.dtype not in _INTEGERS:
            return None
        if len(constant.shape) > 1 or constant.expression.size > MOST_ENTRIES:
            return None
        return tuple(Size.of(int(entry)) for entry in constant.stored().reshape(-1))


def _all_numbers(dims: Dims | None) -> bool:
    return dims is not None and all(isinstance(dim, int) for dim in dims)
