"""Evaluate a node whose inputs are all constant, with onnx's reference implementation.

Floating arithmetic is done in float64 and stays unrounded, so that a map spelled out as
``gamma / sqrt(var + eps)`` costs one rounding like any other. An operator that is not
continuous reads, and gives, the numbers of the graph's own types instead (see `continuity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.expression import Expression
from bnfold.model.attributes import int_attr
from bnfold.model.by_reference import run_operator
from bnfold.model.constants import FLOATS, Constant
from bnfold.model.continuity import STEEP, Nature, Precision, holds, nature_of
from bnfold.model.native import (
    Array,
    Native,
    Run,
    UndecidedError,
    as_type,
    decided,
    last_place,
    stepwise,
    widened,
)
from bnfold.model.quantized import (
    EXACT,
    dequantize,
    dequantized,
    quantize,
    quantized_type,
)
from bnfold.model.result_types import result_types
from bnfold.model.steps import cast_run, range_of

_CASTS: Final = frozenset({"Cast", "CastLike"})
_QUANTIZERS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
# fmt: off
COMPUTES: Final = _CASTS | _QUANTIZERS | frozenset({
    "Identity", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat",
    "Gather", "Split", "Expand", "Tile", "Where", "Shape", "Size", "Range", "ConstantOfShape",
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Log",
    "Min", "Max", "Sum", "Floor", "Ceil", "ReduceProd", "ReduceSum", "ReduceMean",
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor",
    "Round", "Sign", "Mean", "Clip", "Relu", "LeakyRelu", "PRelu", "MatMul", "Gemm", "Einsum",
    "CumSum", "Trilu", "Pad", "DepthToSpace", "SpaceToDepth", "GatherElements", "GatherND",
    "ScatterElements", "ScatterND", "EyeLike", "OneHot", "ReduceL1", "ReduceL2", "ReduceMax",
    "ReduceMin", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "Tanh", "Sigmoid",
    "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Erf", "Elu", "Selu", "Celu", "Gelu",
    "Mish", "Softmax", "LogSoftmax", "Sin", "Cos", "Sinh", "Cosh", "Asinh", "Atan", "ArgMax",
    "ArgMin", "TopK", "NonZero", "Hardmax", "IsInf", "IsNaN", "ThresholdedRelu", "Shrink",
    "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "Compress", "Scatter",
    "Dropout", "Swish",
    "Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "GlobalLpPool", "BatchNormalization", "LayerNormalization",
    "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization",
    "MeanVarianceNormalization", "LRN",
})
# fmt: on
"""Operators that compute a constant from constants.

Those that the judge has float64 kernels of its own for: a mistake made here is then seen by
the check. What is random, holds graphs or gives no tensor is none of them.
"""

_SQUARES: Final = (0.0, 1.0, 2.0)
"""Powers that need one multiplication at most, and are rounded once."""
_FIRST_ONLY: Final = frozenset({"MaxPool", "BatchNormalization"})
"""Where the largest was is a step; running statistics are for training alone."""
_FAR: Final = 1024.0
"""What rounding moves by more units in the last place was a difference that cancelled."""
_SLACK: Final = 2.0**-10
"""A float result of an unknown operator that moves by less, relatively, makes no step."""


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """One operator on constants."""

    node: ir.Node
    inputs: tuple[Constant | None, ...]
    opset: int
    nature: Nature

    def run(self, arrays: Sequence[Array | None]) -> list[Array]:
        """Compute it; floats are float64."""
        return run_operator(self.node, arrays, self.opset)

    @property
    def what(self) -> str:
        """The operator and its name."""
        return f"{self.node.op_type} {self.node.name or self.node.outputs[0].name!r}"

    def type(self) -> ir.DataType | None:
        """Return the floating type that it computes in: that of its first float input."""
        floats = (entry.dtype for entry in self.inputs if entry and entry.is_float)
        return next(floats, None)

    def types(self) -> list[ir.DataType]:
        """Return the floating type of each result that is one."""
        given = [None if entry is None else entry.dtype for entry in self.inputs]
        found = result_types(self.node, given, self.opset)
        own = self.type() or ir.DataType.FLOAT
        return [one if one in FLOATS else own for one in found]


class _Natively:
    """What one operator gives in the graph's own types, computed when somebody asks."""

    def __init__(self, work: _Work, run: Run, dtype: np.dtype[np.generic]) -> None:
        self.work, self.run, self.dtype = work, run, dtype
        self._found: list[Native] | None = None
        self.plain = self._without_others()

    def _without_others(self) -> _Natively:
        return _Plainly(self.work, self.run, self.dtype)

    @property
    def is_known(self) -> bool:
        """Whether it has been computed."""
        return self._found is not None

    def know(self, result: Native) -> None:
        """Take a result that was computed in another way."""
        self._found = [result]
        if self.plain is not self:
            self.plain.know(Native(result.elements))

    def waits_for(self) -> list[_Natively]:
        """Return what must be known first."""
        if self._found is not None:
            return []
        held = (entry.rounding for entry in self.work.inputs if entry is not None)
        places = [self.like(one.all) for one in held if isinstance(one, _Place)]
        return [one for one in places if one is not self and not one.is_known]

    def like(self, other: _Natively) -> _Natively:
        """Return what it reads of another operator."""
        return other

    def results(self) -> list[Native]:
        """Compute this and what it hangs on, deepest first (no recursion)."""
        stack: list[_Natively] = [self]
        while self._found is None:
            waiting = stack[-1].waits_for()
            if waiting:
                stack.extend(waiting)
            else:
                stack.pop().compute()
        return self._found

    def compute(self) -> None:
        """Compute this, of inputs that are known."""
        if self._found is None:
            with np.errstate(all="ignore"):
                self._found = self._rounded([self._read(entry) for entry in self.work.inputs])

    def _read(self, entry: Constant | None) -> Native | None:
        if entry is None or not isinstance(entry.rounding, _Place):
            return None if entry is None else Native(entry.stored())
        return self.like(entry.rounding.all).results()[entry.rounding.place]

    def _rounded(self, inputs: Sequence[Native | None]) -> list[Native]:
        return stepwise(self.run, inputs, self.dtype, self.work.nature.precision)


