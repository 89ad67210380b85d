"""The child process that loads ONNX Runtime: ``python -m bnfold.runtime.child jobs.json``.

It writes one line per set of inputs to a journal as soon as that set is done: so the parent
knows how far it came when the runtime takes the process down with it.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bnfold.runtime.arrays import Arrays, bits_of, is_foreign, read_arrays, write_arrays

Note = Callable[[dict[str, Any]], None]

_SEED: Final = 20
_LEVELS: Final = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_FOREIGN: Final = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
}
"""Names of ml_dtypes to element types of ``onnx.TensorProto``."""

_PROVIDER_OPTIONS: Final = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""TF32 would round every operand to ten bits: that is not the model's own arithmetic."""


class NoProviderError(RuntimeError):
    """The provider that was asked for is not there."""


def open_session(job: dict[str, Any]) -> ort.InferenceSession:
    """Create the session that the job asks for, quiet and with fixed threads.

    Raises:
        NoProviderError: If the runtime has no such provider, or silently took another one.
    """
    provider = job["provider"]
    there = ort.get_available_providers()
    if provider not in there:
        raise NoProviderError(f"this ONNX Runtime has only {', '.join(there)}")
    options = ort.SessionOptions()
    options.graph_optimization_level = _LEVELS[job["level"]]
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    ort.set_seed(_SEED)
    wanted = [(provider, _PROVIDER_OPTIONS.get(provider, {}))]
    session = ort.InferenceSession(job["model"], options, providers=wanted)
    if provider not in session.get_providers():
        taken = ", ".join(session.get_providers())
        raise NoProviderError(f"it could not be loaded; the session would run on {taken}")
    return session


def run_set(session: ort.InferenceSession, arrays: Arrays) -> Arrays:
    """Run one set of inputs; only outputs that are tensors come back."""
    names = [output.name for output in session.get_outputs()]
    if any(array.dtype.kind == "U" for array in arrays.values()):
        found = dict(zip(names, session.run(None, arrays), strict=True))
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    feeds = {name: _to_runtime(array) for name, array in arrays.items()}
    values = zip(names, session.run_with_ort_values(None, feeds), strict=True)
    return {name: _to_numpy(value) for name, value in values if _is_dense(value)}


def main(path: str) -> None:
    """Carry out the jobs described in the file, one after the other."""
    for job in json.loads(Path(path).read_text(encoding="utf-8")):
        note = partial(_note, Path(job["journal"]))
        try:
            session = open_session(job)
        except Exception as error:  # noqa: BLE001 (the runtime raises many kinds; all are answers)
            note(_failure(error, job))
        else:
            _run_sets(session, job, note)
        note({"end": True})


def _run_sets(session: ort.InferenceSession, job: dict[str, Any], note: Note) -> None:
    ran = 0
    for index, inputs in enumerate(job["inputs"]):
        target = Path(job["folder"]) / f"outputs{index}.npz"
        line = _attempt(session, Path(inputs), target, job)
        note(line)
        ran += line["outcome"] == "ran"
        if ran == job["stop_after"] > 0:
            break


def _note(journal: Path, line: dict[str, Any]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _failure(error: Exception, job: dict[str, Any]) -> dict[str, Any]:
    """The runtime's own words; the path of a temporary file would say nothing."""
    said = str(error).replace(job["model"], Path(job["model"]).name)
    outcome = "unavailable" if isinstance(error, NoProviderError) else "failed"
    return {"outcome": outcome, "message": said, "seconds": 0.0, "file": ""}


def _attempt(
    session: ort.InferenceSession, inputs: Path, target: Path, job: dict[str, Any]
) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        outputs = run_set(session, read_arrays(inputs))
    except Exception as error:  # noqa: BLE001 (the runtime raises many kinds; all are answers)
        return _failure(error, job)
    seconds = time.perf_counter() - start
    write_arrays(target, outputs)
    return {"outcome": "ran", "message": "", "seconds": seconds, "file": str(target)}


def _to_runtime(array: NDArray[Any]) -> ort.OrtValue:
    if not is_foreign(array):
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    kind = _FOREIGN[array.dtype.name]
    bits = bits_of(array).reshape(array.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _is_dense(value: ort.OrtValue) -> bool:
    return bool(value.has_value() and value.is_tensor())


def _to_numpy(value: ort.OrtValue) -> NDArray[Any]:
    names = {number: name for name, number in _FOREIGN.items()}
    kind = names.get(value.element_type())
    if kind is None:
        return np.asarray(value.numpy())
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype=getattr(ml_dtypes, kind)).reshape(value.shape())


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 (told to the parent on stderr, without a traceback)
        sys.exit(str(error))
