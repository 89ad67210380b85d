"""What the original computes in float64: how large its own error is."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.errors import MissingDependencyError
from bnfold.evidence.clock import NO_MEMORY, OutOfTimeError, until
from bnfold.evidence.compare import Deviation, deviation, is_float
from bnfold.evidence.readings import Outputs
from bnfold.evidence.reference import Evaluator, runtime_fallback
from bnfold.runtime import Arrays


@dataclass(frozen=True, slots=True)
class References:
    """What the original computes in float64.

    Attributes:
        outputs: By position, one entry per set of inputs; shorter where it had to stop.
        fell_back: Operators that ran on the runtime, in their own types.
        stopped: Why there are not as many as there are inputs.
    """

    outputs: tuple[Outputs, ...] = ()
    fell_back: tuple[str, ...] = ()
    stopped: str = ""


def evaluate(
    model: ir.Model, sets: Sequence[Arrays], seconds: float, enough_s: float = math.inf
) -> References:
    """Run a model in float64 on as many inputs as the time allows.

    Args:
        model: The model.
        sets: The inputs.
        seconds: After so many it is given up.
        enough_s: After so many no other set of inputs is begun.
    """
    fallback = runtime_fallback(model, timeout_s=max(seconds, 1.0))
    evaluator = Evaluator(model, fallback=fallback)
    start = time.monotonic()
    places = {value.name: place for place, value in enumerate(model.graph.outputs)}

    found: list[Outputs] = []
    stopped = ""
    for arrays in sets:
        if time.monotonic() > start + enough_s:
            break
        try:
            with np.errstate(all="ignore"), until(start + seconds):
                outputs = evaluator.run(arrays)
        except OutOfTimeError:
            stopped = f"the float64 reference ran out of time ({seconds:.3g} s)"
            break
        except MissingDependencyError:
            raise
        except MemoryError:
            stopped = f"the float64 reference stopped: {NO_MEMORY}"
            break
        except Exception as error:  # noqa: BLE001  a model can be wrong in any way
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            stopped = f"the float64 reference cannot run: {said}"
            break
        found.append({places[name]: value for name, value in outputs.items()})
    return References(tuple(found), tuple(sorted(evaluator.fell_back)), stopped)


def error_of(reference: Any, found: NDArray[Any]) -> Deviation | None:
    """How far an output is from the reference; None if they cannot be compared."""
    if not alike(reference, found):
        return None
    return deviation(reference, found.astype(reference.dtype))


def alike(reference: Any, found: NDArray[Any]) -> bool:
    """Whether an output can be compared with the reference."""
    if not isinstance(reference, np.ndarray) or reference.shape != found.shape:
        return False
    return is_float(reference) == is_float(found) and found.size > 0
