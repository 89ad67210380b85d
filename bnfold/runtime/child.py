"""The child process that loads ONNX Runtime: ``python -m bnfold.runtime.child jobs.json``.

It writes one line per set of inputs to a journal as soon as that set is done: so the parent
knows how far it came when the runtime takes the process down with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from bnfold.process import bound_for_good
from bnfold.runtime.arrays import Arrays, read_arrays, write_arrays
from bnfold.runtime.opening import NoProviderError, open_session
from bnfold.runtime.plans import SessionPlan
from bnfold.runtime.telling import run_and_tell
from bnfold.runtime.values import is_dense, to_numpy, to_runtime
from bnfold.safe_text import one_line

Note = Callable[[dict[str, Any]], None]

_SEED: Final = 20
_PROVIDER_OPTIONS: Final = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""TF32 would round every operand to ten bits: that is not the model's own arithmetic."""


def plan_of(job: dict[str, Any]) -> SessionPlan:
    """How the judge runs a model: fixed threads, which sleep while they wait."""
    return SessionPlan(
        model=job["model"],
        level=job["level"],
        provider=job["provider"],
        provider_options=_PROVIDER_OPTIONS.get(job["provider"], {}),
        threads=job["threads"],
        config={"session.intra_op.allow_spinning": "0"},
    )


def run_set(session: ort.InferenceSession, arrays: Arrays) -> Arrays:
    """Run one set of inputs; only outputs that are tensors come back."""
    names = [output.name for output in session.get_outputs()]
    if any(array.dtype.kind == "U" for array in arrays.values()):
        found = dict(zip(names, session.run(None, arrays), strict=True))
        return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    feeds = {name: to_runtime(array) for name, array in arrays.items()}
    values = zip(names, session.run_with_ort_values(None, feeds), strict=True)
    return {name: to_numpy(value) for name, value in values if is_dense(value)}


def main(path: str) -> None:
    """Carry out the jobs described in the file, one after the other."""
    jobs = json.loads(Path(path).read_text(encoding="utf-8"))
    bound_for_good(
        max(job["memory_bytes"] for job in jobs), max(job["mapped_bytes"] for job in jobs)
    )
    for job in jobs:
        note = partial(_note, Path(job["journal"]))
        try:
            ort.set_seed(_SEED)
            session = open_session(plan_of(job))
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
    said = one_line(str(error)).replace(job["model"], Path(job["model"]).name)
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


if __name__ == "__main__":
    run_and_tell(main)
