"""Whole models: inputs, a few nodes of every kind, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from benchmarks.campaign.sketch import TYPES, Array, Case, Shape
from benchmarks.campaign.truth import Feeds
from tests.fuzz.bodies import DEEPEST, branch, function, loop, scan
from tests.fuzz.contents import FLOATS, drawn_array, drawn_shape
from tests.fuzz.draws import Draws, by_hypothesis
from tests.fuzz.nodes import any_node, binary, floats, operators, recent
from tests.fuzz.scope import Scope, Value

NEWEST: Final = onnx.defs.onnx_opset_version()
OLDEST: Final = 6
_KINDS: Final = ("fp32", "fp32", "fp32", "fp16", "fp64", "bf16")
_AFFINE: Final = ("Mul", "Add", "Sub", "Div", "Mul", "Add")
_LINEAR: Final = (
    *("MatMul", "Conv", "Gemm", "ConvTranspose", "BatchNormalization", "Conv", "MatMul"),
)
_CARRYING: Final = (
    *("Relu", "Transpose", "Reshape", "Concat", "MaxPool", "AveragePool", "Pad", "Slice"),
    *("Clip", "Squeeze", "Unsqueeze", "Flatten", "Gather", "Split", "Expand", "Tile", "Cast"),
    *("ReduceMean", "ReduceMax", "ReduceSum", "Resize", "LeakyRelu", "PRelu", "Max", "Min"),
    *("Where", "Identity", "Dropout", "Neg", "GlobalAveragePool", "LayerNormalization"),
    *("InstanceNormalization", "Sum", "Mean", "QuantizeLinear", "DequantizeLinear", "LSTM"),
    *("DepthToSpace", "SpaceToDepth", "Einsum", "GroupNormalization", "Add", "Mul", "Sub"),
    *("Abs", "CumSum", "GatherElements", "GatherND", "ReverseSequence", "ThresholdedRelu"),
    *("TopK", "Trilu"),
)
_BODIES: Final[tuple[Callable[[Scope, Any], None], ...]] = (branch, function, loop, scan)
_MOST: Final = 8


@st.composite
def models(draw: Any) -> Drawn:
    """Draw a model, and the numbers that go in, by hypothesis."""
    return drawn_model(by_hypothesis(draw))


def drawn_model(draws: Draws) -> Drawn:
    """Draw a model, and the numbers that go in."""
    word = draws.pick(_KINDS)
    opset = draws.pick((17, 13, 21, *range(OLDEST, NEWEST + 1)))
    model = _Model(draws, word, opset)
    scope = model.scope
    for _ in range(draws.integer(1, 2)):
        model.given(TYPES[word], drawn_shape(draws, draws.pick((2, 3, 4, 1, 5, 0))))
    fill(scope, draws.integer(2, _MOST))
    return model.drawn()


def fill(scope: Scope, count: int) -> None:
    """Append about so many nodes: affine, linear, what maps pass, any other, bodies."""
    draws = scope.draws
    for _ in range(count):
        how = draws.integer(0, 99)
        values = floats(scope)
        value = recent(draws, values) if values else None
        if how < 34 and value is not None:
            _affine(scope, value)
        elif how < 50:
            any_node(scope, draws.pick(_LINEAR))
        elif how < 72:
            any_node(scope, draws.pick(_CARRYING))
        elif how < 92 or scope.depth >= DEEPEST:
            any_node(scope, draws.pick(operators(scope.opset)))
        else:
            draws.pick(_BODIES)(scope, fill)


def _affine(scope: Scope, value: Value) -> None:
    operator = scope.draws.pick(_AFFINE)
    bf16 = value.element == TensorProto.BFLOAT16
    if bf16 and scope.opset < 13:
        return
    binary(scope, operator, value)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A model, and the numbers that go in.

    Attributes:
        case: The model.
        arrays: Numbers for its inputs, as the model was made for.
        symbols: Open sizes of the inputs.
    """

    case: Case
    arrays: Mapping[str, Array]
    symbols: Mapping[str, Sequence[str]]

    def feeds(self, turn: int) -> Feeds:
        """Return these numbers; in another turn others near to them, open sizes larger."""
        if not turn:
            return dict(self.arrays)
        rng = np.random.default_rng((turn, 61))
        return {name: self._other(name, array, rng) for name, array in self.arrays.items()}

    def _other(self, name: str, array: Array, rng: np.random.Generator) -> Array:
        symbols = self.symbols.get(name, ("",) * array.ndim)
        pairs = zip(array.shape, symbols, strict=True)
        shape = tuple(size + bool(size and symbol) for size, symbol in pairs)
        array = np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
        if array.dtype.kind not in "fV":
            return array
        factors = 1 + 0.1 * rng.standard_normal(shape)
        return np.asarray(array * factors).astype(array.dtype)


