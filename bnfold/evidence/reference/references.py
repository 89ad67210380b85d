"""Nodes of functions whose attributes refer to the attributes of the call."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir


def bound(node: ir.Node, given: Mapping[str, ir.Attr]) -> ir.Node:
    """Return the node with values for references; the node itself where there are none.

    The copy stands in no graph and reads no value of it, so use-def chains stay as they are.
    An output that nobody reads has no name there.
    """
    if not any(attribute.is_ref() for attribute in node.attributes.values()):
        return node
    attributes = []
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            attributes.append(attribute)
        elif attribute.ref_attr_name in given:
            source = given[str(attribute.ref_attr_name)]
            attributes.append(ir.Attr(name, source.type, source.value))
    outputs = [_twin(v, read=bool(v.uses()) or v.is_graph_output()) for v in node.outputs]
    return ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else _twin(value, read=True) for value in node.inputs],
        attributes,
        overload=node.overload,
        outputs=outputs,
        name=node.name,
    )


def _twin(value: ir.Value, *, read: bool) -> ir.Value:
    return ir.Value(
        name=value.name if read else "",
        shape=value.shape,
        type=value.type,
        const_value=value.const_value,
    )
