"""Resize against ONNX Runtime, which decides in float32, and torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.evidence.reference.nodes import close, evaluate

PLACES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]


@st.composite
def resizes(draw):
    attributes = {
        "mode": draw(st.sampled_from(["nearest", "linear", "cubic"])),
        "coordinate_transformation_mode": draw(st.sampled_from(PLACES)),
    }
    if attributes["mode"] == "nearest":
        modes = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = draw(st.sampled_from(modes))
    else:
        attributes["antialias"] = draw(st.integers(0, 1))
    size = [draw(st.integers(2, 9)) for _ in range(2)]
    if draw(st.booleans()):
        return attributes, size, [draw(st.integers(1, 14)) for _ in size], None
    factors = [0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 2.5, 1 / 3, 0.7, 4.0]
    return attributes, size, None, [draw(st.sampled_from(factors)) for _ in size]


@given(resizes())
def test_resize_as_the_runtime_does_it(case):
    runtime = pytest.importorskip("onnxruntime")
    attributes, size, sizes, scales = case
    x = np.random.default_rng(6).standard_normal((1, 2, *size)).astype(np.float32)
    name, kind = ("sizes", TensorProto.INT64) if sizes else ("scales", TensorProto.FLOAT)
    given_values = [1, 2, *sizes] if sizes else [1.0, 1.0, *scales]
    inputs = ["x", "", "", name] if sizes else ["x", "", name]
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor(name, kind, [4], given_values)],
    )
    opsets = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    data = model.SerializeToString()
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (wanted,) = session.run(None, {"x": x})
    except Exception:  # noqa: BLE001  the runtime has not every combination
        return
    stored = np.array(given_values, np.int64) if sizes else np.array(given_values, np.float32)
    arrays = [x, None, None, stored] if sizes else [x, None, stored.astype(np.float64)]
    wide = [arrays[0].astype(np.float64), *arrays[1:]]
    close(evaluate("Resize", *wide, opset=19, **attributes), wanted, 1e-4)


@pytest.mark.parametrize("out", [(3, 4), (8, 10), (13, 5)])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(("mode", "theirs"), [("linear", "bilinear"), ("cubic", "bicubic")])
def test_resize_as_torch_does_it(rng, out, corners, mode, theirs):
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 3, 8, 5))
    places = "align_corners" if corners else "half_pixel"
    sizes = np.array([2, 3, *out])
    got = evaluate(
        "Resize",
        x,
        None,
        None,
        sizes,
        opset=19,
        mode=mode,
        coordinate_transformation_mode=places,
    )
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x), out, mode=theirs, align_corners=corners
    )
    close(got, wanted, 1e-10)
