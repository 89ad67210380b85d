"""Models whose weights, indices and branches are computed of constants, by drawn operators.

Every chain is computed beside in numpy, in the element type itself: numpy rounds after every
operation, as ONNX asks for, and knows nothing of the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "float32": (TensorProto.FLOAT, np.dtype(np.float32)),
    "float16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
    "float64": (TensorProto.DOUBLE, np.dtype(np.float64)),
}
SMOOTH = ["Mul", "Div", "Add", "Sub", "Sqrt", "Neg", "Max"]
STEPS = ["Floor", "Ceil", "Round", "Sign", "Mod", "int", "half", "Where"]
CURVES = ["Exp", "Tanh", "Sigmoid", "ReduceMean"]
NUMBERS = [0.1, 0.7, 0.3, 3.0, 1.1, 0.05, 7.0, 10.0, 0.9, 2.5, 1 / 3, 100.0]


@dataclass
class Chain:
    """Constants on their way; ``array`` is what the graph's own type gives."""

    kind: str
    array: np.ndarray
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    name: str = ""

    @classmethod
    def begin(cls, kind: str, numbers) -> Chain:
        chain = cls(kind, np.asarray(numbers).astype(TYPES[kind][1]))
        chain.name = chain.constant(chain.array)
        return chain

    @property
    def dtype(self) -> np.dtype:
        return TYPES[self.kind][1]

    def constant(self, array) -> str:
        name = f"k{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes) -> str:
        self.nodes.append(
            helper.make_node(op, list(inputs), [f"v{len(self.nodes)}"], **attributes)
        )
        return self.nodes[-1].output[0]

    def then(self, op: str, number: float) -> Chain:
        """Append one operator; ``number`` is its second operand, if it has one."""
        other = np.asarray(number).astype(self.dtype)
        with np.errstate(all="ignore"):
            self.array = getattr(self, f"_{op.lower()}")(op, other).astype(self.dtype)
        return self

    def _plain(self, op, other):
        self.name = self.node(op, self.name, self.constant(other))
        function = {
            "Mul": np.multiply,
            "Div": np.divide,
            "Add": np.add,
            "Sub": np.subtract,
            "Max": np.maximum,
        }[op]
        return function(self.array, other)

    _mul = _div = _add = _sub = _max = _plain

    def _alone(self, op, _other):
        self.name = self.node(op, self.name)
        function = {
            "Neg": np.negative,
            "Floor": np.floor,
            "Ceil": np.ceil,
            "Round": np.rint,
            "Sign": np.sign,
            "Exp": np.exp,
            "Tanh": np.tanh,
            "Sigmoid": lambda x: 1 / (1 + np.exp(-x.astype(float))),
        }[op]
        return np.asarray(function(self.array))

    _neg = _floor = _ceil = _round = _sign = _exp = _tanh = _sigmoid = _alone

    def _sqrt(self, _op, _other):
        self.name = self.node("Sqrt", self.node("Abs", self.name))
        return np.sqrt(np.abs(self.array))

    def _mod(self, _op, other):
        self.name = self.node("Mod", self.name, self.constant(other), fmod=1)
        return np.fmod(self.array, other)

    def _int(self, _op, _other):
        whole = self.node("Cast", self.name, to=TensorProto.INT32)
        self.name = self.node("Cast", whole, to=TYPES[self.kind][0])
        return self.array.astype(np.int32)

    def _half(self, _op, _other):
        """There and back to a narrower type."""
        half = self.node("Cast", self.name, to=TensorProto.FLOAT16)
        self.name = self.node("Cast", half, to=TYPES[self.kind][0])
        return self.array.astype(np.float32 if self.kind == "bfloat16" else self.dtype).astype(
            np.float16
        )

    def _where(self, _op, other):
        """The number itself, or its sum with another, depending on a comparison."""
        more = self.node("GreaterOrEqual", self.name, self.constant(other))
        added = self.node("Add", self.name, self.constant(other))
        self.name = self.node("Where", more, self.name, added)
        return np.where(self.array >= other, self.array, self.array + other)

    def _reducemean(self, _op, _other):
        mean = self.node("ReduceMean", self.name, axes=[0], keepdims=1)
        self.name = self.node("Add", self.name, mean)
        return self.array + self.array.astype(np.float64).mean().astype(self.dtype)

    # ------------------------------------------------------------------------- what reads it

    def _model(self, nodes, shape_in, shape_out) -> onnx.ModelProto:
        element = TYPES[self.kind][0]
        graph = helper.make_graph(
            [*self.nodes, *nodes],
            "chain",
            [helper.make_tensor_value_info("x", element, shape_in)],
            [helper.make_tensor_value_info("y", element, shape_out)],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )

    def _norm(self, data: str, channels: int) -> onnx.NodeProto:
        rng = np.random.default_rng(channels)
        numbers = [rng.uniform(0.5, 1.5, channels) for _ in range(4)]
        names = [self.constant(n.astype(self.dtype)) for n in numbers]
        return helper.make_node("BatchNormalization", [data, *names], ["y"], name="bn")

    def weight(self) -> onnx.ModelProto:
        """The chain is the weight of a depthwise Conv, one number for each channel."""
        count = self.array.size
        shape = self.constant(np.array([count, 1, 1, 1]))
        weight = helper.make_node("Reshape", [self.name, shape], ["w"])
        conv = helper.make_node("Conv", ["x", "w"], ["c"], group=count, name="conv")
        return self._model([weight, conv, self._norm("c", count)], *[["N", count, 2, 2]] * 2)

    def index(self, rows: int = 64) -> onnx.ModelProto:
        """The chain, cut to whole numbers, says which rows of a table are the weight."""
        count = self.array.size
        self.name = self.node("Cast", self.name, to=TensorProto.INT64)
        rng = np.random.default_rng(rows)
        table = self.constant(rng.normal(size=(rows, 2, 1, 1)).astype(self.dtype))
        picked = helper.make_node("Gather", [table, self.name], ["w"], axis=0)
        conv = helper.make_node("Conv", ["x", "w"], ["c"], name="conv")
        last = self._norm("c", count)
        return self._model([picked, conv, last], ["N", 2, 2, 2], ["N", count, 2, 2])

    def branch(self, limit: float) -> onnx.ModelProto:
        """The first number decides which branch an If takes."""
        first = self.node("Gather", self.name, self.constant(np.array(0)), axis=0)
        bound = self.constant(np.asarray(limit).astype(self.dtype))
        taken = self.node("GreaterOrEqual", first, bound)
        shape = [None] * 4
        branches = {
            f"{side}_branch": helper.make_graph(
                [helper.make_node(op, ["x"], [side])],
                side,
                [],
                [helper.make_tensor_value_info(side, TYPES[self.kind][0], shape)],
            )
            for side, op in (("then", "Relu"), ("else", "Neg"))
        }
        rng = np.random.default_rng(7)
        weight = self.constant(rng.normal(size=(3, 2, 1, 1)).astype(self.dtype))
        nodes = [
            helper.make_node("If", [taken], ["u"], **branches),
            helper.make_node("Conv", ["u", weight], ["c"], name="conv"),
            self._norm("c", 3),
        ]
        return self._model(nodes, ["N", 2, 2, 2], ["N", 3, 2, 2])
