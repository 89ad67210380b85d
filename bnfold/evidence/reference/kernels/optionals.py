"""Optional, OptionalGetElement and OptionalHasElement: an optional is what it holds.

onnx.reference makes a list of one of it, which it does not take apart again.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def _element(call: Call) -> tuple[Any, ...]:
    """The tensor or sequence that an optional holds, or that is made one (version 18)."""
    held = call.maybe(0)
    if held is None:
        raise call.no_kernel("an optional without an element has no value")
    return (held,)


def _has_element(call: Call) -> Array:
    return np.array(call.maybe(0) is not None)


KERNELS: Final[dict[str, Kernel]] = {
    "Optional": _element,
    "OptionalGetElement": _element,
    "OptionalHasElement": _has_element,
}
