"""Running models: all that touches ONNX Runtime, and only in a child process."""

from bnfold.runtime.arrays import Arrays, read_arrays, write_arrays
from bnfold.runtime.sessions import Job, Level, Outcome, Run, available, require, run, run_all

__all__ = [
    "Arrays",
    "Job",
    "Level",
    "Outcome",
    "Run",
    "available",
    "read_arrays",
    "require",
    "run",
    "run_all",
    "write_arrays",
]
