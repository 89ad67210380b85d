"""A small seeded builder for the hand-built graphs of the battery."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]
Build = Callable[[], onnx.ModelProto]

TYPES: Final = {
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "fp32": (TensorProto.FLOAT, np.float32),
    "fp64": (TensorProto.DOUBLE, np.float64),
    "int64": (TensorProto.INT64, np.int64),
    "int32": (TensorProto.INT32, np.int32),
    "int8": (TensorProto.INT8, np.int8),
    "bool": (TensorProto.BOOL, np.bool_),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One graph and what a fold may leave of it.

    Attributes:
        name: Unique, ``theme/…``.
        build: Makes the model; the same bytes every time.
        sites_left: At most so many affine nodes may stay; None: not counted.
        note: Why, where it is not obvious.
        scope: ``issue2`` for what the direct rules must fold, ``issue3`` for what is only
            required not to be folded wrongly.
        foldable: Whether at least one affine node can go, exactly.
        untouched: Nothing may change: the graph stays equal byte for byte.
        ort: Whether ONNX Runtime may be handed the model inside this process.
    """

    name: str
    build: Build
    sites_left: int | None = None
    note: str = ""
    scope: str = "issue2"
    foldable: bool = True
    untouched: bool = False
    ort: bool = True


folds = Case
stays = partial(Case, foldable=False)


