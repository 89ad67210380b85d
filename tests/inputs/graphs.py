"""Small graphs whose inputs leave sizes or meanings open."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.inputs.hints import with_hints
from bnfold.inputs.signature import inputs_of

N = helper.make_node
F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model(nodes, constants, inputs, outputs, opset=18, functions=()):
    """Inputs are (name, shape) or (name, shape, type); outputs are names without a shape."""
    infos = [
        helper.make_tensor_value_info(name, *(kind or (F,)), shape)
        for name, shape, *kind in inputs
    ]
    named = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    results = [helper.make_tensor_value_info(name, F, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", infos, results, named)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(one.domain, 1) for one in functions]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=8, functions=list(functions)
    )


def hints(proto):
    """The inputs with hints, by name."""
    read = ir.from_proto(proto)
    return {slot.name: slot for slot in with_hints(inputs_of(read), read)}


def run(proto, arrays):
    """What ONNX Runtime computes."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, arrays)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def branch(kind, source, name):
    """A subgraph of one node that reads an outer value."""
    result = helper.make_tensor_value_info(name, F, None)
    return helper.make_graph([N(kind, [source], [name])], name, [], [result])


def bert_like(low=-3.4028234663852886e38, kind=I64, hidden=8, vocabulary=90, positions=40):
    """Ids, token types and a mask as BERT exports have them; positions are sliced."""
    f = {name: floats(hidden, hidden, seed=i) for i, name in enumerate("qkvo")}
    constants = {
        **f,
        "words": floats(vocabulary, hidden, seed=7),
        "types": floats(2, hidden, seed=8),
        "places": floats(positions, hidden, seed=9),
        "s": np.ones(hidden, np.float32),
        "b": np.zeros(hidden, np.float32),
        "one": np.float32(1),
        "low": np.float32(low),
        "axes": np.array([1, 2]),
        "root": np.float32(hidden**0.5),
    }
    nodes = [
        N("Gather", ["words", "input_ids"], ["e0"]),
        N("Gather", ["types", "token_type_ids"], ["e1"]),
        N("Gather", ["places", "position_ids"], ["e2"]),
        N("Add", ["e0", "e1"], ["e3"]),
        N("Add", ["e3", "e2"], ["e4"]),
        N("LayerNormalization", ["e4", "s", "b"], ["x"]),
        N("Unsqueeze", ["attention_mask", "axes"], ["m0"]),
        N("Cast", ["m0"], ["m1"], to=F),
        N("Sub", ["one", "m1"], ["m2"]),
        N("Mul", ["m2", "low"], ["m3"]),
        *(N("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"),
        *(N("Unsqueeze", [f"x{name}", "one_axis"], [f"h{name}"]) for name in "qkv"),
        N("Transpose", ["hk"], ["ht"], perm=[0, 1, 3, 2]),
        N("MatMul", ["hq", "ht"], ["z0"]),
        N("Div", ["z0", "root"], ["z1"]),
        N("Add", ["z1", "m3"], ["z2"]),
        N("Softmax", ["z2"], ["p"], axis=-1),
        N("MatMul", ["p", "hv"], ["c0"]),
        N("Squeeze", ["c0", "one_axis"], ["c1"]),
        N("MatMul", ["c1", "o"], ["y"]),
    ]
    constants["one_axis"] = np.array([1])
    names = ("input_ids", "token_type_ids", "position_ids")
    inputs = [(name, ["b", "t"], I64) for name in names]
    inputs.append(("attention_mask", ["b", "t"], kind))
    return model(nodes, constants, inputs, ["y"])


def save(proto, path):
    onnx.save(proto, path)
    return path
