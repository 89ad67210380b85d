"""Activations, normalisations and products against torch in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.evidence.reference.kernels.erf import erf
from tests.evidence.reference.nodes import close, evaluate, evaluate_all

torch = pytest.importorskip("torch")
F = torch.nn.functional

ACTIVATIONS = [
    ("Relu", {}, F.relu),
    ("LeakyRelu", {"alpha": 0.125}, lambda x: F.leaky_relu(x, 0.125)),
    ("Elu", {"alpha": 1.5}, lambda x: F.elu(x, 1.5)),
    ("Celu", {"alpha": 0.75}, lambda x: F.celu(x, 0.75)),
    ("Gelu", {}, F.gelu),
    ("Gelu", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
    ("HardSigmoid", {"alpha": 0.25}, lambda x: (x / 4 + 0.5).clamp(0, 1)),
    ("HardSwish", {}, F.hardswish),
    ("Swish", {}, F.silu),
    ("Mish", {}, F.mish),
    ("Sigmoid", {}, torch.sigmoid),
    ("Tanh", {}, torch.tanh),
    ("Softplus", {}, lambda x: F.softplus(x, threshold=1e3)),
    ("Softsign", {}, F.softsign),
    ("ThresholdedRelu", {"alpha": 0.5}, lambda x: F.threshold(x, 0.5, 0)),
    ("Shrink", {"lambd": 0.75, "bias": 0.75}, lambda x: F.softshrink(x, 0.75)),
    ("Erf", {}, torch.erf),
]


@pytest.mark.parametrize(("op", "attributes", "theirs"), ACTIVATIONS)
def test_activation(rng, op, attributes, theirs):
    x = np.concatenate([rng.standard_normal(300) * 4, [0.0, -0.0, 60.0, -60.0]])
    close(evaluate(op, x, opset=24, **attributes), theirs(torch.from_numpy(x)), 1e-13)


def test_selu_has_the_float32_constants_of_the_specification(rng):
    x = rng.standard_normal(100)
    close(evaluate("Selu", x), F.selu(torch.from_numpy(x)), 1e-6)


def test_erf_is_exact_to_about_one_unit():
    x = np.concatenate([np.linspace(-7, 7, 30011), 10.0 ** -np.arange(1, 300.0), [0.5, 6.0]])
    wanted = np.array([math.erf(v) for v in x])
    assert np.max(np.abs(erf(x) - wanted) / np.spacing(np.abs(wanted))) <= 3
    odd = erf(np.array([np.nan, np.inf, -np.inf, -0.0]))
    np.testing.assert_array_equal(odd, [np.nan, 1, -1, -0.0])
    assert np.signbit(odd[3])


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_softmax(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(1).standard_normal(shape) * 50
    tensor = torch.from_numpy(x)
    close(evaluate("Softmax", x, opset=13, axis=axis), F.softmax(tensor, axis))
    close(evaluate("LogSoftmax", x, opset=13, axis=axis), F.log_softmax(tensor, axis))
    lead = math.prod(shape[: axis % len(shape)])
    flat = F.softmax(tensor.reshape(lead, -1), 1).reshape(shape)
    close(evaluate("Softmax", x, opset=11, axis=axis % len(shape)), flat)


def test_prelu_and_clip(rng):
    x, slope = rng.standard_normal((2, 3, 4)), rng.standard_normal(3)
    wanted = F.prelu(torch.from_numpy(x), torch.from_numpy(slope))
    close(evaluate("PRelu", x, slope[:, None]), wanted)
    close(evaluate("PRelu", x, slope, opset=6), wanted)
    close(evaluate("Clip", x, np.array(-0.5), None), x.clip(-0.5))
    close(evaluate("Clip", x, None, np.array(0.5)), x.clip(max=0.5))
    close(evaluate("Clip", x, opset=6, min=-0.5, max=0.5), x.clip(-0.5, 0.5))


@given(shape=st.lists(st.integers(1, 5), min_size=2, max_size=4), data=st.data())
def test_layer_and_rms_norm(shape, data):
    rng = np.random.default_rng(3)
    axis = data.draw(st.integers(-len(shape), -1))
    x, scale, bias = rng.standard_normal(shape), *rng.standard_normal((2, *shape[axis:]))
    tensors = [torch.from_numpy(v) for v in (x, scale, bias)]
    got, mean, inverse = evaluate_all(
        "LayerNormalization", [x, scale, bias], outputs=3, axis=axis, epsilon=0.25
    )
    close(got, F.layer_norm(tensors[0], shape[axis:], tensors[1], tensors[2], 0.25))
    axes = tuple(range(axis, 0))
    close(mean, x.mean(axes, keepdims=True))
    close(inverse, 1 / np.sqrt(x.var(axes, keepdims=True) + 0.25))
    got = evaluate("RMSNormalization", x, scale, opset=23, axis=axis, epsilon=0.25)
    close(got, F.rms_norm(tensors[0], shape[axis:], tensors[1], 0.25))


@given(
    n=st.integers(2, 3),  # torch refuses a single value per channel
    groups=st.integers(1, 3),
    size=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_norms_of_channels(n, groups, size):
    rng = np.random.default_rng(4)
    channels = 2 * groups
    x = rng.standard_normal((n, channels, *size))
    scale, bias = rng.standard_normal((2, channels))
    tensor, s, b = map(torch.from_numpy, (x, scale, bias))
    attributes = {"num_groups": groups, "epsilon": 0.5}
    got = evaluate("GroupNormalization", x, scale, bias, opset=21, **attributes)
    close(got, F.group_norm(tensor, groups, s, b, 0.5))
    per_channel = F.group_norm(tensor, channels, s, b, 0.5)
    close(evaluate("InstanceNormalization", x, scale, bias, epsilon=0.5), per_channel)
    got = evaluate("LRN", x, size=3, alpha=0.5, beta=0.75, bias=2.0)
    if len(size) < 3:
        close(got, F.local_response_norm(tensor, 3, 0.5, 0.75, 2.0))
    close(evaluate("LpNormalization", x, axis=1, p=1), F.normalize(tensor, 1, 1))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
        ("...ij, jk -> ...ik", [(2, 3, 4), (4, 5)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("ii->i", [(4, 4)]),
        ("ij->", [(3, 4)]),
        ("nchw,oc,o->nohw", [(2, 3, 4, 4), (5, 3), (5,)]),
    ],
)
def test_einsum(rng, equation, shapes):
    arrays = [rng.standard_normal(shape) for shape in shapes]
    wanted = torch.einsum(equation.replace(" ", ""), *map(torch.from_numpy, arrays))
    close(evaluate("Einsum", *arrays, equation=equation), wanted)


@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    other=st.lists(st.integers(1, 1), max_size=2),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
)
def test_mat_mul_broadcasts(batch, other, sizes):
    rng, (m, k, n) = np.random.default_rng(5), sizes
    a, b = rng.standard_normal((*batch, m, k)), rng.standard_normal((*other, k, n))
    close(evaluate("MatMul", a, b), torch.from_numpy(a) @ torch.from_numpy(b))
    turned = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    close(evaluate("MatMul", a, turned), a @ b)
