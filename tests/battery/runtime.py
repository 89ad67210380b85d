"""ONNX Runtime as a second witness: does it load and run what it ran before?"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.battery.judge import Inputs

ort = pytest.importorskip("onnxruntime")


def complaint(model: onnx.ModelProto, feeds: Inputs, *, optimised: bool = True) -> str:
    """What the runtime says when it cannot load or run the model."""
    _, error = outputs(model, feeds, optimised=optimised)
    return error


def outputs(
    model: onnx.ModelProto, feeds: Inputs, *, optimised: bool = True, precise: bool = False
) -> tuple[dict[str, np.ndarray], str]:
    """The runtime's results, or none and its complaint.

    Without VNNI its kernels for uint8 times int8 add pairs of products in 16 bits that
    saturate (pmaddubsw): large weights give other numbers on such a CPU than on its
    neighbour, unless they are to be ``precise``. Not the default: ONNX Runtime 1.32 then
    rewrites some models (scales per channel, no zero point) so that they do not run.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = session.run(None, feeds)
    except Exception as error:  # noqa: BLE001 - the runtime raises its own classes for every fault
        return {}, f"{type(error).__name__}: {error}"
    return dict(zip((o.name for o in model.graph.output), values, strict=True)), ""
