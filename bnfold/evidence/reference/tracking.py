"""Evaluate one node where some of its inputs are known beforehand: constants, shapes, counts.

A smooth operator computes in float64, and what is known of its inputs is known of its results.
A step reads the typed numbers of the inputs that are known; if all of them are, its results
are typed too. Activations stay unrounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.by_onnx import RANDOM
from bnfold.evidence.reference.smooth import (
    WITHOUT_BOUND,
    fits_into,
    is_float,
    is_smooth,
    last_place,
)
from bnfold.evidence.reference.special import (
    cast_results,
    quantize_results,
    range_results,
    remainder_results,
)
from bnfold.evidence.reference.typed import (
    Known,
    Maker,
    Run,
    Typed,
    UndecidedError,
    known,
    plain_results,
    smooth_results,
    step_results,
)
from bnfold.model.attributes import int_attr

_COUNTS: Final = frozenset({"Shape", "Size"})
"""What they give is exact, whatever they read."""
_FAR: Final = 1024.0
"""Units in the last place: whatever is moved further by roundings has cancelled before."""
_CASTS: Final = frozenset({"Cast", "CastLike"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a node: in float64, and typed as far as they are known."""

    results: Sequence[Any]
    known: Sequence[Known | None]


def evaluate_known(
    node: ir.Node, inputs: Sequence[Any], given: Sequence[Known | None], run: Run
) -> Outcome:
    """Evaluate a node that is an operator.

    Args:
        node: The node.
        inputs: Its inputs, unrounded.
        given: What is known of them.
        run: Computes it on other inputs.

    Raises:
        UndecidedError: If runtimes may differ in which side of a step a constant is.
    """
    given = _that_matter(node, inputs, given)
    if not any(given) and node.op_type != "Constant":
        return _unknown(node, run(inputs))
    smooth = _is_smooth(node, given)
    if any(k is None and x is not None for k, x in zip(given, inputs, strict=False)):
        return _unknown(node, run(inputs) if smooth else _partly(node, inputs, given, run))
    dtypes = _types(node, given)
    if not smooth:
        return _stepped(node, given, dtypes, run)
    results = run(inputs)
    maker = Maker(given, partial(smooth_results, node, run, dtypes))
    plain = Maker(
        [None if one is None else one.plain for one in given],
        partial(plain_results, run, dtypes),
    )
    if _is_far_off(node, inputs, given):
        pairs = zip(results, plain.get(), strict=True)
        results = [np.where(_near(a, b), a, b.elements) for a, b in pairs]
    return Outcome(
        results, [_known(r, maker, plain, k, dtypes) for k, r in enumerate(results)]
    )


def _is_far_off(node: ir.Node, inputs: Sequence[Any], given: Sequence[Known | None]) -> bool:
    """Return whether rounding has changed what an operator reads where it is steep."""
    place = WITHOUT_BOUND.get(node.op_type)
    one = None if place is None else given[place]
    if one is None or place is None or not one.maker.is_computed:
        return False
    return not _near(inputs[place], one.plain.get()).all()


def _near(wide: Array, typed: Typed) -> NDArray[np.bool_]:
    """Return where unrounded numbers are within reach of roundings of the typed ones."""
    if typed.dtype is None or not is_float(typed.dtype):
        return np.ones(wide.shape, bool)
    allowed = _FAR * last_place(typed.dtype) * np.abs(typed.elements)
    return np.asarray((np.abs(wide - typed.elements) <= allowed) & np.isfinite(allowed))


def _that_matter(
    node: ir.Node, inputs: Sequence[Any], given: Sequence[Known | None]
) -> Sequence[Known | None]:
    """Return what is known; of some operators and inputs, nothing needs to be."""
    if node.op_type in RANDOM or node.op_type in _COUNTS:
        return [None] * len(given)
    if node.op_type == "CastLike" and given[0] is not None and given[1] is None:
        return [given[0], exactly(np.zeros(0, inputs[1].dtype))]  # its type alone is read
    return given


def _unknown(node: ir.Node, results: Sequence[Any]) -> Outcome:
    counts = node.op_type in _COUNTS
    return Outcome(results, [exactly(one) if counts else None for one in results])


def exactly(array: Array) -> Known:
    """Return a value that no type rounds: integers, bools."""
    return known(None, lambda: array)


def _known(
    result: Any, maker: Maker, plain: Maker, place: int, dtypes: Sequence[ir.DataType | None]
) -> Known | None:
    if not isinstance(result, np.ndarray):
        return None
    if result.dtype != np.float64:
        return exactly(result)
    return None if dtypes[place] is None else Known(maker, place, dtypes[place], plain)


