"""Hypothesis strategies: affine maps, and whole models drawn one operator at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnfold.affine import Affine

numbers = st.floats(-8, 8, allow_subnormal=False).map(lambda x: round(x, 3))
scales = numbers.filter(lambda x: abs(x) > 1e-2)


@st.composite
def affines(draw, channels: int | None = None, axis: int | None = None):
    """A map along an axis, or a uniform one."""
    size = channels or draw(st.integers(1, 5))
    scale = draw(st.lists(scales, min_size=size, max_size=size))
    shift = draw(st.lists(numbers, min_size=size, max_size=size))
    place = draw(st.integers(0, 3)) if axis is None else axis
    return Affine.per_channel(place, scale, shift)


@dataclass
class Sketch:
    """A model under construction; every value has a known shape."""

    rng: np.random.Generator
    dtype: int = TensorProto.FLOAT
    declared: bool = True
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    infos: list[onnx.ValueInfoProto] = field(default_factory=list)

    def constant(self, array) -> str:
        name = f"c{len(self.weights)}"
        numpy_type = helper.tensor_dtype_to_np_dtype(self.dtype)
        self.weights.append(
            numpy_helper.from_array(np.asarray(array).astype(numpy_type), name)
        )
        return name

    def add(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, inputs, [name], name=f"n{name}", **attributes)
        )
        if self.declared:
            self.infos.append(helper.make_tensor_value_info(name, self.dtype, list(shape)))
        return name

    def model(self, shape_in, outputs: list[tuple[str, tuple[int, ...]]]) -> onnx.ModelProto:
        names = {name for name, _ in outputs}
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [helper.make_tensor_value_info("x", self.dtype, ["N", *shape_in[1:]])],
            [
                helper.make_tensor_value_info(name, self.dtype, [None, *shape[1:]])
                for name, shape in outputs
            ],
            self.weights,
            value_info=[info for info in self.infos if info.name not in names],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )


def _away_from_zero(rng, size):
    return rng.uniform(0.3, 2.0, size) * np.where(rng.random(size) < 0.3, -1.0, 1.0)


def _map_along(draw, sketch, value, shape):
    """One of the spellings of a map, on a drawn axis."""
    kind = draw(st.sampled_from(["Mul", "Add", "Sub", "Div", "Neg", "BatchNormalization"]))
    if kind == "Neg":
        return sketch.add("Neg", [value], shape), shape
    if kind == "BatchNormalization":
        if len(shape) < 2:
            return value, shape
        count = shape[1]
        parameters = [
            sketch.constant(_away_from_zero(sketch.rng, count)),
            sketch.constant(sketch.rng.normal(0, 1, count)),
            sketch.constant(sketch.rng.normal(0, 1, count)),
            sketch.constant(sketch.rng.uniform(0.3, 2, count)),
        ]
        return sketch.add(kind, [value, *parameters], shape), shape
    axis = draw(st.integers(1, len(shape)))  # len(shape) draws a scalar
    along = [1] * (len(shape) - axis)
    if along:
        along[0] = shape[axis]
    constant = sketch.constant(_away_from_zero(sketch.rng, along))
    first = kind != "Div" and draw(st.booleans())
    inputs = [constant, value] if first else [value, constant]
    return sketch.add(kind, inputs, shape), shape


def _convolve(draw, sketch, value, shape):
    rank = len(shape) - 2
    if rank < 1 or rank > 2:
        return value, shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if shape[1] % g == 0]))
    outputs = groups * draw(st.integers(1, 2))
    kernel = draw(st.sampled_from([1, 2, 3]))
    pad = draw(st.sampled_from([0, 1]))
    sizes = tuple(size + 2 * pad - kernel + 1 for size in shape[2:])
    if min(sizes) < 1:
        return value, shape
    weight = sketch.rng.normal(0, 1, (outputs, shape[1] // groups, *[kernel] * rank))
    inputs = [value, sketch.constant(weight)]
    if draw(st.booleans()):
        inputs.append(sketch.constant(sketch.rng.normal(0, 1, outputs)))
    attributes = {"pads": [pad] * 2 * rank, "group": groups}
    result = (shape[0], outputs, *sizes)
    return sketch.add("Conv", inputs, result, **attributes), result


def _transpose_convolve(draw, sketch, value, shape):
    rank = len(shape) - 2
    if rank < 1 or rank > 2:
        return value, shape
    groups = draw(st.sampled_from([g for g in (1, 2) if shape[1] % g == 0]))
    columns, kernel = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    weight = sketch.rng.normal(0, 1, (shape[1], columns, *[kernel] * rank))
    inputs = [value, sketch.constant(weight)]
    result = (shape[0], columns * groups, *(size + kernel - 1 for size in shape[2:]))
    return sketch.add("ConvTranspose", inputs, result, group=groups), result


def _multiply(draw, sketch, value, shape):
    outputs = draw(st.integers(1, 4))
    weight = sketch.rng.normal(0, 1, (shape[-1], outputs))
    result = (*shape[:-1], outputs)
    if len(shape) == 2 and draw(st.booleans()):
        turned = draw(st.booleans())
        inputs = [value, sketch.constant(weight.T if turned else weight)]
        if draw(st.booleans()):
            inputs.append(sketch.constant(sketch.rng.normal(0, 1, outputs)))
        attributes = {"alpha": 0.5, "beta": draw(st.sampled_from([1.0, 2.0, 0.0]))}
        return sketch.add("Gemm", inputs, result, transB=int(turned), **attributes), result
    if len(shape) > 2 and draw(st.booleans()):
        left = sketch.rng.normal(0, 1, (outputs, shape[-2]))
        result = (*shape[:-2], outputs, shape[-1])
        return sketch.add("MatMul", [sketch.constant(left), value], result), result
    return sketch.add("MatMul", [value, sketch.constant(weight)], result), result


def _lay_out(draw, sketch, value, shape):
    kind = draw(st.sampled_from(["Transpose", "Flatten", "Unsqueeze", "Identity", "Relu"]))
    if kind == "Transpose" and len(shape) > 2:
        order = draw(st.permutations(range(1, len(shape))))
        result = (shape[0], *(shape[axis] for axis in order))
        return sketch.add(kind, [value], result, perm=[0, *order]), result
    if kind == "Flatten" and len(shape) > 2:
        result = (shape[0], int(np.prod(shape[1:])))
        return sketch.add(kind, [value], result, axis=1), result
    if kind == "Unsqueeze" and len(shape) < 4:
        axis = draw(st.integers(1, len(shape)))
        name = f"axes{len(sketch.weights)}"
        sketch.weights.append(numpy_helper.from_array(np.array([axis], np.int64), name))
        result = (*shape[:axis], 1, *shape[axis:])
        return sketch.add(kind, [value, name], result), result
    if kind in ("Identity", "Relu"):
        return sketch.add(kind, [value], shape), shape
    return value, shape


def _whole(sketch, *numbers) -> str:
    name = f"whole{len(sketch.weights)}"
    sketch.weights.append(numpy_helper.from_array(np.array(numbers, np.int64), name))
    return name


def _bend(draw, sketch, value, shape):
    kind = draw(st.sampled_from(["LeakyRelu", "Clip", "PRelu", "Max"]))
    if kind == "LeakyRelu":
        return sketch.add(kind, [value], shape, alpha=0.25), shape
    if kind == "Clip":
        low = draw(st.sampled_from([0.0, -0.5]))
        inputs = [value, sketch.constant(np.array(low)), sketch.constant(np.array(1.5))]
        return sketch.add(kind, inputs, shape), shape
    constant = sketch.constant(sketch.rng.uniform(0.1, 0.9, shape[-1:]))
    return sketch.add(kind, [value, constant], shape), shape


def _shrink(draw, sketch, value, shape):
    rank = len(shape) - 2
    if rank < 1 or min(shape[2:]) < 2:
        return value, shape
    kind = draw(st.sampled_from(["MaxPool", "AveragePool", "Global", "Reduce", "Slice"]))
    if kind == "Global":
        kind = draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"]))
        result = (*shape[:2], *[1] * rank)
        return sketch.add(kind, [value], result), result
    if kind == "Reduce":
        kind = draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceMin"]))
        axis = draw(st.integers(1, len(shape) - 1))
        result = (*shape[:axis], *shape[axis + 1 :])
        return sketch.add(kind, [value], result, axes=[axis], keepdims=0), result
    if kind == "Slice":
        axis = draw(st.sampled_from([a for a in range(1, len(shape)) if shape[a] > 1]))
        result = (*shape[:axis], shape[axis] - 1, *shape[axis + 1 :])
        ranges = [_whole(sketch, number) for number in (1, shape[axis], axis)]
        return sketch.add(kind, [value, *ranges], result), result
    result = (*shape[:2], *(size - 1 for size in shape[2:]))
    return sketch.add(kind, [value], result, kernel_shape=[2] * rank), result


def _grow(draw, sketch, value, shape):
    kind = draw(st.sampled_from(["Pad", "Tile", "Resize", "Gather"]))
    last = shape[-1]
    if kind == "Gather":
        axis = draw(st.integers(1, len(shape) - 1))
        order = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=5))
        result = (*shape[:axis], len(order), *shape[axis + 1 :])
        return sketch.add(kind, [value, _whole(sketch, *order)], result, axis=axis), result
    if kind == "Pad":
        result = (*shape[:-1], last + 1)
        pads = [*[0] * (2 * len(shape) - 1), 1]
        mode = draw(st.sampled_from(["constant", "edge"]))
        return sketch.add(kind, [value, _whole(sketch, *pads)], result, mode=mode), result
    if kind == "Tile" and np.prod(shape) < 200:
        result = (*shape[:-1], 2 * last)
        repeats = [*[1] * (len(shape) - 1), 2]
        return sketch.add(kind, [value, _whole(sketch, *repeats)], result), result
    if kind == "Resize" and len(shape) == 4 and np.prod(shape) < 200:
        result = (*shape[:2], 2 * shape[2], 2 * last)
        sizes = numpy_helper.from_array(
            np.array([1, 1, 2, 2], np.float32), f"sizes{len(sketch.weights)}"
        )
        sketch.weights.append(sizes)
        return sketch.add(kind, [value, "", sizes.name], result, mode="nearest"), result
    return value, shape


def _branch(draw, sketch, value, shape):
    """Two branches of one value, each with a map or a linear layer, that meet again."""
    ends = []
    for _ in range(2):
        end = value
        if draw(st.booleans()):
            end = sketch.add(draw(st.sampled_from(["Relu", "Sigmoid"])), [end], shape)
        if draw(st.booleans()):
            weight = sketch.constant(sketch.rng.normal(0, 1, (shape[-1], shape[-1])))
            end = sketch.add("MatMul", [end, weight], shape)
        if draw(st.booleans()):
            end, _ = _map_along(draw, sketch, end, shape)
        ends.append(end)
    kind = draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Concat"]))
    if kind == "Concat":
        axis = draw(st.integers(1, len(shape) - 1))
        result = (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :])
        return sketch.add(kind, ends, result, axis=axis), result
    return sketch.add(kind, ends, shape), shape


def _split(draw, sketch, value, shape):
    axis = draw(st.sampled_from([a for a in range(1, len(shape)) if shape[a] % 2 == 0] or [0]))
    if axis == 0:
        return value, shape
    part = (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])
    first = sketch.add("Split", [value], part, axis=axis)
    sketch.nodes[-1].output.append(f"{first}_second")
    second = f"{first}_second"
    if draw(st.booleans()):
        second, _ = _map_along(draw, sketch, second, part)
    return sketch.add(draw(st.sampled_from(["Mul", "Add"])), [first, second], part), part


def _normalize(draw, sketch, value, shape):
    """By the data; a large epsilon keeps small variances from amplifying rounding."""
    kind = draw(st.sampled_from(["LayerNormalization", "InstanceNormalization"]))
    if kind == "InstanceNormalization" and len(shape) > 2:
        size, attributes = shape[1:2], {}
    else:
        kind, axis = "LayerNormalization", draw(st.integers(1, len(shape) - 1))
        size, attributes = shape[axis:], {"axis": axis}
    inputs = [value, sketch.constant(_away_from_zero(sketch.rng, size))]
    if kind == "InstanceNormalization" or draw(st.booleans()):
        inputs.append(sketch.constant(sketch.rng.normal(0, 1, size)))
    return sketch.add(kind, inputs, shape, epsilon=0.5, **attributes), shape


_STEPS = {
    "normalize": _normalize,
    "map": _map_along,
    "conv": _convolve,
    "conv_transpose": _transpose_convolve,
    "multiply": _multiply,
    "lay_out": _lay_out,
    "bend": _bend,
    "shrink": _shrink,
    "grow": _grow,
    "branch": _branch,
    "split": _split,
}
_WEIGHTED = ["map"] * 6 + ["conv"] * 2 + ["conv_transpose", "multiply", "lay_out", "lay_out"]
_WEIGHTED += ["bend", "shrink", "grow", "branch", "split", "normalize", "normalize"]


@st.composite
def models(draw, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A chain of 2 to 8 operators, sometimes with an intermediate value read twice."""
    sketch = Sketch(np.random.default_rng(draw(st.integers(0, 2**20))), dtype)
    sketch.declared = draw(st.booleans())
    shape = draw(st.sampled_from([(2, 4), (2, 3, 5), (2, 4, 3, 5), (2, 6, 3, 3)]))
    first, value, values = shape, "x", [("x", shape)]
    for step in draw(st.lists(st.sampled_from(_WEIGHTED), min_size=2, max_size=8)):
        value, shape = _STEPS[step](draw, sketch, value, shape)
        values.append((value, shape))
    if not sketch.nodes:
        value = sketch.add("Neg", [value], shape)
    outputs = [(value, shape)]
    extra = draw(st.one_of(st.none(), st.sampled_from(values[1:])))
    if extra is not None and extra[0] not in ("x", value):
        outputs.append(extra)
    return sketch.model(first, outputs)
