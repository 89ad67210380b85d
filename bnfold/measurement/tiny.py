"""A model that does nothing, to load the runtime and its provider before a clock starts."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_tiny(folder: Path) -> Path:
    """Write a model of one Neg on a 1×1 float32 ``x``; return its path."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "tiny", [x], [y])
    opset = helper.make_opsetid("", 13)
    path = folder / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path
