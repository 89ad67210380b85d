"""Pools against torch in float64, over drawn windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evidence.reference.nodes import close, evaluate, evaluate_all

torch = pytest.importorskip("torch")
F = torch.nn.functional


@st.composite
def pools(draw, dilated):
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in range(rank)]
    dilation = [draw(st.integers(1, 2)) if dilated else 1 for _ in range(rank)]
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    case = {
        "kernel": kernel,
        "dilation": dilation,
        "stride": [draw(st.integers(1, 4)) for _ in range(rank)],
        "pad": [draw(st.integers(0, k // 2)) for k in kernel],
        "ceil": draw(st.booleans()),
        "size": [draw(st.integers(s, 9)) for s in span],
    }
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((2, 3, *case["size"]))
    return case, x


def attributes(case):
    return {
        "kernel_shape": case["kernel"],
        "strides": case["stride"],
        "pads": case["pad"] * 2,
        "ceil_mode": int(case["ceil"]),
    }


@given(pools(dilated=True))
def test_max_pool_and_its_places(drawn):
    case, x = drawn
    kernel, stride, pad = case["kernel"], case["stride"], case["pad"]
    pool = [F.max_pool1d, F.max_pool2d, F.max_pool3d][len(kernel) - 1]
    given_to_torch = (kernel, stride, pad, case["dilation"], case["ceil"])
    wanted, places = pool(torch.from_numpy(x), *given_to_torch, return_indices=True)
    extra = attributes(case) | {"dilations": case["dilation"]}
    close(evaluate("MaxPool", x, **extra), wanted)
    largest, found = evaluate_all("MaxPool", [x], outputs=2, **extra)
    close(largest, wanted)
    size = int(np.prod(x.shape[2:]))
    rows = np.arange(6).reshape(2, 3, *[1] * len(kernel)) * size
    np.testing.assert_array_equal(found, places.numpy() + rows)


@given(pools(dilated=False), st.booleans())
def test_average_pool(drawn, counted):
    case, x = drawn
    pool = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][len(case["kernel"]) - 1]
    given_to_torch = (case["kernel"], case["stride"], case["pad"], case["ceil"], counted)
    got = evaluate("AveragePool", x, count_include_pad=int(counted), **attributes(case))
    close(got, pool(torch.from_numpy(x), *given_to_torch))


@given(pools(dilated=False), st.integers(1, 3))
def test_lp_pool(drawn, p):
    case, x = drawn
    if case["ceil"] or len(case["kernel"]) == 3:
        return  # torch scales the windows at the end, and has no third axis
    padded = np.pad(x, [(0, 0), (0, 0), *[(n, n) for n in case["pad"]]])
    pool = [F.lp_pool1d, F.lp_pool2d][len(case["kernel"]) - 1]
    kernel, stride = case["kernel"], case["stride"]
    arguments = (kernel[0], stride[0]) if len(kernel) == 1 else (tuple(kernel), stride)
    wanted = pool(torch.from_numpy(np.abs(padded)), float(p), *arguments)
    close(evaluate("LpPool", x, p=p, **attributes(case)), wanted)


def test_pools_with_uneven_pads(rng):
    x = rng.standard_normal((1, 2, 6, 7))
    padded = np.pad(x, [(0, 0), (0, 0), (2, 0), (0, 1)], constant_values=-np.inf)
    windows = {"kernel_shape": [3, 2], "pads": [2, 0, 0, 1]}
    wanted = F.max_pool2d(torch.from_numpy(padded), (3, 2), 1)
    close(evaluate("MaxPool", x, **windows), wanted)
    zeros = torch.from_numpy(np.where(np.isinf(padded), 0, padded))
    total = F.avg_pool2d(zeros, (3, 2), 1)
    close(evaluate("AveragePool", x, count_include_pad=1, **windows), total)
    inside = F.avg_pool2d(torch.from_numpy(np.isfinite(padded).astype(float)), (3, 2), 1)
    close(evaluate("AveragePool", x, **windows), total / inside)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 3)])
def test_global_pools(rng, shape):
    x = rng.standard_normal(shape)
    ones = (2, 3, *[1] * (len(shape) - 2))
    flat = torch.from_numpy(x).reshape(2, 3, -1)
    close(evaluate("GlobalMaxPool", x), flat.amax(2).reshape(ones))
    close(evaluate("GlobalAveragePool", x), flat.mean(2).reshape(ones))
    close(evaluate("GlobalLpPool", x, p=3), flat.norm(3, 2).reshape(ones))


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_integers_are_pooled_as_integers(kind):
    x = np.array([[[3, 1, 2, 9, 0]]], kind)
    got = evaluate("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 1])
    assert got.dtype == kind
    np.testing.assert_array_equal(got, [[[3, 9, 9]]])
