"""Every operator of the installed ONNX schemas that can compute a float tensor of constants.

One entry for an operator: what it reads, and its attributes, at an operator set. What computes
the expected numbers stands elsewhere; nothing here knows of the code under test.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.constant_layers import FLOAT, TABLE, Call, above_zero, entry, near_one, whole


@entry("Clip")
def _(opset):
    if opset < 11:
        return [Call("Clip", (near_one(3, 4),), {"min": -0.5, "max": 0.75})]
    return [
        Call("Clip", (near_one(3, 4), np.array(-0.5), np.array(0.75))),
        Call("Clip", (near_one(3, 4), None, np.array(0.75)), label="max"),
    ]


@entry("Pad")
def _(opset):
    calls = []
    for mode in ("constant", "reflect", "edge", "wrap"):
        if mode == "wrap" and opset < 19:
            continue
        words: dict[str, Any] = {"mode": mode}
        if opset < 11:
            words |= {"pads": [1, 0, 2, 1]}
            words |= {"value": 0.5} if mode == "constant" else {}
            inputs: tuple[Any, ...] = (near_one(4, 4),)
        else:
            inputs = (
                near_one(4, 4),
                whole(1, 0, 2, 1),
                *([np.array(0.5)] * (mode == "constant")),
            )
        calls.append(Call("Pad", inputs, words, label=mode))
    calls.append(
        Call("Pad", (near_one(4, 4),), {"pads": [0, -1, 1, 0]}, label="cut")
        if opset < 11
        else Call("Pad", (near_one(4, 4), whole(0, -1, 1, 0)), label="cut")
    )
    if opset >= 18:
        calls.append(
            Call("Pad", (near_one(4, 4), whole(1, 2), np.array(0.5), whole(-1)), label="axes")
        )
    return calls


@entry("Slice")
def _(opset):
    if opset < 10:
        return [Call("Slice", (near_one(4, 5),), {"starts": [1], "ends": [4], "axes": [1]})]
    return [Call("Slice", (near_one(4, 5), whole(-1), whole(-9), whole(1), whole(-2)))]


@entry("Squeeze")
def _(opset):
    if opset < 13:
        return [Call("Squeeze", (near_one(3, 1, 2),), {"axes": [1]})]
    return [Call("Squeeze", (near_one(3, 1, 2), whole(1)))]


@entry("Unsqueeze")
def _(opset):
    if opset < 13:
        return [Call("Unsqueeze", (near_one(3, 2),), {"axes": [1]})]
    return [Call("Unsqueeze", (near_one(3, 2), whole(1)))]


@entry("Split")
def _(opset):
    if opset < 13:
        return [Call("Split", (near_one(4, 3),), {"axis": 0, "split": [1, 3]}, 1, 2)]
    return [Call("Split", (near_one(4, 3), whole(1, 3)), {"axis": 0}, 1, 2)]


TABLE |= {
    "Reshape": lambda _: [Call("Reshape", (near_one(3, 4), whole(2, -1)))],
    "Expand": lambda _: [Call("Expand", (near_one(3, 1), whole(2, 3, 4)))],
    "Tile": lambda _: [Call("Tile", (near_one(3, 2), whole(2, 1)))],
    "Concat": lambda _: [Call("Concat", (near_one(3, 2), near_one(3, 1)), {"axis": 1})],
    "Gather": lambda _: [Call("Gather", (near_one(4, 3), whole(2, 0, -1)))],
    "GatherElements": lambda _: [
        Call("GatherElements", (near_one(3, 2), np.array([[0, 2], [1, 0]])))
    ],
    "GatherND": lambda _: [Call("GatherND", (near_one(3, 2, 2), np.array([[0, 1], [2, 0]])))],
    "Scatter": lambda _: [
        Call("Scatter", (near_one(3, 2), np.array([[0, 2]]), near_one(1, 2) + 3))
    ],
    "ScatterElements": lambda o: [
        Call("ScatterElements", (near_one(3, 2), np.array([[0, 2]]), near_one(1, 2) + 3)),
        *([Call("ScatterElements", (near_one(3, 2), np.array([[0, 2]]), near_one(1, 2)),
                {"reduction": "add"}, label="add")] if o >= 16 else []),
    ],
    "ScatterND": lambda o: [
        Call("ScatterND", (near_one(3, 2), np.array([[1], [2]]), near_one(2, 2) + 3)),
        *([Call("ScatterND", (near_one(3, 2), np.array([[1], [1]]), near_one(2, 2)),
                {"reduction": "mul"}, label="mul")] if o >= 16 else []),
    ],
    "TensorScatter": lambda _: [
        Call("TensorScatter", (near_one(2, 4, 3), near_one(2, 2, 3) + 3, whole(1, 2)))
    ],
    "Compress": lambda _: [
        Call("Compress", (near_one(3, 2), np.array([True, False, True])), {"axis": 0})
    ],
    "ReverseSequence": lambda _: [
        Call("ReverseSequence", (near_one(4, 3), whole(1, 4, 2)),
             {"time_axis": 0, "batch_axis": 1})
    ],
    "CumSum": lambda _: [
        Call("CumSum", (near_one(3, 4), np.array(1))),
        Call("CumSum", (near_one(3, 4), np.array(0)), {"exclusive": 1, "reverse": 1},
             label="both"),
    ],
    "CumProd": lambda _: [Call("CumProd", (near_one(3, 4), np.array(1)))],
    "Trilu": lambda _: [Call("Trilu", (near_one(4, 4), np.array(1)), {"upper": 0})],
    "TopK": lambda o: [
        Call("TopK", (near_one(3, 5),), {"k": 2}, results=2) if o < 10
        else Call("TopK", (near_one(3, 5), whole(2)), results=2)
    ],
    "OneHot": lambda _: [
        Call("OneHot", (whole(0, 2, 1), np.array(4), np.array([0.25, 0.75])))
    ],
    "Unique": lambda _: [
        Call("Unique", (np.array([1.0, 0.5, 1.0, 2.0]),), {"sorted": 1}, results=1)
    ],
    "CastLike": lambda _: [
        Call("CastLike", (np.array([1, 3, 2], np.int32), near_one(1)))
    ],
    "Range": lambda _: [Call("Range", (np.array(1.0), np.array(3.0), np.array(0.5)))],
    "CenterCropPad": lambda _: [
        Call("CenterCropPad", (near_one(4, 6), whole(6, 3)))
    ],
    "Col2Im": lambda _: [
        Call("Col2Im", (near_one(1, 8, 4), whole(4, 4), whole(2, 2)), {"strides": [2, 2]})
    ],
    "GridSample": lambda _: [
        Call("GridSample", (near_one(1, 2, 4, 4), near_one(1, 2, 2, 2) / 2))
    ],
    "AffineGrid": lambda _: [
        Call("AffineGrid", (near_one(1, 2, 3), whole(1, 1, 2, 3)), {"align_corners": 1})
    ],
    "DeformConv": lambda _: [
        Call("DeformConv", (near_one(1, 2, 4, 4), near_one(2, 2, 3, 3),
                            near_one(1, 18, 2, 2) / 4))
    ],
    "DequantizeLinear": lambda o: [
        Call("DequantizeLinear", (np.arange(-6, 6, dtype=np.int8).reshape(3, 4), np.array(0.5),
                                  np.array(1, np.int8))),
        *([Call("DequantizeLinear", (np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
                                     above_zero(4)), label="axis")] if o >= 13 else []),
        *([Call("DequantizeLinear", (np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
                                     above_zero(3, 2)), {"axis": 1, "block_size": 2},
                label="blocks")] if o >= 21 else []),
    ],
    "DFT": lambda o: [
        Call("DFT", (near_one(1, 6, 1),), {"axis": 1}) if o < 20
        else Call("DFT", (near_one(1, 6, 1), None, np.array(1)))
    ],
    "STFT": lambda _: [
        Call("STFT", (near_one(1, 8, 1), np.array(2), None, np.array(4)))
    ],
    "LSTM": lambda _: [
        Call("LSTM", (near_one(3, 1, 2), near_one(1, 8, 2), near_one(1, 8, 2)),
             {"hidden_size": 2})
    ],
    "GRU": lambda _: [
        Call("GRU", (near_one(3, 1, 2), near_one(1, 6, 2), near_one(1, 6, 2)),
             {"hidden_size": 2})
    ],
    "RNN": lambda _: [
        Call("RNN", (near_one(3, 1, 2), near_one(1, 2, 2), near_one(1, 2, 2)),
             {"hidden_size": 2})
    ],
    "Attention": lambda _: [
        Call("Attention", (near_one(1, 2, 3, 4), near_one(1, 2, 3, 4), near_one(1, 2, 3, 4)))
    ],
    "RotaryEmbedding": lambda _: [
        Call("RotaryEmbedding", (near_one(1, 2, 3, 4), near_one(1, 3, 2), near_one(1, 3, 2)))
    ],
    "SwiGLU": lambda _: [Call("SwiGLU", (near_one(3, 4), near_one(3, 4)))],
    "NegativeLogLikelihoodLoss": lambda _: [
        Call("NegativeLogLikelihoodLoss", (near_one(3, 4), whole(0, 2, 3)),
             {"reduction": "none"})
    ],
    "SoftmaxCrossEntropyLoss": lambda _: [
        Call("SoftmaxCrossEntropyLoss", (near_one(3, 4), whole(0, 2, 3)),
             {"reduction": "none"})
    ],
    "LinearAttention": lambda _: [
        Call("LinearAttention", (near_one(1, 3, 4), near_one(1, 3, 4), near_one(1, 3, 4)),
             {"q_num_heads": 2, "kv_num_heads": 2}, results=2)
    ],
    "CausalConvWithState": lambda _: [
        Call("CausalConvWithState", (near_one(1, 2, 5), near_one(2, 1, 3)), results=2)
    ],
}  # fmt: skip


@entry("Resize")
def _(opset):
    data, out = near_one(1, 2, 3, 4), []
    if opset < 11:
        return [
            Call("Resize", (data, np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"})
        ]
    for mode in ("nearest", "linear", "cubic"):
        scales = np.array([1, 1, 2, 1.5], np.float32)
        out.append(Call("Resize", (data, None, scales), {"mode": mode}, label=mode))
    out.append(Call("Resize", (data, None, None, whole(1, 2, 5, 4)), {"mode": "linear"},
                    label="sizes"))  # fmt: skip
    return out


TABLE["Upsample"] = lambda o: [
    Call("Upsample", (near_one(1, 2, 3, 4),), {"scales": [1.0, 1.0, 2.0, 2.0]})
    if o < 9
    else Call("Upsample", (near_one(1, 2, 3, 4), np.array([1, 1, 2, 2], np.float32)))
]

_FLOATING = TensorProto.FLOAT
TABLE |= {
    "Cast": lambda _: [Call("Cast", (np.array([1, 3, -2], np.int32),), {"to": FLOAT})],
    "ConstantOfShape": lambda _: [Call("ConstantOfShape", (whole(2, 3),), {"value": FLOAT})],
    "HannWindow": lambda _: [Call("HannWindow", (np.array(8),), {"output_datatype": FLOAT})],
    "HammingWindow": lambda _: [
        Call("HammingWindow", (np.array(8),), {"output_datatype": FLOAT})
    ],
    "BlackmanWindow": lambda _: [
        Call("BlackmanWindow", (np.array(8),), {"output_datatype": FLOAT})
    ],
    "MelWeightMatrix": lambda _: [
        Call("MelWeightMatrix", (np.array(4), np.array(16), np.array(800),
                                 np.array(0.0, np.float32), np.array(400.0, np.float32)),
             {"output_datatype": FLOAT})
    ],
    "BitCast": lambda _: [
        Call("BitCast", (np.array([0x3F800000, 0x40400000], np.int32),), {"to": _FLOATING})
    ],
    "TfIdfVectorizer": lambda _: [
        Call("TfIdfVectorizer", (np.array([[1, 2, 1]], np.int64),),
             {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0,
              "ngram_counts": [0], "ngram_indexes": [0, 1], "pool_int64s": [1, 2],
              "weights": [0.5, 2.0]})
    ],
}  # fmt: skip

NOT_CALLED = {
    "Constant": "it is no operator on constants",
    "If": "a graph",
    "Loop": "a graph",
    "Scan": "a graph",
    "SequenceAt": "a sequence",
    "ConcatFromSequence": "a sequence",
    "OptionalGetElement": "an optional",
    "Bernoulli": "random",
    "RandomNormal": "random",
    "RandomNormalLike": "random",
    "RandomUniform": "random",
    "RandomUniformLike": "random",
    "DynamicQuantizeLinear": "its float is the scale of integers",
}
"""Operators that give floats and are not in the table, and why."""


def computing() -> set[str]:
    """Return the operators of the installed schemas that can give a float tensor."""
    found = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        types = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        gives = [types.get(one.type_str, [one.type_str]) for one in schema.outputs]
        if not schema.domain and any("tensor(float)" in one for one in gives):
            found.add(schema.name)
    return found


def opsets_of(op: str, oldest: int = 7) -> list[int]:
    """Return the operator sets to look at: the first and the last of every version."""
    history = onnx.defs.get_all_schemas_with_history()
    brought = sorted(s.since_version for s in history if (s.name, s.domain) == (op, ""))
    places = {*brought, *(b - 1 for b in brought[1:]), onnx.defs.onnx_opset_version()}
    later = {max(place, oldest) for place in places}
    return sorted(p for p in later if p >= brought[0] and _is_there(op, p))


def _is_there(op: str, opset: int) -> bool:
    return not onnx.defs.get_schema(op, opset, "").deprecated


NUMPY = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    TensorProto.DOUBLE: np.dtype(np.float64),
}


def constant_model(call: Call, opset: int, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a model whose one output is what an operator makes of initializers."""
    weights = []
    names = []
    for place, array in enumerate(call.inputs):
        names.append("" if array is None else f"k{place}")
        if array is not None:
            given = array.astype(NUMPY[kind]) if array.dtype == np.float64 else array
            weights.append(numpy_helper.from_array(np.asarray(given), f"k{place}"))
    node = helper.make_node(call.op, names, [], name="op", **_attributes(call, kind))
    node.output.extend(
        "w" if place == call.place else f"o{place}" for place in range(call.results)
    )
    result = helper.make_tensor_value_info("w", kind, None)
    graph = helper.make_graph([node], "constant", [], [result], weights)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version(opset))


