"""A session with its inputs and outputs where it computes, so that copies are not timed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bnfold.runtime.arrays import Arrays, is_foreign
from bnfold.runtime.plans import SessionPlan
from bnfold.runtime.values import is_dense, to_numpy, to_runtime

_ON_DEVICE: Final = frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"})
_GRAPH_SWITCHES: Final = frozenset({"enable_cuda_graph", "trt_cuda_graph_enable"})
_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = "-1"
"""Values of that entry of a run's configuration: this one neither captures nor replays."""


class BoundRun:
    """A call of a session on inputs that lie on its device already.

    Calling it runs the session and waits until it is done. Outputs keep their memory from call
    to call, which a CUDA graph needs and which spares the others an allocation.

    Args:
        session: The session, open.
        plan: How it was opened.
        inputs: One set of inputs, by name.
        graph: Which CUDA graph to capture and replay, where the plan asks for graphs: calls
            on inputs of another size need another one.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        plan: SessionPlan,
        inputs: Arrays,
        graph: int = 0,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._place = "cuda" if plan.provider in _ON_DEVICE else "cpu"
        self._index = int(plan.provider_options.get("device_id", "0"))
        self._held = [self._bind_input(name, array) for name, array in inputs.items()]
        self._names = [output.name for output in session.get_outputs()]
        for name in self._names:
            self._binding.bind_output(name, self._place, self._index)
        self._options = ort.RunOptions()
        if _GRAPH_SWITCHES & set(plan.provider_options):
            self._options.add_run_config_entry(_GRAPH_ID, str(graph + 1))

    def first(self) -> None:
        """Run once, then keep the memory of the outputs for all later calls."""
        options = ort.RunOptions()
        options.add_run_config_entry(_GRAPH_ID, _NO_GRAPH)
        self._session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()
        outputs = self._binding.get_outputs()
        for name, value in zip(self._names, outputs, strict=True):
            if is_dense(value):
                self._binding.bind_ortvalue_output(name, value)

    def __call__(self) -> None:
        """Run, and wait for the end."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def outputs(self) -> Arrays:
        """Copy the outputs of the last call; only those that are tensors."""
        values = zip(self._names, self._binding.get_outputs(), strict=True)
        return {name: self._copied(value) for name, value in values if is_dense(value)}

    def _copied(self, value: ort.OrtValue) -> NDArray[Any]:
        if value.device_name().lower() == "cpu":
            return to_numpy(value)
        return np.asarray(value.numpy())

    def _bind_input(self, name: str, array: NDArray[Any]) -> object:
        """Bind an input on the device; what cannot lie there is copied in every call."""
        if array.dtype.kind in "US":
            self._binding.bind_cpu_input(name, array)
            return array
        if is_foreign(array) or self._place == "cpu":
            value = to_runtime(array)
        else:
            plain = np.ascontiguousarray(array)
            value = ort.OrtValue.ortvalue_from_numpy(plain, self._place, self._index)
        self._binding.bind_ortvalue_input(name, value)
        return value
