"""Nodes on which onnx's own shape inference ends the process: refused before it sees them.

It is C++ built with assertions: what it takes for granted ends in an abort, which no caller
can catch. `make fuzz` finds such nodes.
"""

from __future__ import annotations

import onnx

from bnfold.errors import ModelError


def check_survivable(node: onnx.NodeProto, where: str) -> None:
    """Refuse a Split with more outputs than it says that it has (onnx 1.23 aborts there).

    Args:
        node: A node of ONNX's own operators.
        where: Its place, for the error.

    Raises:
        ModelError: Naming the node.
    """
    if node.op_type != "Split":
        return
    for attribute in node.attribute:
        if attribute.name == "num_outputs" and 0 < attribute.i < len(node.output):
            raise ModelError(
                "an attribute makes no sense",
                where=f"{where}: node {node.name or node.op_type!r} (Split)",
                why=f"num_outputs is {attribute.i}, and it has {len(node.output)} outputs",
                remedy="give as many outputs as num_outputs says",
            )