class _Plainly(_Natively):
    """The same without what other runtimes may have: one evaluation in place of many."""

    def _without_others(self) -> _Natively:
        return self

    def like(self, other: _Natively) -> _Natively:
        """Return what it reads of another operator."""
        return other.plain

    def _rounded(self, inputs: Sequence[Native | None]) -> list[Native]:
        results = self.run([None if x is None else widened(x.elements) for x in inputs])
        return [Native(as_type(result, self.dtype)) for result in results]


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One of the results of an operator."""

    all: _Natively
    place: int

    def elements(self) -> Array:
        """Return the numbers, rounded after every operator."""
        return self.all.plain.results()[self.place].elements

    def is_sure(self) -> bool:
        """Return whether every runtime computes the same numbers."""
        return not self.all.results()[self.place].others


def _native_of(entry: Constant | None) -> Native | None:
    if entry is None:
        return None
    if isinstance(entry.rounding, _Place):
        return entry.rounding.all.results()[entry.rounding.place]
    return Native(entry.stored())


def evaluate(
    node: ir.Node, inputs: Sequence[Constant | None], opset: int, target: ir.DataType | None
) -> list[Constant] | None:
    """Return the outputs of ``node`` for constant inputs; None when it cannot be evaluated.

    Args:
        node: A node whose operator is in `COMPUTES`.
        inputs: Its inputs, None where absent.
        opset: Version of the default operator set.
        target: Element type of the result of a cast, if ``node`` is one.

    Raises:
        UndecidedError: If runtimes may differ in what it gives.
    """
    work = _Work(node, tuple(inputs), opset, _nature(node, inputs))
    if node.op_type in _CASTS:
        return None if inputs[0] is None else [_cast(work, inputs[0], target)]
    if node.op_type in _QUANTIZERS:
        return _quantize(work)
    try:
        with np.errstate(all="ignore"):
            return _unrounded(work) if work.nature.continuous else _as_rounded(work)
    except (UndecidedError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  the reference raises anything; a dynamic value is no error
        return None


def _nature(node: ir.Node, inputs: Sequence[Constant | None]) -> Nature:
    """Return what is known of an operator; some powers are products."""
    nature = nature_of(node.op_type)
    if node.op_type == "Pow" and len(inputs) > 1 and inputs[1] is not None:
        exponent = inputs[1]
        if exponent.rounding is None and np.isin(exponent.wide(), _SQUARES).all():
            return Nature(continuous=True, precision=Precision.EXACT)
    return nature


_LESS: Final = ("float32", "float16")


def _unrounded(work: _Work) -> list[Constant] | None:
    """Compute a continuous operator in float64; its rounded results are left for later.

    None where onnx's reference leaves float64.
    """
    results = work.run([None if entry is None else _elements(entry) for entry in work.inputs])
    if work.node.op_type in _FIRST_ONLY:
        del results[1:]
    dtype = work.type()
    if dtype is not None and any(result.dtype.name in _LESS for result in results):
        return None
    if dtype is None:
        return [_final(result) for result in results]
    types = work.types()[: len(results)]
    rounded = {one: _Natively(work, work.run, one.numpy()) for one in types}
    if _is_blown_up(work):
        plain = [rounded[one].plain.results()[place] for place, one in enumerate(types)]
        pairs = zip(results, plain, strict=True)
        results = [np.where(_near(a, b.elements), a, widened(b.elements)) for a, b in pairs]
    return [
        Constant(Expression.of(result), one, _Place(rounded[one], place))
        if result.dtype == np.float64
        else _final(result)
        for place, (result, one) in enumerate(zip(results, types, strict=True))
    ]


def _is_blown_up(work: _Work) -> bool:
    """Return whether a steep operator reads what rounding has moved far, relatively."""
    place = STEEP.get(work.node.op_type)
    read = None if place is None else work.inputs[place]
    return read is not None and is_far(read)


def is_far(held: Constant) -> bool:
    """Return whether the graph's own roundings moved a constant far, relatively."""
    if held.rounding is None:
        return False
    return not _near(held.wide(), held.stored()).all()