class Net:
    """Collects nodes and constants; ``model()`` closes the graph."""

    def __init__(
        self,
        seed: str,
        opset: int = 17,
        dtype: str = "fp32",
        *,
        ir: int | None = None,
        param: str | None = None,
        as_nodes: bool = False,
        prefix: str = "",
    ) -> None:
        self.rng = np.random.default_rng(zlib.crc32(seed.encode()))
        self.opset, self.dtype, self.ir = opset, dtype, ir
        self.param = param or dtype
        self.as_nodes = as_nodes
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.initializers: list[onnx.TensorProto] = []
        self.domains: dict[str, int] = {"": opset}
        self.functions: list[onnx.FunctionProto] = []
        self.shapes: dict[str, Shape] = {}
        self.prefix = prefix
        self._count = 0

    def fresh(self, stem: str) -> str:
        self._count += 1
        return f"{self.prefix}{stem}_{self._count}"

    # ------------------------------------------------------------------- values
    def input(self, shape: Shape | None, name: str = "x", dtype: str | None = None) -> str:
        kind = TYPES[dtype or self.dtype][0]
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def tensor(self, array: Any, name: str, dtype: str | None = None) -> onnx.TensorProto:
        kind = TYPES[dtype or self.dtype][1]
        return numpy_helper.from_array(np.asarray(array).astype(kind), name)

    def const(self, array: Any, name: str | None = None, dtype: str | None = None) -> str:
        name = name or self.fresh("k")
        tensor = self.tensor(array, name, dtype)
        if self.as_nodes:
            node = helper.make_node("Constant", [], [name], f"n_{name}", value=tensor)
            self.nodes.append(node)
        else:
            self.initializers.append(tensor)
        return name

    def ints(self, *values: int, name: str | None = None) -> str:
        return self.const(np.asarray(values, np.int64), name, "int64")

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str | None = None,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        return self.nodes_out(
            op, inputs, [output or self.fresh(op.lower())], domain, attributes
        )[0]

    def nodes_out(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        domain: str = "",
        attributes: dict[str, Any] | None = None,
    ) -> list[str]:
        if domain:
            self.domains.setdefault(domain, 1)
        name = self.fresh(f"node_{op}")
        self.nodes.append(
            helper.make_node(
                op, inputs, outputs, name, domain=domain or None, **(attributes or {})
            )
        )
        return list(outputs)

    def initializer_list(self) -> list[onnx.TensorProto]:
        return self.initializers

    def output(self, *names: str, shape: Shape | None = None) -> None:
        """Make values results; ``shape`` where inference does not find it."""
        self.outputs.extend(names)
        if shape is not None:
            self.shapes |= dict.fromkeys(names, shape)

    # ------------------------------------------------------------------- numbers
    def weight(self, *shape: int) -> np.ndarray:
        fan = max(int(np.prod(shape[1:])), 1)
        return self.rng.standard_normal(shape) / np.sqrt(fan)

    def scale(self, n: int) -> np.ndarray:
        sign = np.where(self.rng.random(n) < 0.4, -1.0, 1.0)
        return self.rng.uniform(0.3, 2.0, n) * sign

    def shift(self, n: int) -> np.ndarray:
        sign = np.where(self.rng.random(n) < 0.5, -1.0, 1.0)
        return self.rng.uniform(0.2, 1.5, n) * sign

    # ----------------------------------------------------------------- operators
    def conv(
        self,
        x: str,
        c_in: int,
        c_out: int,
        *,
        kernel: Sequence[int] = (3, 3),
        groups: int = 1,
        bias: bool | None = True,
        weight: str | None = None,
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """A Conv; ``bias=None`` writes the empty string."""
        w = weight or self.const(self.weight(c_out, c_in // groups, *kernel))
        inputs = [x, w]
        if bias:
            inputs.append(self.const(self.shift(c_out)))
        elif bias is None:
            inputs.append("")
        if groups != 1:
            attributes["group"] = groups
        return self.node("Conv", inputs, output, **attributes)

    def conv_transpose(
        self,
        x: str,
        c_in: int,
        c_out: int,
        *,
        kernel: Sequence[int] = (3, 3),
        groups: int = 1,
        bias: bool | None = True,
        **attributes: Any,
    ) -> str:
        inputs = [x, self.const(self.weight(c_in, c_out // groups, *kernel))]
        if bias:
            inputs.append(self.const(self.shift(c_out)))
        elif bias is None:
            inputs.append("")
        if groups != 1:
            attributes["group"] = groups
        return self.node("ConvTranspose", inputs, **attributes)

    def bn(
        self,
        x: str,
        c: int,
        *,
        output: str | None = None,
        outputs: Any = None,
        **attributes: Any,
    ) -> str:
        attributes.setdefault("epsilon", 1e-3)
        values = (
            self.scale(c),
            self.shift(c),
            self.shift(c),
            self.rng.uniform(0.3, 2.5, c),
        )
        params = [self.const(v, None, self.param) for v in values]
        outputs = outputs or [output or self.fresh("bn")]
        return self.nodes_out("BatchNormalization", [x, *params], outputs, "", attributes)[0]

    def mul(self, x: str, c: int, rank: int = 4, axis: int = 1) -> str:
        return self.node("Mul", [x, self.const(spread(self.scale(c), rank, axis))])

    def add(self, x: str, c: int, rank: int = 4, axis: int = 1) -> str:
        return self.node("Add", [x, self.const(spread(self.shift(c), rank, axis))])

    # --------------------------------------------------------------------- model
    def _result(self, name: str) -> onnx.ValueInfoProto:
        if name not in self.shapes:
            return onnx.ValueInfoProto(name=name)
        return helper.make_tensor_value_info(name, TYPES[self.dtype][0], self.shapes[name])

    def model(self, *, infer: bool = False) -> onnx.ModelProto:
        """Close the graph; ``infer`` keeps the inferred types of inner values."""
        graph = helper.make_graph(
            self.nodes,
            "battery",
            self.inputs,
            [self._result(name) for name in self.outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(
            graph, opset_imports=opsets, functions=self.functions, producer_name="battery"
        )
        model.ir_version = self.ir or max(4, helper.find_min_ir_version_for(opsets[:1]), 8)
        if self.ir is not None and self.ir < 4:
            listed = [
                helper.make_tensor_value_info(t.name, t.data_type, t.dims)
                for t in self.initializers
            ]
            model.graph.input.extend(listed)
        return typed(model, self.dtype, infer=infer)


def typed(model: onnx.ModelProto, dtype: str, *, infer: bool) -> onnx.ModelProto:
    """Give every output that has no type the inferred one."""
    known = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {v.name: v for v in [*known.graph.output, *known.graph.value_info]}
    for output in model.graph.output:
        if output.type.WhichOneof("value") is None:
            output.CopyFrom(found[output.name])
        if not output.type.tensor_type.elem_type:
            output.type.tensor_type.elem_type = TYPES[dtype][0]
    if infer:
        model.graph.value_info.extend(known.graph.value_info)
    return model


def spread(values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector as a constant that varies along ``axis`` of a value of that rank."""
    return values.reshape(-1, *[1] * (rank - axis - 1))


# ------------------------------------------------------------------- affine sources
# Each takes (net, value, channels, rank, axis) and appends its nodes.


def _bn(net: Net, x: str, c: int, _rank: int, _axis: int) -> str:
    return net.bn(x, c)


def _const(net: Net, kind: str, c: int, rank: int, axis: int) -> str:
    values = net.scale(c) if kind == "scale" else net.shift(c)
    return net.const(spread(values, rank, axis))


def _op(
    net: Net, x: str, c: int, rank: int, axis: int, *, op: str, kind: str, left: bool = False
) -> str:
    k = _const(net, kind, c, rank, axis)
    return net.node(op, [k, x] if left else [x, k])


def _one(
    net: Net,
    x: str,
    _c: int,
    _rank: int,
    _axis: int,
    *,
    op: str,
    value: float,
    left: bool = False,
) -> str:
    k = net.const(value)
    return net.node(op, [k, x] if left else [x, k])


def _neg(net: Net, x: str, _c: int, _rank: int, _axis: int) -> str:
    return net.node("Neg", [x])


def _full_rank(net: Net, x: str, c: int, rank: int, axis: int) -> str:
    shape = [1] * rank
    shape[axis] = c
    return net.node("Mul", [x, net.const(net.scale(c).reshape(shape))])


def _one_size(net: Net, x: str, _c: int, rank: int, _axis: int) -> str:
    k = net.const(np.full([1] * rank, -0.75))
    return net.node("Mul", [x, k])


def _chain(net: Net, x: str, c: int, rank: int, axis: int, *, parts: Sequence[str]) -> str:
    for part in parts:
        x = SOURCES[part](net, x, c, rank, axis)
    return x


def _spelled(net: Net, x: str, c: int, rank: int, axis: int) -> str:
    """(x - mean) / √(var + eps) · gamma + beta, the root computed by nodes."""
    var = net.const(spread(net.rng.uniform(0.3, 2.5, c), rank, axis))
    root = net.node("Sqrt", [net.node("Add", [var, net.const(1e-3)])])
    x = net.node("Sub", [x, _const(net, "shift", c, rank, axis)])
    x = net.node("Div", [x, root])
    x = net.node("Mul", [x, _const(net, "scale", c, rank, axis)])
    return net.node("Add", [x, _const(net, "shift", c, rank, axis)])


Source = Callable[[Net, str, int, int, int], str]
SOURCES: Final[dict[str, Source]] = {
    "bn": _bn,
    "mul": partial(_op, op="Mul", kind="scale"),
    "mul_left": partial(_op, op="Mul", kind="scale", left=True),
    "mul_full_rank": _full_rank,
    "mul_size_one": _one_size,
    "add": partial(_op, op="Add", kind="shift"),
    "add_left": partial(_op, op="Add", kind="shift", left=True),
    "sub": partial(_op, op="Sub", kind="shift"),
    "sub_left": partial(_op, op="Sub", kind="shift", left=True),
    "div": partial(_op, op="Div", kind="scale"),
    "neg": _neg,
    "scalar_mul": partial(_one, op="Mul", value=-1.7),
    "scalar_mul_left": partial(_one, op="Mul", value=0.6, left=True),
    "scalar_add": partial(_one, op="Add", value=0.8),
    "scalar_sub": partial(_one, op="Sub", value=0.9),
    "scalar_sub_left": partial(_one, op="Sub", value=0.9, left=True),
    "scalar_div": partial(_one, op="Div", value=3.0),
}
SOURCES |= {
    "mul_add": partial(_chain, parts=("mul", "add")),
    "add_mul": partial(_chain, parts=("add", "mul")),
    "sub_mul_add": partial(_chain, parts=("sub", "mul", "add")),
    "neg_add_div": partial(_chain, parts=("neg", "add", "div")),
    "sub_left_mul": partial(_chain, parts=("sub_left", "mul_left")),
    "scalar_mul_add": partial(_chain, parts=("scalar_mul", "scalar_add")),
    "bn_bn": partial(_chain, parts=("bn", "bn")),
    "bn_mul_add": partial(_chain, parts=("bn", "mul", "add")),
    "spelled": _spelled,
}
SCALE_ONLY: Final = frozenset(
    {
        "mul",
        "mul_left",
        "mul_full_rank",
        "mul_size_one",
        "div",
        "neg",
        "scalar_mul",
        "scalar_mul_left",
        "scalar_div",
    }
)
SEVERAL_NODES: Final = frozenset(
    {
        "mul_add",
        "add_mul",
        "sub_mul_add",
        "neg_add_div",
        "sub_left_mul",
        "scalar_mul_add",
        "bn_bn",
        "bn_mul_add",
        "spelled",
    }
)
BN_SOURCES: Final = frozenset({"bn", "bn_bn", "bn_mul_add"})
SCALAR: Final = frozenset(s for s in SOURCES if s.startswith("scalar")) | {
    "neg",
    "mul_size_one",
}


def apply(net: Net, source: str, x: str, c: int, rank: int = 4, axis: int = 1) -> str:
    return SOURCES[source](net, x, c, rank, axis)


def first_conv(seed: str, opset: int = 17, dtype: str = "fp32", **kwargs) -> tuple[Net, str]:
    """A net with Conv(x) of C channels: [N, 4, 7, 6] → [N, 6, 5, 4]."""
    net = Net(seed, opset, dtype, **kwargs)
    return net, net.conv(net.input(["N", 4, 7, 6]), 4, 6, output="conv_out")
