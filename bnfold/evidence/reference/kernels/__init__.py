"""The float64 kernels, by operator."""

from __future__ import annotations

from typing import Final

from bnfold.evidence.reference.call import Kernel
from bnfold.evidence.reference.kernels import (
    activations,
    constants,
    conv,
    elementwise,
    grid_sample,
    indexing,
    layout,
    microsoft,
    norms,
    optionals,
    pools,
    products,
    quantized,
    recurrent,
    reduce,
    resize,
    sequences,
)

STANDARD: Final[dict[str, Kernel]] = {
    **activations.KERNELS,
    **constants.KERNELS,
    **conv.KERNELS,
    **elementwise.KERNELS,
    **grid_sample.KERNELS,
    **indexing.KERNELS,
    **layout.KERNELS,
    **norms.KERNELS,
    **optionals.KERNELS,
    **pools.KERNELS,
    **products.KERNELS,
    **quantized.KERNELS,
    **recurrent.KERNELS,
    **reduce.KERNELS,
    **resize.KERNELS,
    **sequences.KERNELS,
}
"""Operators of the default domain."""

BY_DOMAIN: Final[dict[str, dict[str, Kernel]]] = {
    "": STANDARD,
    "ai.onnx": STANDARD,
    "com.microsoft": microsoft.KERNELS,
}
"""Kernels by domain and operator."""
