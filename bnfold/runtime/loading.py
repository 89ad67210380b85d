"""Does ONNX Runtime load, where it is installed?"""

from __future__ import annotations

from functools import cache
from typing import Final

from bnfold.errors import MissingDependencyError
from bnfold.runtime.children import Fate, run_child

_REMEDY: Final = "pip install 'bnfold[cpu]', or 'bnfold[gpu]' where CUDA is"
_PATIENCE_S: Final = 120.0
_PROBE: Final = """
import sys
try:
    import onnxruntime
    onnxruntime.InferenceSession
except BaseException as error:
    sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])
"""


@cache  # an error is not kept
def check_loads() -> None:
    """Find out, in a child process, whether the runtime loads: where a child ended at once.

    Raises:
        MissingDependencyError: If it does not; says its own first line.
    """
    end = run_child(("-c", _PROBE), _PATIENCE_S)
    if end.fate is not Fate.ENDED:
        raise MissingDependencyError(
            "ONNX Runtime is installed, but does not load",
            why=end.message,
            remedy=f"install it anew: {_REMEDY}; --no-verify and --no-run go without",
        )
