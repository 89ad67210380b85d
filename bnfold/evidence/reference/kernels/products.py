"""Matrix products."""

from __future__ import annotations

from typing import Final

import numpy as np

from bnfold.evidence.reference.arrays import Array
from bnfold.evidence.reference.call import Call, Kernel


def product(a: Array, b: Array) -> Array:
    """a·b as MatMul has it; one product for the whole batch where b has none."""
    if a.ndim > 2 and b.ndim == 2:
        return np.asarray(
            np.matmul(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
        )
    return np.asarray(np.matmul(a, b))


def gemm(call: Call) -> Array:
    """alpha·A'·B' + beta·C."""
    a, b, c = call.x[0], call.x[1], call.maybe(2)
    a = a.T if call.integer("transA", 0) else a
    b = b.T if call.integer("transB", 0) else b
    y = a @ b
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    y = y if alpha == 1 else alpha * y
    if c is None:
        return np.asarray(y)
    return np.asarray(y + (c if beta == 1 else beta * c))


def _einsum(call: Call) -> Array:
    equation = call.text("equation", "").replace(" ", "")
    return np.asarray(np.einsum(equation, *call.x, optimize=len(call.x) > 1))


KERNELS: Final[dict[str, Kernel]] = {
    "MatMul": lambda c: product(*c.x),
    "Gemm": gemm,
    "Einsum": _einsum,
}