def _near(wide: Array, native: Array) -> NDArray[np.bool_]:
    """Return where the graph's own numbers are not far from the unrounded ones."""
    own = widened(native)
    allowed = _FAR * last_place(native.dtype) * np.abs(own)
    return np.asarray((np.abs(wide - own) <= allowed) & np.isfinite(own))


def _as_rounded(work: _Work) -> list[Constant]:
    """Compute an operator that is not continuous from the graph's own numbers."""
    inputs = [_native_of(entry) for entry in work.inputs]
    dtype = work.type()
    if work.node.op_type == "Range" and dtype is not None:
        return _range(work, inputs, dtype)
    if work.node.op_type == "Mod" and dtype is not None:
        return _remainder(work, dtype)
    slack = 0.0 if work.nature.precision is Precision.EXACT else _SLACK
    results = decided(work.run, inputs, work.what, slack)
    if dtype is None:
        return [_final(result) for result in results]
    types = work.types()
    return [_final(as_type(r, one.numpy())) for r, one in zip(results, types, strict=False)]


def _range(work: _Work, inputs: Sequence[Native | None], dtype: ir.DataType) -> list[Constant]:
    """The number of elements must be sure; the elements may differ by their rounding."""
    native = range_of(inputs, dtype.numpy())
    found = _Natively(work, work.run, dtype.numpy())
    found.know(native)
    return [Constant(Expression.of(native.elements), dtype, _Place(found, 0))]


def _remainder(work: _Work, dtype: ir.DataType) -> list[Constant]:
    """As long as the quotient is sure, a remainder is a difference like any other."""
    rounding = np.trunc if int_attr(work.node, "fmod", 0) else np.floor
    inputs = [_native_of(entry) for entry in work.inputs]
    decided(partial(_quotient, rounding), inputs, work.what, 0.0)
    rounded = _Place(_Natively(work, work.run, dtype.numpy()), 0)
    return [Constant(Expression.of(rounded.elements()), dtype, rounded)]


def _quotient(
    rounding: Callable[[Array], Array], inputs: Sequence[Array | None]
) -> list[Array]:
    dividend, divisor = inputs
    assert dividend is not None
    assert divisor is not None
    return [rounding(dividend / divisor)]


def _final(result: Array) -> Constant:
    return Constant(Expression.of(result), ir.DataType.from_numpy(result.dtype))


def _elements(entry: Constant) -> Array:
    return entry.wide() if entry.is_float else entry.stored()


def _cast(work: _Work, source: Constant, target: ir.DataType | None) -> Constant:
    """Widen, which changes nothing; or round the graph's own numbers, or cut them."""
    dtype = ir.DataType.UNDEFINED if target is None else target
    if source.dtype == dtype:
        return source
    run = cast_run(dtype)
    if dtype not in FLOATS:
        with np.errstate(all="ignore"):
            (result,) = decided(run, [_native_of(source)], work.what, 0.0)
        return Constant(Expression.of(result), dtype)
    rounded = _Place(_Natively(work, run, dtype.numpy()), 0)
    if holds(dtype, source.dtype):
        return Constant(source.expression, dtype, rounded)
    return Constant(Expression.of(rounded.elements()), dtype, rounded)


def _quantize(work: _Work) -> list[Constant] | None:
    node, inputs = work.node, work.inputs
    if EXACT in node.meta:
        return [node.meta[EXACT]]
    value, scale, zero = (*inputs, None)[:3]
    if value is None or scale is None:
        return None
    if node.op_type == "QuantizeLinear":
        return _quantized(work, value, scale, zero)
    found = dequantized(node, value, scale, zero)
    if found is None or scale.rounding is None:
        return None if found is None else [found]
    rounded = _Natively(work, partial(dequantize, node), found.dtype.numpy())
    return [Constant(found.expression, found.dtype, _Place(rounded, 0))]


def _quantized(
    work: _Work, value: Constant, scale: Constant, zero: Constant | None
) -> list[Constant] | None:
    dtype = quantized_type(work.node, value, scale, zero)
    if dtype is None:
        return None
    inputs = [_native_of(entry) for entry in (value, scale, zero)]
    with np.errstate(all="ignore"):
        (result,) = decided(partial(quantize, work.node, dtype), inputs, work.what, 0.0)
    return [Constant(Expression.of(result), dtype)]