class _Model:
    """A model under construction: its main graph, its inputs and their numbers."""

    def __init__(self, draws: Draws, word: str, opset: int) -> None:
        self.draws = draws
        self.word = word
        self.scope = Scope(draws, TYPES[word], opset)
        self.scope.new_input = self.given
        self.inputs: list[onnx.ValueInfoProto] = []
        self.arrays: dict[str, Array] = {}
        self.symbols: dict[str, list[str]] = {}

    def given(self, element: int, shape: Shape) -> Value:
        """Declare an input, some of its sizes open."""
        array = drawn_array(self.draws, element, shape)
        name = f"x{len(self.inputs)}"
        self.arrays[name] = array
        self.symbols[name] = self._symbols(shape)
        dims = [word or size for word, size in zip(self.symbols[name], shape, strict=True)]
        self.inputs.append(helper.make_tensor_value_info(name, element, dims))
        wide = array.astype(np.float64) if element in FLOATS else array
        found = Value(name, element, wide, given=True)
        self.scope.values.insert(0, found)
        return found

    def _symbols(self, shape: Shape) -> list[str]:
        """Leave the batch open, or every size; equal sizes may share a symbol."""
        if not shape or not self.draws.chance(35):
            return [""] * len(shape)
        least = 1 if self.draws.chance(60) else len(shape)
        shared = self.draws.chance(50)
        return [
            "" if axis >= least else f"S{size}" if shared else f"D{len(self.inputs)}_{axis}"
            for axis, size in enumerate(shape)
        ]

    def drawn(self) -> Drawn:
        """Return the model, with some of its values as outputs."""
        scope, draws = self.scope, self.draws
        written = {name for node in scope.nodes for name in node.output if name}
        read = {name for node in scope.nodes for name in _reads(node)}
        leaves = [v for v in scope.values if v.name in written and v.name not in read]
        inner = [v for v in scope.values if v.name in written and v.name in read]
        outputs = leaves[-3:] or inner[-1:]
        if inner and draws.chance(15):
            outputs = [*outputs, draws.pick(inner)]
        infos = [_declared(draws, one) for one in dict.fromkeys(outputs)]
        infos += [onnx.ValueInfoProto(name=n, type=t) for n, t in scope.loose if n not in read]
        weights = [t for t in scope.weights if t.name in read or draws.chance(10)]
        bodies = any(one.HasField("g") for node in scope.nodes for one in node.attribute)
        version = draws.pick((8, 10, 4, 11) if bodies else (8, 10, 4, 11, 3))
        if scope.functions or scope.opset >= 22:
            version = max(version, 10)
        inputs = list(self.inputs)
        if version < 4:
            inputs += [_input_of(tensor) for tensor in weights]
        elif draws.chance(8):
            inputs += [_input_of(tensor) for tensor in weights[:1]]
        graph = helper.make_graph(scope.nodes, "drawn", inputs, infos, weights)
        imports = [helper.make_opsetid("", scope.opset)]
        if scope.functions:
            imports.append(helper.make_opsetid("local", 1))
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=version, functions=scope.functions
        )
        options = {"norms": True} if draws.chance(20) else {}
        case = Case(model, "fuzz", self.word, options=options)
        return Drawn(case, self.arrays, self.symbols)


def _declared(draws: Draws, value: Value) -> onnx.ValueInfoProto:
    shape = value.shape if value.constant and draws.chance(50) else [None] * len(value.shape)
    return helper.make_tensor_value_info(value.name, value.element, shape)


def _input_of(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, and the graphs inside of it."""
    found = set(node.input)
    for attribute in node.attribute:
        found |= {one.name for one in attribute.g.output}
        for inner in attribute.g.node:
            found |= _reads(inner)
    return found
