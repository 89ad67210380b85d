"""One node, made and evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.evidence.reference import evaluate_node

Array = np.ndarray


def make(
    op: str,
    arrays: Sequence[Array | None],
    outputs: int = 1,
    domain: str = "",
    **attributes: Any,
) -> ir.Node:
    return ir.Node(
        domain,
        op,
        [None if a is None else ir.Value(name=f"i{k}") for k, a in enumerate(arrays)],
        [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()],
        outputs=[ir.Value(name=f"o{k}") for k in range(outputs)],
    )


def evaluate_all(
    op: str,
    arrays: Sequence[Array | None],
    opset: int = 17,
    outputs: int = 1,
    **attributes: Any,
) -> list[Array | None]:
    return evaluate_node(make(op, arrays, outputs, **attributes), arrays, opset)


def evaluate(
    op: str, *arrays: Array | None, opset: int = 17, domain: str = "", **attributes: Any
) -> Array:
    (result,) = evaluate_node(make(op, arrays, domain=domain, **attributes), arrays, opset)
    return result


def close(ours: Array, theirs: Any, tolerance: float = 1e-11) -> None:
    """Compare with a torch tensor, or anything that is an array."""
    wanted = theirs.numpy() if hasattr(theirs, "numpy") else np.asarray(theirs)
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, rtol=tolerance, atol=tolerance)
