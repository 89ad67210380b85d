"""An evaluator of small ONNX graphs in which every float tensor is float64.

It shares nothing with the folder: own kernels where ``onnx.reference`` is wrong or fails
(BatchNormalization before opset 14, grouped ConvTranspose), ``onnx.reference`` for the rest.
Casts between float types keep the value, so two models that differ only in how they round
their activations evaluate to the same numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Array = np.ndarray
Kernel = Callable[["Call"], Any]
FLOAT_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    }
)
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def widen(value: Any) -> Any:
    """Return a float tensor as float64 and anything else as it is."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16:
        return array.astype(np.float64)
    return array


@dataclass(frozen=True, slots=True)
class Call:
    """One node with its evaluated inputs."""

    node: onnx.NodeProto
    x: list[Any]
    opset: int
    read: frozenset[str]

    def attr(self, name: str, default: Any = None) -> Any:
        for attribute in self.node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def text(self, name: str, default: str) -> str:
        found = self.attr(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def maybe(self, index: int) -> Any:
        return self.x[index] if index < len(self.x) else None


# ------------------------------------------------------------------ geometry of windows


def _same_pads(auto: str, total: list[int]) -> list[tuple[int, int]]:
    low_first = [(t - t // 2, t // 2) for t in total]
    return low_first if auto == "SAME_LOWER" else [(end, begin) for begin, end in low_first]


def _pads(call: Call, size: list[int], kernel: list[int]) -> list[tuple[int, int]]:
    rank = len(size)
    auto = call.text("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * rank
    if auto == "NOTSET":
        flat = call.attr("pads", [0] * (2 * rank))
        return [(flat[i], flat[i + rank]) for i in range(rank)]
    strides = call.attr("strides", [1] * rank)
    total = [
        max((math.ceil(n / s) - 1) * s + k - n, 0)
        for n, s, k in zip(size, strides, kernel, strict=True)
    ]
    return _same_pads(auto, total)


def conv(call: Call) -> Array:
    """y[n,o] = b[o] + sum over i and taps of w[o,i,tap]·x[n,i,place(tap)]."""
    x, w, b = call.x[0], call.x[1], call.maybe(2)
    rank = x.ndim - 2
    dilations = call.attr("dilations", [1] * rank)
    strides = call.attr("strides", [1] * rank)
    span = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    pads = _pads(call, list(x.shape[2:]), span)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    windows = sliding_window_view(padded, span, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations]
    windows = windows[(slice(None), slice(None), *steps)]
    groups = call.attr("group", 1)
    axes = [1, *range(2 + rank, 2 + 2 * rank)]
    parts = [
        np.moveaxis(np.tensordot(xg, wg, (axes, list(range(1, 2 + rank)))), -1, 1)
        for xg, wg in zip(np.split(windows, groups, 1), np.split(w, groups, 0), strict=True)
    ]
    y = np.concatenate(parts, axis=1)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _transpose_geometry(call: Call, size: list[int], span: list[int]) -> tuple[Any, Any]:
    rank = len(size)
    strides = call.attr("strides", [1] * rank)
    extra = call.attr("output_padding", [0] * rank)
    full = [s * (n - 1) + k for s, n, k in zip(strides, size, span, strict=True)]
    auto = call.text("auto_pad", "NOTSET")
    wanted = call.attr("output_shape")
    if wanted is None and auto in {"NOTSET", "VALID"}:
        flat = call.attr("pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
        pads = [(flat[i], flat[i + rank]) for i in range(rank)]
        out = [f + e - a - b for f, e, (a, b) in zip(full, extra, pads, strict=True)]
        return pads, out
    if wanted is None:
        wanted = [n * s for n, s in zip(size, strides, strict=True)]
    wanted = list(wanted)[-rank:]
    total = [f + e - o for f, e, o in zip(full, extra, wanted, strict=True)]
    upper = auto == "SAME_UPPER"
    return _same_pads("SAME_UPPER" if upper else "SAME_LOWER", total), wanted


def conv_transpose(call: Call) -> Array:
    """Scatter every input pixel through the kernel, then cut the border away."""
    x, w, b = call.x[0], call.x[1], call.maybe(2)
    rank, groups = x.ndim - 2, call.attr("group", 1)
    dilations = call.attr("dilations", [1] * rank)
    strides = call.attr("strides", [1] * rank)
    span = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    pads, out = _transpose_geometry(call, list(x.shape[2:]), span)
    n, size = x.shape[0], x.shape[2:]
    per_group = w.shape[1]
    reach = [
        max(s * (m - 1) + k, before + o)
        for s, m, k, (before, _), o in zip(strides, size, span, pads, out, strict=True)
    ]
    y = np.zeros((n, groups, per_group, *reach))
    xg = x.reshape(n, groups, -1, *size)
    wg = w.reshape(groups, -1, per_group, *w.shape[2:])
    for tap in np.ndindex(*w.shape[2:]):
        place = tuple(
            slice(t * d, t * d + (m - 1) * s + 1, s)
            for t, d, m, s in zip(tap, dilations, size, strides, strict=True)
        )
        part = np.einsum("ngi...,gio->ngo...", xg, wg[(..., *tap)])
        y[(slice(None), slice(None), slice(None), *place)] += part
    cut = tuple(slice(before, before + o) for (before, _), o in zip(pads, out, strict=True))
    y = y.reshape(n, groups * per_group, *reach)[(slice(None), slice(None), *cut)]
    return y if b is None else y + b.reshape(-1, *[1] * rank)


# ------------------------------------------------------------------------- the kernels


def _by_batch(call: Call) -> bool:
    if call.opset >= 14:
        return bool(call.attr("training_mode", 0))
    if call.opset < 7 and not call.attr("is_test", 0):
        return True
    return any(name and name in call.read for name in call.node.output[1:])


def batch_norm(call: Call) -> Any:
    """y = scale·(x - mean)/√(var + eps) + bias, by stored or by batch statistics."""
    x, scale, bias, mean, var = call.x
    eps = call.attr("epsilon", float(np.float32(1e-5)))
    shape = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    if call.opset < 9 and not call.attr("spatial", 1):
        return scale * (x - mean) / np.sqrt(var + eps) + bias
    running: list[Array] = []
    if _by_batch(call):
        axes = tuple(i for i in range(x.ndim) if i != 1)
        momentum = call.attr("momentum", float(np.float32(0.9)))
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        running = [
            mean * momentum + batch_mean * (1 - momentum),
            var * momentum + batch_var * (1 - momentum),
        ]
        mean, var = batch_mean, batch_var
    scale, bias, mean, var = (v.reshape(shape) for v in (scale, bias, mean, var))
    y = scale * (x - mean) / np.sqrt(var + eps) + bias
    return (y, *running, *running)[: len(call.node.output)] if running else y


def gemm(call: Call) -> Array:
    """alpha·A'·B' + beta·C."""
    a, b, c = call.x[0], call.x[1], call.maybe(2)
    a = a.T if call.attr("transA", 0) else a
    b = b.T if call.attr("transB", 0) else b
    y = call.attr("alpha", 1.0) * (a @ b)
    return y if c is None else y + call.attr("beta", 1.0) * c


def cast(call: Call) -> Array:
    to = call.attr("to")
    if to in FLOAT_TYPES:
        return np.asarray(call.x[0], np.float64)
    return np.asarray(call.x[0]).astype(helper.tensor_dtype_to_np_dtype(to))


def cast_like(call: Call) -> Array:
    return np.asarray(call.x[0]).astype(np.asarray(call.x[1]).dtype)


def constant(call: Call) -> Array:
    if (sparse := call.attr("sparse_value")) is not None:
        return dense(sparse)
    if (tensor := call.attr("value")) is not None:
        return widen(numpy_helper.to_array(tensor))
    for name, kind in (("value_float", np.float64), ("value_floats", np.float64)):
        if (found := call.attr(name)) is not None:
            return np.asarray(found, kind)
    for name in ("value_int", "value_ints"):
        if (found := call.attr(name)) is not None:
            return np.asarray(found, np.int64)
    raise NotImplementedError(call.node)


def dropout(call: Call) -> Any:
    mask = np.ones(call.x[0].shape, bool)
    return (call.x[0], mask)[: len(call.node.output)]


def operands(call: Call) -> tuple[Array, Array]:
    """Both operands; before opset 7 the second one is laid along ``axis`` of the first."""
    a, b = call.x
    axis = call.attr("axis")
    if call.opset < 7 and call.attr("broadcast", 0) and axis is not None:
        b = b.reshape(*b.shape, *[1] * (a.ndim - axis - b.ndim))
    return a, b


def divide(call: Call) -> Array:
    a, b = operands(call)
    if a.dtype.kind in "iu":
        return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return a / b


def flatten(call: Call) -> Array:
    x, axis = call.x[0], call.attr("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), -1)


def reshape(call: Call) -> Array:
    x, shape = call.x
    if not call.attr("allowzero", 0):
        shape = [x.shape[i] if d == 0 else int(d) for i, d in enumerate(shape)]
    return x.reshape([int(d) for d in shape])


def dequantize(call: Call) -> Array:
    """(x - zero point) · scale, per tensor or along ``axis``."""
    x, scale, zero = call.x[0], call.x[1], call.maybe(2)
    if block := call.attr("block_size", 0):
        scale = scale.repeat(block, call.attr("axis", 1))
        return x.astype(np.float64) * scale
    shape = [1] * x.ndim
    if scale.ndim:
        shape[call.attr("axis", 1)] = -1
    wide = x.astype(np.float64)
    wide = wide if zero is None else wide - zero.astype(np.float64).reshape(shape)
    return wide * scale.reshape(shape)


def _axes(call: Call) -> list[int] | None:
    axes = call.attr("axes") if call.opset < 13 else call.maybe(1)
    return None if axes is None else [int(a) for a in np.atleast_1d(axes)]


def squeeze(call: Call) -> Array:
    axes = _axes(call)
    return np.squeeze(call.x[0], None if axes is None else tuple(axes))


def unsqueeze(call: Call) -> Array:
    return np.expand_dims(call.x[0], tuple(_axes(call) or ()))


def prelu(call: Call) -> Array:
    return np.where(call.x[0] < 0, call.x[0] * call.x[1], call.x[0])


def gelu(call: Call) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * call.x[0] * (1 + erf(call.x[0] / math.sqrt(2)))


def layer_norm(call: Call) -> Array:
    x, scale, bias = call.x[0], call.x[1], call.maybe(2)
    axis = call.attr("axis", -1)
    axes = tuple(range(axis + x.ndim if axis < 0 else axis, x.ndim))
    eps = call.attr("epsilon", float(np.float32(1e-5)))
    mean = x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(x.var(axes, keepdims=True) + eps)
    y = (x - mean) * inverse * scale
    y = y if bias is None else y + bias
    return (y, mean, inverse)[: len(call.node.output)]


def rms_norm(call: Call) -> Array:
    """scale · x / √(mean(x²) + epsilon) over the axes from ``axis`` on (version 23)."""
    x, scale = call.x
    axes = tuple(range(call.attr("axis", -1) % x.ndim, x.ndim))
    eps = call.attr("epsilon", float(np.float32(1e-5)))
    return x / np.sqrt((x**2).mean(axes, keepdims=True) + eps) * scale


def mean_variance_norm(call: Call) -> Array:
    x, axes = call.x[0], tuple(call.attr("axes", [0, 2, 3]))
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / (np.sqrt((x**2).mean(axes, keepdims=True) - mean**2) + 1e-9)


def group_norm(call: Call) -> Array:
    """Scale and bias per group (version 18) or per channel (version 21)."""
    x, scale, bias = call.x
    groups = call.attr("num_groups")
    eps = call.attr("epsilon", float(np.float32(1e-5)))
    parts = x.reshape(x.shape[0], groups, -1)
    y = parts - parts.mean(2, keepdims=True)
    y = (y / np.sqrt(parts.var(2, keepdims=True) + eps)).reshape(x.shape)
    if call.opset < 21:
        each = x.shape[1] // groups
        scale, bias = np.repeat(scale, each), np.repeat(bias, each)
    shape = (-1, *[1] * (x.ndim - 2))
    return y * scale.reshape(shape) + bias.reshape(shape)


def instance_norm(call: Call) -> Array:
    x, scale, bias = call.x
    axes, shape = tuple(range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    eps = call.attr("epsilon", float(np.float32(1e-5)))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return y * scale.reshape(shape) + bias.reshape(shape)


def max_pool(call: Call) -> Any:
    """The largest element of every window; what is padded is never the largest."""
    x, kernel = call.x[0], call.attr("kernel_shape")
    if len(call.node.output) > 1:
        return _by_onnx(call)
    rank = len(kernel)
    dilations = call.attr("dilations", [1] * rank)
    strides = call.attr("strides", [1] * rank)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(call, list(x.shape[2:]), span)
    sizes = [n + sum(p) - s for n, p, s in zip(x.shape[2:], pads, span, strict=True)]
    if call.attr("ceil_mode", 0):
        # a window that would start in the padding at the end does not count
        last = [
            min(-(-size // step), (n + low - 1) // step)
            for size, step, n, (low, _) in zip(sizes, strides, x.shape[2:], pads, strict=True)
        ]
    else:
        last = [size // step for size, step in zip(sizes, strides, strict=True)]
    extra = [
        max(0, count * step - size)
        for count, step, size in zip(last, strides, sizes, strict=True)
    ]
    wide = [(low, high + more) for (low, high), more in zip(pads, extra, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *wide], constant_values=-np.inf)
    windows = sliding_window_view(padded, span, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations]
    windows = windows[(slice(None), slice(None), *steps)]
    counts = tuple(slice(0, count + 1) for count in last)
    return windows[(slice(None), slice(None), *counts)].max(
        tuple(range(2 + rank, 2 + 2 * rank))
    )


def hard_sigmoid(call: Call) -> Array:
    alpha, beta = (
        call.attr(k, float(np.float32(v))) for k, v in (("alpha", 0.2), ("beta", 0.5))
    )
    return np.clip(alpha * call.x[0] + beta, 0, 1)


def softmax(call: Call) -> Array:
    """Before opset 13 all axes from ``axis`` on are normalised together."""
    x = call.x[0]
    first = call.attr("axis", -1 if call.opset >= 13 else 1) % x.ndim
    axes = (first,) if call.opset >= 13 else tuple(range(first, x.ndim))
    y = x - x.max(axes, keepdims=True)
    y = y - np.log(np.exp(y).sum(axes, keepdims=True))
    return y if call.node.op_type == "LogSoftmax" else np.exp(y)


def total(call: Call) -> Array:
    """The sum of all operands, or their mean; onnx.reference does not broadcast a mean."""
    y = sum(call.x)
    return y / len(call.x) if call.node.op_type == "Mean" else y


KERNELS: dict[str, Kernel] = {
    "Sum": total,
    "Mean": total,
    "MaxPool": max_pool,  # onnx.reference is wrong for asymmetric pads
    "HardSigmoid": hard_sigmoid,
    "HardSwish": lambda c: c.x[0] * np.clip(c.x[0] / 6 + 0.5, 0, 1),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "LeakyRelu": lambda c: np.where(
        c.x[0] < 0, c.x[0] * c.attr("alpha", float(np.float32(0.01))), c.x[0]
    ),
    "Add": lambda c: np.add(*operands(c)),
    "Sub": lambda c: np.subtract(*operands(c)),
    # onnx.reference pools axes 1 and 2 of [N, C, L]
    "GlobalMaxPool": lambda c: c.x[0].max(tuple(range(2, c.x[0].ndim)), keepdims=True),
    "GlobalAveragePool": lambda c: c.x[0].mean(tuple(range(2, c.x[0].ndim)), keepdims=True),
    "Mul": lambda c: np.multiply(*operands(c)),
    "Div": divide,
    "Neg": lambda c: -c.x[0],
    "Sqrt": lambda c: np.sqrt(c.x[0]),
    "Relu": lambda c: np.maximum(c.x[0], 0),
    "Sigmoid": lambda c: 1 / (1 + np.exp(-c.x[0])),
    "Tanh": lambda c: np.tanh(c.x[0]),
    "Identity": lambda c: c.x[0],
    "Dropout": dropout,
    "MatMul": lambda c: np.matmul(c.x[0], c.x[1]),
    "Transpose": lambda c: np.transpose(c.x[0], c.attr("perm")),
    "Concat": lambda c: np.concatenate(c.x, c.attr("axis", 1)),
    "Shape": lambda c: np.array(c.x[0].shape, np.int64)[c.attr("start", 0) : c.attr("end")],
    "PRelu": prelu,
    "Gelu": gelu,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "RMSNormalization": rms_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "GroupNormalization": group_norm,
    "BatchNormalization": batch_norm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "Cast": cast,
    "CastLike": cast_like,
    "Constant": constant,
    "DequantizeLinear": dequantize,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
}


@lru_cache(maxsize=512)
def _single(node_bytes: bytes, opset: int) -> ReferenceEvaluator:
    node = onnx.NodeProto.FromString(node_bytes)
    names = dict.fromkeys(name for name in node.input if name)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, None) for n in names],
        [helper.make_empty_tensor_value_info(n) for n in node.output if n],
    )
    return ReferenceEvaluator(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    )


def _by_onnx(call: Call) -> Any:
    session = _single(call.node.SerializeToString(), call.opset)
    feeds = {n: v for n, v in zip(call.node.input, call.x, strict=True) if n}
    given = iter(session.run(None, feeds))
    return tuple(next(given) if name else None for name in call.node.output)


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse tensor with linear or coordinate indices, written out."""
    out = np.zeros(list(sparse.dims), np.float64)
    places = numpy_helper.to_array(sparse.indices)
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), out.shape)
    out.reshape(-1)[flat] = widen(numpy_helper.to_array(sparse.values))
    return out


# -------------------------------------------------------------------------- the graphs


def _all_reads(graph: onnx.GraphProto) -> set[str]:
    read = {o.name for o in graph.output}
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                read |= _all_reads(attribute.g)
    return read


@dataclass(slots=True)
class _Evaluator:
    opsets: dict[str, int]
    functions: dict[tuple[str, str], onnx.FunctionProto] = field(default_factory=dict)
    extra: Mapping[tuple[str, str], Kernel] = field(default_factory=dict)

    def graph(self, graph: onnx.GraphProto, scope: dict[str, Any]) -> list[Any]:
        scope = dict(scope)
        given = {i.name for i in graph.input} & scope.keys()
        for tensor in graph.initializer:
            if tensor.name not in given:
                scope[tensor.name] = widen(numpy_helper.to_array(tensor))
        for sparse in graph.sparse_initializer:
            scope[sparse.values.name] = dense(sparse)
        self.nodes(list(graph.node), scope, frozenset(_all_reads(graph)))
        return [scope[o.name] for o in graph.output]

    def nodes(self, nodes: list[Any], scope: dict[str, Any], read: frozenset[str]) -> None:
        waiting = nodes
        while waiting:
            later = []
            for node in waiting:
                if all(n in scope for n in self._needs(node) if n):
                    self._run(node, scope, read)
                else:
                    later.append(node)
            if len(later) == len(waiting):
                raise ValueError(f"cannot be sorted: {[n.name for n in later]}")
            waiting = later

    def _needs(self, node: onnx.NodeProto) -> set[str]:
        needs = set(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                needs |= self._free(attribute.g)
        return needs

    def _free(self, graph: onnx.GraphProto) -> set[str]:
        """Names that a subgraph reads from outside."""
        own = {i.name for i in (*graph.input, *graph.initializer)}
        own |= {t.values.name for t in graph.sparse_initializer}
        own |= {name for node in graph.node for name in node.output}
        reads = {o.name for o in graph.output}
        for node in graph.node:
            reads |= self._needs(node)
        return reads - own

    def _run(self, node: onnx.NodeProto, scope: dict[str, Any], read: frozenset[str]) -> None:
        x = [scope[name] if name else None for name in node.input]
        domain = "" if node.domain == "ai.onnx" else node.domain
        call = Call(node, x, self.opsets.get(domain, 0), read)
        y = self._result(call, scope)
        y = y if isinstance(y, (tuple, list)) else (y,)
        for name, value in zip(node.output, y, strict=False):
            if name:
                scope[name] = widen(value)

    def _result(self, call: Call, scope: dict[str, Any]) -> Any:
        key = (call.node.domain, call.node.op_type)
        if key in self.extra:
            return self.extra[key](call)
        if key in self.functions:
            return self._function(call, self.functions[key])
        if call.node.op_type == "If":
            return self.graph(call.attr("then_branch" if call.x[0] else "else_branch"), scope)
        if call.node.op_type == "Loop":
            return self._loop(call, scope)
        if call.node.op_type == "Scan":
            return self._scan(call, scope)
        if call.node.domain not in STANDARD_DOMAINS | {"com.microsoft"}:
            raise NotImplementedError(key)
        return KERNELS.get(call.node.op_type, _by_onnx)(call)

    def _loop(self, call: Call, scope: dict[str, Any]) -> list[Any]:
        body = call.attr("body")
        limit, go, carried = call.x[0], call.x[1], call.x[2:]
        scans: list[list[Any]] = [[] for _ in body.output[1 + len(carried) :]]
        turn = 0
        while (limit is None or turn < int(limit)) and (go is None or bool(go)):
            names = [i.name for i in body.input]
            inner = scope | dict(zip(names, [np.int64(turn), go, *carried], strict=True))
            out = self.graph(body, inner)
            go, carried = out[0], out[1 : 1 + len(carried)]
            for store, value in zip(scans, out[1 + len(carried) :], strict=True):
                store.append(value)
            turn += 1
        return [*carried, *(np.stack(s) for s in scans)]

    def _scan(self, call: Call, scope: dict[str, Any]) -> list[Any]:
        """Scan-9 and later; forwards over the first axis of its inputs, the defaults."""
        body, count = call.attr("body"), call.attr("num_scan_inputs")
        carried, steps = call.x[: len(call.x) - count], call.x[len(call.x) - count :]
        stacks: list[list[Any]] = [[] for _ in body.output[len(carried) :]]
        names = [i.name for i in body.input]
        for turn in zip(*steps, strict=True):
            inner = scope | dict(zip(names, [*carried, *turn], strict=True))
            out = self.graph(body, inner)
            carried = out[: len(carried)]
            for store, value in zip(stacks, out[len(carried) :], strict=True):
                store.append(value)
        axes = call.attr("scan_output_axes", [0] * len(stacks))
        return [*carried, *(np.stack(s, axis=a) for s, a in zip(stacks, axes, strict=True))]

    def _function(self, call: Call, function: onnx.FunctionProto) -> list[Any]:
        given = {a.name: a for a in function.attribute_proto}
        given |= {a.name: a for a in call.node.attribute}
        nodes = [_bind(node, given) for node in function.node]
        scope = dict(zip(function.input, call.x, strict=False))
        inner = _Evaluator(
            {o.domain: o.version for o in function.opset_import}, self.functions, self.extra
        )
        inner.nodes(nodes, scope, frozenset(function.output))
        return [scope[name] for name in function.output]


def _bind(node: onnx.NodeProto, given: Mapping[str, Any]) -> onnx.NodeProto:
    bound = onnx.NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            bound.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            value = onnx.AttributeProto()
            value.CopyFrom(given[attribute.ref_attr_name])
            value.name = attribute.name
            bound.attribute.append(value)
    return bound


def run64(
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    extra: Mapping[tuple[str, str], Kernel] | None = None,
) -> dict[str, Array]:
    """Evaluate the model in float64; ``extra`` supplies kernels of foreign operators."""
    evaluator = _Evaluator(
        {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import},
        {(f.domain, f.name): f for f in model.functions},
        extra or {},
    )
    scope = {name: widen(value) for name, value in inputs.items()}
    values = evaluator.graph(model.graph, scope)
    return dict(zip((o.name for o in model.graph.output), values, strict=True))
