"""Operators without a kernel of ours, by onnx's reference implementation.

Only where it is correct in float64: it is slow, and what it gets wrong (BatchNormalization
before opset 14, grouped ConvTranspose, asymmetric pools, float32 inside) has a kernel of our
own or is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.evidence.reference.arrays import NoKernelError
from bnfold.evidence.reference.call import name_of

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


def run_by_onnx(node: ir.Node, inputs: Sequence[Any], opset: int) -> list[Any]:
    """Evaluate one node of the default domain.

    Raises:
        NoKernelError: If onnx cannot, if the result is random, or less than float64.
    """
    if why := _why_not(node):
        raise NoKernelError(f"{name_of(node)}: {why}")
    names = [f"i{place}" for place in range(len(inputs))]
    feeds = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    try:
        session = _single(_renamed(node, [n if n in feeds else "" for n in names]), opset)
        given = iter(session.run(None, feeds))
    except Exception as error:  # the reference raises anything
        # What it says is about its own code, such as the axes of an array that nobody named.
        why = f"{name_of(node)}: onnx.reference does not compute it on these inputs"
        raise NoKernelError(why) from error
    results = [next(given) if output.name else None for output in node.outputs]
    if any(_is_narrow(result) for result in results) and any(map(_is_wide, inputs)):
        raise NoKernelError(f"{name_of(node)}: onnx.reference leaves float64")
    return results


def _why_not(node: ir.Node) -> str:
    if node.domain not in ("", "ai.onnx"):
        return "there is no kernel"
    return "its results are random" if node.op_type in RANDOM else ""


def _is_narrow(value: Any) -> bool:
    kind = getattr(value, "dtype", None)
    return kind in (np.float32, np.float16)


def _is_wide(value: Any) -> bool:
    return getattr(value, "dtype", None) == np.float64


def _renamed(node: ir.Node, inputs: Sequence[str]) -> bytes:
    proto = ir.serde.serialize_node(node)
    proto.name = ""
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(f"o{k}" if v.name else "" for k, v in enumerate(node.outputs))
    return bytes(proto.SerializeToString())


@lru_cache(maxsize=512)
def _single(node_bytes: bytes, opset: int) -> ReferenceEvaluator:
    """A model of one node; kept by everything that it depends on."""
    from onnx.reference import ReferenceEvaluator

    node = onnx.NodeProto.FromString(node_bytes)
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.input if name],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets))
