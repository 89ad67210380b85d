"""Running models: all that touches ONNX Runtime, and only in a child process."""

from bnfold.runtime.arrays import Arrays, read_arrays, write_arrays
from bnfold.runtime.sessions import (
    CPU,
    Job,
    Level,
    Outcome,
    Run,
    Setting,
    available,
    no_provider,
    provider_named,
    require,
    run,
    run_all,
)

__all__ = [
    "CPU",
    "Arrays",
    "Job",
    "Level",
    "Outcome",
    "Run",
    "Setting",
    "available",
    "no_provider",
    "provider_named",
    "read_arrays",
    "require",
    "run",
    "run_all",
    "write_arrays",
]
