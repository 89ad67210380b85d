"""Convolutions against torch in float64, over drawn geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.evidence.reference.kernels import conv as kernels
from tests.evidence.reference.nodes import close, evaluate

torch = pytest.importorskip("torch")
F = torch.nn.functional


@st.composite
def convolutions(draw):
    """Geometry, and all channels per group that there are: dense, grouped, depthwise."""
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    into, out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.integers(1, 2)) for _ in range(rank)]
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    size = [draw(st.integers(s, 8)) for s in span]
    x = rng.standard_normal((draw(st.integers(1, 3)), into, *size))
    bias = rng.standard_normal(out) if draw(st.booleans()) else None
    attributes = {
        "group": groups,
        "dilations": dilation,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * rank)],
    }
    return x, rng.standard_normal((out, into // groups, *kernel)), bias, attributes


def by_torch(x, w, bias, attributes):
    rank = x.ndim - 2
    pads = attributes["pads"]
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    run = [F.conv1d, F.conv2d, F.conv3d][rank - 1]
    return run(
        torch.from_numpy(np.pad(x, widths)),
        torch.from_numpy(w),
        None if bias is None else torch.from_numpy(bias),
        attributes["strides"],
        0,
        attributes["dilations"],
        attributes["group"],
    )


@given(convolutions())
def test_conv(case):
    x, w, bias, attributes = case
    close(evaluate("Conv", x, w, bias, **attributes), by_torch(*case))


@given(case=convolutions(), columns=st.sampled_from([1, 40, 400]))
def test_conv_in_blocks(case, columns):
    """Every cut of samples and rows into blocks gives the same."""
    x, w, bias, attributes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_COLUMNS", columns)
        patch.setattr(kernels, "_CACHED", columns)
        patch.setattr(kernels, "_LARGE", columns)
        close(evaluate("Conv", x, w, bias, **attributes), by_torch(*case))


@given(convolutions(), st.integers(0, 2), st.data())
def test_conv_transpose(case, extra, data):
    x, w, _, attributes = case
    rank, groups = x.ndim - 2, attributes["group"]
    w = np.resize(w, (x.shape[1], 2, *w.shape[2:]))
    strides, dilations = attributes["strides"], attributes["dilations"]
    most = [(k - 1) * d for k, d in zip(w.shape[2:], dilations, strict=True)]
    pads = [data.draw(st.integers(0, min(2, m))) for m in most]
    limit = zip(strides, dilations, strict=True)
    extra = [min(extra, max(s, d) - 1) for s, d in limit]
    bias = np.arange(2.0 * groups)
    run = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
    tensors = map(torch.from_numpy, (x, w, bias))
    wanted = run(*tensors, strides, pads, extra, groups, dilations)
    got = evaluate(
        "ConvTranspose",
        x,
        w,
        bias,
        group=groups,
        strides=strides,
        dilations=dilations,
        pads=pads * 2,
        output_padding=extra,
    )
    close(got, wanted)
    free = {"group": groups, "strides": strides, "dilations": dilations}
    shape = list(wanted.shape[2:])
    same = evaluate(
        "ConvTranspose", x, w, bias, output_shape=shape, output_padding=extra, **free
    )
    # the padding that is not said is shared out: equal where it was equal on both sides
    close(same, wanted)


def test_conv_transpose_pads_same(rng):
    x, w = rng.standard_normal((2, 3, 5)), rng.standard_normal((3, 2, 4))
    full = evaluate("ConvTranspose", x, w, strides=[3])
    upper = evaluate("ConvTranspose", x, w, strides=[3], auto_pad="SAME_UPPER")
    lower = evaluate("ConvTranspose", x, w, strides=[3], auto_pad="SAME_LOWER")
    assert full.shape[2] == 16
    close(upper, full[..., :15])
    close(lower, full[..., 1:])


def test_a_large_convolution_stays_in_bounded_memory(rng):
    """Columns of the whole would be 9 times the input: 150 MB here."""
    import tracemalloc

    x, w = rng.standard_normal((1, 16, 362, 362)), rng.standard_normal((4, 16, 3, 3))
    tracemalloc.start()
    evaluate("Conv", x, w, pads=[1, 1, 1, 1])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 90e6