def ir_version(opset: int) -> int:
    found = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    return max(4, min(found, 13))


def _attributes(call: Call, kind: int) -> dict[str, Any]:
    words = dict(call.attributes)
    for name, value in words.items():
        if value is FLOAT:
            one = helper.make_tensor("one", kind, [1], [0.5]) if name == "value" else kind
            words[name] = one
    return words


def scaled_model(
    call: Call, shape: tuple[int, ...], opset: int, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Return a model with that result as weight of a depthwise Conv, and an affine behind.

    Args:
        call: What computes the weight.
        shape: Of the result.
        opset: The operator set.
        kind: The type.
    """
    model = constant_model(call, opset, kind)
    graph = model.graph
    count = int(np.prod(shape))
    rng = np.random.default_rng(count)
    extra = {
        "shape": np.array([count, 1, 1, 1]),
        "gamma": rng.uniform(0.5, 1.5, (count, 1, 1)).astype(NUMPY[kind]),
        "beta": rng.normal(size=(count, 1, 1)).astype(NUMPY[kind]),
    }
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in extra.items())
    graph.node.extend(
        [
            helper.make_node("Reshape", ["w", "shape"], ["kernel"]),
            helper.make_node("Conv", ["x", "kernel"], ["c"], group=count, name="conv"),
            helper.make_node("Mul", ["c", "gamma"], ["m"], name="mul"),
            helper.make_node("Add", ["m", "beta"], ["y"], name="add"),
        ]
    )
    graph.input.append(helper.make_tensor_value_info("x", kind, ["N", count, 2, 2]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", kind, ["N", count, 2, 2]))
    return model
