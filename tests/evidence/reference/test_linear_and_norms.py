"""Fixed cases of linear operators, norms and casts against torch in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.evidence.reference.nodes import evaluate_all
from tests.reference64 import run64

torch = pytest.importorskip("torch")
F = torch.nn.functional


def one_node(op, arrays, opset=17, outputs=1, **attributes):
    found = evaluate_all(op, arrays, opset, outputs, **attributes)
    return {f"o{k}": array for k, array in enumerate(found)}


def draw(rng, *shape):
    return rng.standard_normal(shape)


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv(rng, rank, groups, stride, dilation):
    x = draw(rng, 2, 4, *[9, 7, 8][:rank])
    w = draw(rng, 8, 4 // groups, *[3, 2, 3][:rank])
    b = draw(rng, 8)
    got = one_node(
        "Conv",
        [x, w, b],
        group=groups,
        strides=[stride] * rank,
        dilations=[dilation] * rank,
        pads=[1] * (2 * rank),
    )["o0"]
    run = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
    same(
        got,
        run(
            *map(torch.from_numpy, (x, w, b)),
            stride=stride,
            padding=1,
            dilation=dilation,
            groups=groups,
        ),
    )


def test_conv_with_uneven_pads(rng):
    x, w = draw(rng, 2, 3, 7, 6), draw(rng, 5, 3, 3, 2)
    got = one_node("Conv", [x, w, None], pads=[2, 0, 1, 1])["o0"]
    padded = F.pad(torch.from_numpy(x), (0, 1, 2, 1))
    same(got, F.conv2d(padded, torch.from_numpy(w)))


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("size", [7, 8])
def test_conv_same_upper_and_lower(rng, kernel, size):
    x, w = draw(rng, 1, 2, size), draw(rng, 3, 2, kernel)
    total = max((-(-size // 2) - 1) * 2 + kernel - size, 0)
    small, big = total // 2, total - total // 2
    for auto, pads in (("SAME_UPPER", (small, big)), ("SAME_LOWER", (big, small))):
        got = one_node("Conv", [x, w], auto_pad=auto, strides=[2])["o0"]
        same(got, F.conv1d(F.pad(torch.from_numpy(x), pads), torch.from_numpy(w), stride=2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "extra"), [(1, 0), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_conv_transpose(rng, rank, groups, stride, extra, dilation):
    x = draw(rng, 2, 4, *[5, 4, 3][:rank])
    w = draw(rng, 4, 6 // 2, *[3, 2, 3][:rank])
    b = draw(rng, 3 * groups)
    got = one_node(
        "ConvTranspose",
        [x, w, b],
        group=groups,
        strides=[stride] * rank,
        dilations=[dilation] * rank,
        pads=[1] * (2 * rank),
        output_padding=[extra] * rank,
    )["o0"]
    run = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
    x, w, b = map(torch.from_numpy, (x, w, b))
    same(got, run(x, w, b, stride, 1, extra, groups, dilation))


def test_conv_transpose_with_output_shape(rng):
    x, w = draw(rng, 2, 3, 5, 5), draw(rng, 3, 2, 4, 4)
    got = one_node("ConvTranspose", [x, w], strides=[2, 2], output_shape=[10, 10])["o0"]
    same(
        got, F.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(w), stride=2, padding=1)
    )


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 22])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
def test_batch_norm(rng, opset, shape):
    x = draw(rng, *shape)
    scale, bias, mean = draw(rng, 3), draw(rng, 3), draw(rng, 3)
    var = np.abs(draw(rng, 3)) + 0.1
    got = one_node("BatchNormalization", [x, scale, bias, mean, var], opset, epsilon=0.25)[
        "o0"
    ]
    x, scale, bias, mean, var = map(torch.from_numpy, (x, scale, bias, mean, var))
    same(got, F.batch_norm(x, mean, var, scale, bias, eps=0.25))


def test_batch_norm_in_training_mode(rng):
    x, scale, bias = draw(rng, 4, 3, 5), draw(rng, 3), draw(rng, 3)
    mean, var = draw(rng, 3), np.abs(draw(rng, 3))
    got = one_node(
        "BatchNormalization",
        [x, scale, bias, mean, var],
        15,
        3,
        epsilon=0.5,
        momentum=0.75,
        training_mode=1,
    )
    batch_mean, batch_var = x.mean((0, 2)), x.var((0, 2))
    x, scale, bias = map(torch.from_numpy, (x, scale, bias))
    same(got["o0"], F.batch_norm(x, None, None, scale, bias, training=True, eps=0.5))
    np.testing.assert_allclose(got["o1"], mean * 0.75 + batch_mean * 0.25)
    np.testing.assert_allclose(got["o2"], var * 0.75 + batch_var * 0.25)


def test_batch_norm_per_element_at_opset_7(rng):
    x = draw(rng, 2, 3, 4)
    scale, bias, mean = draw(rng, 3, 4), draw(rng, 3, 4), draw(rng, 3, 4)
    var = np.abs(draw(rng, 3, 4))
    got = one_node("BatchNormalization", [x, scale, bias, mean, var], 7, spatial=0)["o0"]
    eps = float(np.float32(1e-5))
    np.testing.assert_allclose(got, scale * (x - mean) / np.sqrt(var + eps) + bias)


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c_shape", [None, (), (5,), (1, 5), (4, 5), (4, 1)])
def test_gemm(rng, trans_a, trans_b, c_shape):
    a = draw(rng, *((3, 4) if trans_a else (4, 3)))
    b = draw(rng, *((5, 3) if trans_b else (3, 5)))
    c = None if c_shape is None else np.asarray(draw(rng, *c_shape))
    arrays = [a, b] if c is None else [a, b, c]
    got = one_node("Gemm", arrays, transA=trans_a, transB=trans_b, alpha=0.5, beta=-1.5)["o0"]
    at, bt = torch.from_numpy(a), torch.from_numpy(b)
    wanted = 0.5 * (at.T if trans_a else at) @ (bt.T if trans_b else bt)
    same(got, wanted if c is None else wanted - 1.5 * torch.from_numpy(c))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 5, 3), (3, 4)),
        ((2, 5, 3), (2, 3, 4)),
    ],
)
def test_matmul(rng, left, right):
    a, b = draw(rng, *left), draw(rng, *right)
    got = one_node("MatMul", [a, b])["o0"]
    same(got, torch.matmul(torch.from_numpy(a), torch.from_numpy(b)))


def test_float_casts_keep_the_value_and_integer_casts_cut():
    x = np.array([1.00001, 2.7])
    for to in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT):
        np.testing.assert_array_equal(one_node("Cast", [x], to=to)["o0"], x)
    np.testing.assert_array_equal(one_node("Cast", [x], to=TensorProto.INT64)["o0"], [1, 2])


def test_unsorted_graphs_functions_and_loops_run():
    text = """
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    agraph (float[N] x) => (float[N] y, float[T, N] rows)
    <int64 three = {3}> {
        y, rows = Loop <body = body (int64 i, bool go, float[N] acc)
            => (bool go_on, float[N] more, float[N] row)
            { go_on = Identity(go)  more = own.twice(acc)  row = Add(more, b) }>
            (three, , b)
        b = own.twice(x)
    }
    <domain: "own", opset_import: ["" : 17]>
    twice (v) => (w) { w = Add(v, v) }
    """
    model = onnx.parser.parse_model(text)
    model.graph.node[0].attribute[0].g.node[0].input[0] = "go"
    got = run64(model, {"x": np.array([1.0, -2.0])})
    np.testing.assert_array_equal(got["y"], [16.0, -32.0])
    np.testing.assert_array_equal(got["rows"][:, 0], [6.0, 10.0, 18.0])


@pytest.mark.parametrize(
    "settings",
    [
        {"pads": [2, 0, 0, 1]},
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
        {"pads": [0, 1, 1, 0], "strides": [2, 3], "ceil_mode": 1},
        {"dilations": [2, 1], "strides": [1, 2], "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
    ],
)
@pytest.mark.parametrize("size", [(7, 8), (8, 9)])
def test_max_pool_as_the_runtime_has_it(rng, settings, size):
    runtime = pytest.importorskip("onnxruntime")
    x = draw(rng, 2, 3, *size)
    info = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, None) for n in ("i0", "o0")]
    node = helper.make_node("MaxPool", ["i0"], ["o0"], kernel_shape=[3, 2], **settings)
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {"i0": x})
    (got,) = run64(model, {"i0": x}).values()
    np.testing.assert_array_equal(got, wanted)
