"""Whether windows of a Conv or pool read what is padded, at the sizes that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from bnfold.model.attributes import int_attr, ints_attr, string_attr
from bnfold.model.facts import Facts
from bnfold.model.sizes import Size, plus

_SAME: Final = ("SAME_UPPER", "SAME_LOWER")
_FIRST_PLACE: Final = 2


def reads_padding(node: ir.Node, kernel: Sequence[int], facts: Facts) -> bool:
    """Return whether a window can reach beyond the input, where zeros are read.

    Along an axis of ``in`` elements let windows reach over ``r = dilation · (taps − 1) + 1``:

    - Elements padded in front are read by the first window.
    - Elements padded behind are read unless the last window ends in front of them: unless
      ``(in + pads − r) mod stride``, which no window covers, is at least as many.
    - ``SAME`` gives ``⌈in / stride⌉`` windows and pads nothing if the last of them fits: if
      ``r ≤ (in − 1) mod stride + 1``.

    The remainder may be known though the size is not, as that of ``4 · h`` divided by two.
    An input without elements has no windows that matter.

    Args:
        node: The Conv or pool; the axes of its input behind the second are the places.
        kernel: Taps of a window along each of these axes.
        facts: The model.
    """
    rank = len(kernel)
    auto_pad = string_attr(node, "auto_pad", "NOTSET")
    pads = () if auto_pad == "VALID" else ints_attr(node, "pads")
    same = auto_pad in _SAME
    if not same and not any(pads) and not int_attr(node, "ceil_mode", 0):
        return False
    strides = ints_attr(node, "strides", (1,) * rank)
    dilations = ints_attr(node, "dilations", (1,) * rank)
    pads = pads or (0,) * 2 * rank
    if [len(strides), len(dilations), len(pads)] != [rank, rank, 2 * rank] or min(
        pads, default=0
    ) < 0:
        return True
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilations, kernel, strict=True)]
    sizes = _places(node, rank, facts)
    if same:
        rows = zip(sizes, reach, strides, strict=True)
        return any(taps > _last(size, stride) for size, taps, stride in rows)
    ceil = bool(int_attr(node, "ceil_mode", 0))
    cut = zip(sizes, reach, strides, pads[:rank], pads[rank:], strict=True)
    return any(
        front > 0 or _reads_behind(plus(size, behind - taps), stride, behind, ceil=ceil)
        for size, taps, stride, front, behind in cut
    )


def _places(node: ir.Node, rank: int, facts: Facts) -> list[Size | None]:
    sizes = None if node.inputs[0] is None else facts.extents(node.inputs[0])
    if sizes is None or len(sizes) != rank + _FIRST_PLACE:
        return [None] * rank
    return list(sizes[_FIRST_PLACE:])


def _last(size: Size | None, stride: int) -> int:
    """Return how many elements the last of ``⌈in / stride⌉`` windows has, one at least."""
    left = None if size is None or stride < 1 else _residue(plus(size, -1), stride)
    return 1 if left is None else left + 1


def _reads_behind(room: Size | None, stride: int, behind: int, *, ceil: bool) -> bool:
    """Return whether the last window ends behind the input, given ``in + pads − reach``."""
    if not ceil and behind == 0:
        return False
    left = 0 if stride < 1 else _residue(room, stride)
    if ceil and left != 0:
        return True
    return behind > (left or 0)


def _residue(size: Size | None, stride: int) -> int | None:
    return None if size is None else size.residue(stride)