def _stepped(
    node: ir.Node,
    given: Sequence[Known | None],
    dtypes: Sequence[ir.DataType | None],
    run: Run,
) -> Outcome:
    """All inputs are known, and the operator makes a step."""
    x = [None if one is None else one.get() for one in given]
    if node.op_type in _CASTS:
        found = cast_results(node, run, dtypes[0], x)
    elif node.op_type == "QuantizeLinear":
        found = quantize_results(node, run, dtypes, x)
    elif node.op_type == "Mod" and is_float(dtypes[0]):
        found = remainder_results(node, run, dtypes, x)
    elif node.op_type == "Range" and is_float(dtypes[0]):
        found = [range_results(node, dtypes[0], x)]
    else:
        found = step_results(node, run, dtypes, x)
    done = Maker((), lambda _: found)
    places = [Known(done, place, one.dtype) for place, one in enumerate(found)]
    return Outcome([one.elements for one in found], places)


def _partly(
    node: ir.Node, inputs: Sequence[Any], given: Sequence[Known | None], run: Run
) -> Sequence[Any]:
    """Some of the inputs of a step are activations: of the others, it reads the typed ones."""
    x = [one.get() if one is not None and one.dtype is not None else None for one in given]
    typed = [a if one is None else one.elements for a, one in zip(inputs, x, strict=True)]
    results = run(typed)
    for sign in (
        (1.0, -1.0) if any(one is not None and one.doubt is not None for one in x) else ()
    ):
        moved = [_moved(a, one, sign) for a, one in zip(typed, x, strict=True)]
        if [np.shape(r) for r in run(moved)] != [np.shape(r) for r in results]:
            message = (
                f"runtimes may differ in the shape that {node.op_type} {node.name!r} gives"
            )
            raise UndecidedError(message)
    return results


def _moved(array: Any, one: Typed | None, sign: float) -> Any:
    return array if one is None or one.doubt is None else array + sign * one.doubt


def _is_smooth(node: ir.Node, given: Sequence[Known | None]) -> bool:
    if node.op_type not in _CASTS or node.domain not in ("", "ai.onnx"):
        return is_smooth(node)
    if given[0] is None:
        return True  # casts of activations keep the value, or cut it as they are
    target = _cast_type(node, given)
    # an undeclared type, in the body of a function: the value is kept, and no longer known
    return target is None or fits_into(given[0].dtype, target)


def _cast_type(node: ir.Node, given: Sequence[Known | None]) -> ir.DataType | None:
    if node.op_type == "Cast":
        return ir.DataType(int_attr(node, "to", 0))
    like, other = node.inputs[1], given[1]
    if like is not None and like.dtype is not None:
        return like.dtype
    if other is None or other.dtype is not None:
        return None if other is None else other.dtype
    held = other.get().elements.dtype  # an integer type, or a float that is not known
    return None if held == np.float64 else ir.DataType.from_numpy(held)


_OTHER_TYPES: Final = {"Where": 1, "DequantizeLinear": 1, "OneHot": 2}
"""The input that says the type of the result, where it is not the first that is a float."""
_NAMED_TYPES: Final = {"EyeLike": "dtype", "DequantizeLinear": "output_dtype"}


def _types(node: ir.Node, given: Sequence[Known | None]) -> list[ir.DataType | None]:
    """Return the floating types of the results."""
    found = _type(node, given)
    if found is None:
        return [value.dtype for value in node.outputs]
    return [found] * len(node.outputs)


def _type(node: ir.Node, given: Sequence[Known | None]) -> ir.DataType | None:
    if node.op_type in _CASTS:
        return _cast_type(node, given)
    if node.op_type in _NAMED_TYPES and (
        named := int_attr(node, _NAMED_TYPES[node.op_type], 0)
    ):
        return ir.DataType(named)
    if node.op_type in ("Constant", "ConstantOfShape"):
        return _type_of_attribute(node)
    place = _OTHER_TYPES.get(node.op_type)
    if place is not None:
        one = given[place] if place < len(given) else None
        return None if one is None else one.dtype
    floats = (one.dtype for one in given if one is not None and is_float(one.dtype))
    return next(floats, None)


def _type_of_attribute(node: ir.Node) -> ir.DataType | None:
    held = node.attributes.get("value")
    return ir.DataType.FLOAT if held is None else held.as_tensor().dtype
