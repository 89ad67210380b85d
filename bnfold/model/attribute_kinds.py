"""Does an attribute hold what it says, and is it what its operator asks for?"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import onnx

from bnfold.errors import ModelError

_SINGLE: Final = {"f": "FLOAT", "i": "INT", "s": "STRING", "t": "TENSOR", "g": "GRAPH"}
# fmt: off
_LISTS: Final = {
    "floats": "FLOATS", "ints": "INTS", "strings": "STRINGS", "tensors": "TENSORS",
    "graphs": "GRAPHS", "sparse_tensors": "SPARSE_TENSORS", "type_protos": "TYPE_PROTOS",
}
# fmt: on
_RARE: Final = {"sparse_tensor": "SPARSE_TENSOR", "tp": "TYPE_PROTO"}
_FIELD_OF: Final = {
    onnx.AttributeProto.AttributeType.Value(kind): field
    for field, kind in {**_SINGLE, **_LISTS, **_RARE}.items()
}
_SPARSE: Final = frozenset(
    {onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS}
)
_VALUES: Final = frozenset(_FIELD_OF.values())
_MOST_FIELDS: Final = 3
"""Name, type and value: what an attribute has unless it is documented or a reference."""


def check_attributes(
    node: onnx.NodeProto, where: str, *, in_function: bool, opset: int | None
) -> None:
    """Refuse attributes that hold another kind of value than they say, or than is asked for.

    Args:
        node: The node.
        where: Its place, for the error.
        in_function: Whether it stands in a function, whose attributes it may refer to.
        opset: Version of ONNX's own operators that it is one of; None for other operators.

    Raises:
        ModelError: Naming node and attribute.
    """
    seen: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in seen:
            raise _fault(node, attribute, where, "an attribute is given twice", "")
        seen.add(attribute.name)
        why = _why_not(attribute, in_function=in_function)
        if why:
            raise _fault(node, attribute, where, "an attribute makes no sense", why)
        if attribute.type in _SPARSE:
            raise ModelError(
                "a sparse tensor in an attribute is not read",
                where=f"{where}: node {node.name or node.op_type!r} ({node.op_type}),"
                f" attribute {attribute.name!r}",
                why="onnx_ir, which reads the graph, has none in attributes",
                remedy="store it as a sparse initializer of the graph, or as a dense Constant",
            )
    if opset is not None and (node.attribute or _required(node.op_type, opset)):
        _check_against(node, seen, where, opset)


def _why_not(attribute: onnx.AttributeProto, *, in_function: bool) -> str:
    """Say what is wrong with an attribute by itself; empty if nothing is."""
    field = _FIELD_OF.get(attribute.type)
    if field is None:
        return f"its type is {attribute.type}, which is none"
    if attribute.ref_attr_name:
        return "" if in_function else "it refers to an attribute of a function, and is in none"
    filled = attribute.ListFields()
    if len(filled) <= _MOST_FIELDS and any(one.name == field for one, _ in filled):
        return ""
    held = [one.name for one, _ in filled if one.name in _VALUES]
    stray = [name for name in held if name != field]
    if stray:
        kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
        return f"its type is {kind}, and it holds a value in {stray[0]!r}"
    # an empty list, and a number that is 0, need not be written
    return "" if held or field in _LISTS or field in ("f", "i", "s") else "it holds nothing"


@lru_cache(maxsize=4096)
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version beyond a C int
        return None


@lru_cache(maxsize=4096)
def _required(op_type: str, opset: int) -> tuple[str, ...]:
    schema = _schema(op_type, opset)
    known = () if schema is None else schema.attributes.items()
    return tuple(name for name, one in known if one.required)


def attributes_of(op_type: str, opset: int) -> Set[str] | None:
    """Return the attributes of an operator; None if this version of onnx does not know it."""
    return None if _schema(op_type, opset) is None else _kinds(op_type, opset).keys()


@lru_cache(maxsize=4096)
def types_of_inputs(op_type: str, opset: int) -> tuple[tuple[str, frozenset[int]], ...]:
    """Return what each input may hold: a type variable, and the element types it stands for.

    Inputs with the same variable hold the same type. Empty if this version of onnx does not
    know the operator.
    """
    schema = _schema(op_type, opset)
    if schema is None:
        return ()
    numbers = {f"tensor({name.lower()})": k for name, k in onnx.TensorProto.DataType.items()}
    allowed = {
        one.type_param_str: frozenset(
            numbers[t] for t in one.allowed_type_strs if t in numbers
        )
        for one in schema.type_constraints
    }
    return tuple(
        (one.type_str, allowed.get(one.type_str, frozenset())) for one in schema.inputs
    )


@lru_cache(maxsize=4096)
def _kinds(op_type: str, opset: int) -> dict[str, int]:
    schema = _schema(op_type, opset)
    known = () if schema is None else schema.attributes.items()
    return {name: _number(one.type) for name, one in known}


def _number(kind: object) -> int:
    """Return the number of a type of attributes: an enum of C++ in the schemas."""
    return int(getattr(kind, "value"))  # noqa: B009  its stub knows nothing of it


def _check_against(node: onnx.NodeProto, seen: Iterable[str], where: str, opset: int) -> None:
    kinds = _kinds(node.op_type, opset)
    for attribute in node.attribute:
        asked = kinds.get(attribute.name)
        if asked is not None and asked != attribute.type:
            name = onnx.AttributeProto.AttributeType.Name
            why = f"it is {name(attribute.type)}, {name(asked)} is required"
            raise _fault(node, attribute, where, "an attribute has the wrong type", why)
    missing = set(_required(node.op_type, opset)).difference(seen)
    if missing:
        raise ModelError(
            f"the attribute {min(missing)!r} is missing",
            where=f"{where}: node {node.name or node.op_type!r} ({node.op_type})",
            why=f"{node.op_type} of operator set {opset} requires it",
            remedy="export the model again",
        )


@dataclass(frozen=True, slots=True)
class Arity:
    """How many inputs and outputs a node may have.

    Attributes:
        reads: Least and most inputs.
        writes: Least and most outputs.
        required: Places of inputs that must not be absent.
    """

    reads: tuple[int, int]
    writes: tuple[int, int]
    required: tuple[int, ...] = ()


@lru_cache(maxsize=4096)
def arity_of(op_type: str, opset: int) -> Arity | None:
    """Return what an operator takes; None if this version of onnx does not know it."""
    schema = _schema(op_type, opset)
    if schema is None:
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    required = (place for place, one in enumerate(schema.inputs) if one.option == single)
    reads, writes = (
        (schema.min_input, schema.max_input),
        (schema.min_output, schema.max_output),
    )
    return Arity(reads, writes, tuple(required))


def _fault(
    node: onnx.NodeProto, attribute: onnx.AttributeProto, where: str, what: str, why: str
) -> ModelError:
    return ModelError(
        what,
        where=f"{where}: node {node.name or node.op_type!r} ({node.op_type}), attribute"
        f" {attribute.name!r}",
        why=why or "which of both counts is laid down nowhere",
        remedy="export the model again",
    )
