"""Operators without a float64 kernel, by ONNX Runtime: in the model's own, narrower types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference.arrays import Array, NoKernelError, widen_result
from bnfold.evidence.reference.call import name_of
from bnfold.evidence.reference.evaluator import Fallback
from bnfold.files.scratch import scratch_folder
from bnfold.runtime import Job, run, write_arrays

_DEFAULT: Final = ("", "ai.onnx")


def runtime_fallback(model: ir.Model, *, timeout_s: float = 120.0) -> Fallback:
    """Return a fallback that runs single nodes on ONNX Runtime, in a child process.

    Inputs are rounded to the types that the model declares (float32 where it does not say),
    and results are widened: so what comes back carries the rounding of one operator.

    Args:
        model: The model that the nodes are of; it says which operator sets they are read in.
        timeout_s: A node that takes longer counts as one that cannot run.
    """

    def fall_back(
        node: ir.Node, inputs: Sequence[Array | None], opset: int
    ) -> list[Array | None]:
        return _run_node(model, node, inputs, opset, timeout_s)

    return fall_back


def _run_node(
    model: ir.Model,
    node: ir.Node,
    inputs: Sequence[Array | None],
    opset: int,
    timeout_s: float,
) -> list[Array | None]:
    narrow = [
        None if x is None else _narrowed(x, v)
        for x, v in zip(inputs, node.inputs, strict=True)
    ]
    single, feeds = _model_of(model, node, narrow, opset)
    with scratch_folder("node") as folder:
        (folder / "node.onnx").write_bytes(ir.to_proto(single).SerializeToString())
        write_arrays(folder / "inputs.npz", feeds)
        job = Job(folder / "node.onnx", (folder / "inputs.npz",), folder, timeout_s=timeout_s)
        (answer,) = run(job)
        if not answer.ran:
            raise NoKernelError(f"{name_of(node)}: the runtime says {answer.message}")
        found = answer.outputs()
    return [widen_result(found.get(f"o{index}")) for index in range(len(node.outputs))]


def _narrowed(x: Array, value: ir.Value | None) -> Array:
    """An input in the type that the model declares."""
    if not isinstance(x, np.ndarray):
        raise NoKernelError("sequences do not cross the border to the runtime")
    if x.dtype != np.float64:
        return x
    declared = None if value is None else value.dtype
    if declared is None and value is not None and value.const_value is not None:
        declared = value.const_value.dtype
    return x.astype(np.float32 if declared is None else declared.numpy())


def _model_of(
    model: ir.Model, node: ir.Node, inputs: Sequence[Array | None], opset: int
) -> tuple[ir.Model, dict[str, Array]]:
    """A model of one node: what is stored in the model is stored in it, the rest is fed."""
    values: list[ir.Value | None] = []
    feeds: dict[str, Array] = {}
    stored: list[ir.Value] = []
    for index, (array, original) in enumerate(zip(inputs, node.inputs, strict=True)):
        if array is None or original is None:
            values.append(None)
            continue
        value = _value(f"i{index}", array)
        values.append(value)
        if original.const_value is None:
            feeds[f"i{index}"] = array
        else:
            value.const_value = ir.tensor(array, name=value.name)
            stored.append(value)
    outputs = [
        ir.Value(name=f"o{index}" if output.name else "", type=output.type)
        for index, output in enumerate(node.outputs)
    ]
    copy = ir.Node(node.domain, node.op_type, values, node.attributes, outputs=outputs)
    fed = [value for value in values if value is not None and value.name in feeds]
    graph = ir.Graph(
        fed,
        [value for value in outputs if value.name],
        nodes=[copy],
        initializers=stored,
        opset_imports=_opsets(model, node, opset),
        name="node",
    )
    return ir.Model(graph, ir_version=model.ir_version), feeds


def _opsets(model: ir.Model, node: ir.Node, opset: int) -> dict[str, int]:
    others = {name: v for name, v in model.opset_imports.items() if name not in _DEFAULT}
    return {**others, "" if node.domain in _DEFAULT else node.domain: opset}


def _value(name: str, array: Array) -> ir.Value:
    kind: Any = ir.DataType.STRING if array.dtype.kind in "OU" else None
    kind = kind or ir.DataType.from_numpy(array.dtype)
    return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(array.shape))
