"""Nodes of any operator: a schema at a version, inputs of allowed types, attributes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, TypeProto, helper

from benchmarks.campaign.sketch import Array, Shape
from benchmarks.campaign.truth import NEVER
from bnfold.errors import ModelError
from bnfold.evidence.reference import NoKernelError, evaluate_node
from bnfold.model.deadly import check_survivable
from tests.fuzz.attributes import attributes_of
from tests.fuzz.contents import FLOATS, drawn_array, drawn_shape, dtype_of
from tests.fuzz.draws import Draws
from tests.fuzz.inputs import (
    RANKS,
    SCALAR,
    attributes_by_name,
    broadcastable,
    deciding,
    shapes_behind,
)
from tests.fuzz.scope import Scope, Value

_BODIES: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_RANDOM: Final = NEVER - _BODIES - {"Dropout", "Optional"}
LARGEST: Final = 20_000
"""Elements of a result."""
_Option = onnx.defs.OpSchema.FormalParameterOption


@cache
def schema_of(operator: str, opset: int) -> onnx.defs.OpSchema | None:
    """Return the schema of an operator at a version; None where there is none."""
    try:
        found = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None
    return None if found.deprecated else found


@cache
def operators(opset: int) -> tuple[str, ...]:
    """Return all operators of a version: without bodies, and without random results."""
    names = {one.name for one in onnx.defs.get_all_schemas_with_history() if not one.domain}
    wanted = sorted(names - _BODIES - _RANDOM - {"Constant", "ImageDecoder"})
    return tuple(name for name in wanted if schema_of(name, opset) is not None)


@cache
def _elements(allowed: tuple[str, ...]) -> tuple[int, ...]:
    """Return the element types of tensors among the allowed types."""
    inner = [one[7:-1] for one in allowed if one.startswith("tensor(")]
    words = {"float": "FLOAT", "double": "DOUBLE", "string": "STRING", "bool": "BOOL"}
    names = [words.get(one, one.upper()) for one in inner]
    return tuple(TensorProto.DataType.Value(one) for one in names)


def any_node(scope: Scope, operator: str, first: Value | None = None) -> list[Value]:
    """Append a node of an operator, if what was drawn is valid; return what it writes."""
    schema = schema_of(operator, scope.opset)
    if schema is None:
        return []
    before, nodes, weights = set(scope.values), len(scope.nodes), len(scope.weights)
    inputs = _inputs(scope, schema, first)
    if inputs is not None:
        names, values, attributes = inputs
        count = _outputs(scope.draws, schema)
        outputs = [scope.fresh() for _ in range(count)]
        node = helper.make_node(operator, names, outputs, name=_node_name(scope))
        node.attribute.extend(attributes)
        found = append(scope, node, values)
        if found is not None:
            return found
    scope.values[:] = [one for one in scope.values if one in before or one.given]
    del scope.nodes[nodes:], scope.weights[weights:]
    return []


def _node_name(scope: Scope) -> str:
    """Return a name of a node: one of its own mostly, or the same as another's, or none."""
    how = scope.draws.integer(0, 29)
    return f"n_{scope.fresh()}" if how < 27 else "" if how < 29 else "same"


def _outputs(draws: Draws, schema: onnx.defs.OpSchema) -> int:
    least, most = schema.min_output, min(schema.max_output, schema.min_output + 3)
    if schema.name in ("Split", "BatchNormalization") and draws.chance(70):
        return 2 if schema.name == "Split" else 1
    return draws.integer(max(least, 1), max(most, 1)) if draws.chance(25) else max(least, 1)


# -------------------------------------------------------------------------------- inputs


def _inputs(
    scope: Scope, schema: onnx.defs.OpSchema, first: Value | None
) -> tuple[list[str], list[Value | None], list[onnx.AttributeProto]] | None:
    draws = scope.draws
    types: dict[str, int] = {}
    shape: Shape = ()
    names: list[str] = []
    values: list[Value | None] = []
    if schema.inputs:
        start = first or _first(scope, schema)
        if start is None:
            return None
        types[schema.inputs[0].type_str] = start.element
        shape = start.shape
        names, values = [start.name], [start]
    attributes = attributes_of(draws, schema, shape, scope.kind)
    node = helper.make_node(schema.name, [], [])
    node.attribute.extend(attributes)
    count = _count(draws, schema)
    given = attributes_by_name(node)
    shapes = shapes_behind(draws, schema.name, shape, given, max(count - 1, 0))
    for place in range(1, count):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if formal.option == _Option.Optional and draws.chance(40):
            names.append("")
            values.append(None)
            continue
        one = _further(scope, schema, formal, types, shape, shapes[place - 1])
        if one is None:
            return None
        names.append(one.name)
        values.append(one)
    while names and not names[-1]:
        del names[-1], values[-1]
    return names, values, attributes


def _count(draws: Draws, schema: onnx.defs.OpSchema) -> int:
    """Return how many inputs a node has, those without a name included."""
    last = schema.inputs[-1] if schema.inputs else None
    if last is not None and last.option == _Option.Variadic:
        return draws.integer(max(schema.min_input, 1), max(schema.min_input, 1) + 2)
    return draws.integer(schema.min_input, schema.max_input)


def _first(scope: Scope, schema: onnx.defs.OpSchema) -> Value | None:
    formal = schema.inputs[0]
    allowed = _elements(tuple(sorted(formal.types)))
    ranks = RANKS.get(schema.name)
    fit = [
        one
        for one in scope.values
        if one.element in allowed and (ranks is None or len(one.shape) in ranks)
    ]
    if fit and scope.draws.chance(90):
        return recent(scope.draws, fit)
    if not allowed:
        return None
    element = scope.kind if scope.kind in allowed else scope.draws.pick(allowed)
    rank = scope.draws.pick(ranks or (2, 3, 1, 4, 0, 5))
    return _made(scope, element, drawn_shape(scope.draws, rank))


def recent(draws: Draws, values: Sequence[Value]) -> Value:
    """Return one of the values: mostly of the last ones, so that chains grow."""
    if draws.chance(60):
        return values[-1 - draws.integer(0, min(2, len(values) - 1))]
    return draws.pick(values)


def _made(scope: Scope, element: int, shape: Shape) -> Value | None:
    """Return a new constant, or a new input where this graph may have one."""
    try:
        if scope.new_input is not None and scope.draws.chance(30):
            return scope.new_input(element, shape)
        return scope.constant(drawn_array(scope.draws, element, shape), element)
    except (TypeError, ValueError, OverflowError, KeyError):
        return None  # a type that arrays do not have


def _further(
    scope: Scope,
    schema: onnx.defs.OpSchema,
    formal: Any,
    types: dict[str, int],
    shape: Shape,
    wanted: Shape,
) -> Value | None:
    draws = scope.draws
    allowed = _elements(tuple(sorted(formal.types)))
    element = types.get(formal.type_str)
    if element is None:
        if not allowed:
            return None
        element = scope.kind if scope.kind in allowed else draws.pick(allowed)
        types[formal.type_str] = element
    array = deciding(draws, schema.name, formal.name, shape, dtype_of(element))
    if array is not None:
        return scope.constant(array, _element_of(array, element))
    if formal.name in SCALAR:
        wanted = ()
    fit = [one for one in scope.values if one.element == element]
    alike = [one for one in fit if one.shape in (wanted, shape)]
    if alike and draws.chance(35):
        return recent(draws, alike)
    if fit and draws.chance(8):
        return draws.pick(fit)
    if schema.name == "BatchNormalization" and formal.name in ("var", "input_var"):
        numbers = draws.rng().uniform(0.1, 2.0, wanted).astype(dtype_of(element))
        return scope.constant(numbers, element)
    return _made(scope, element, wanted)


def _element_of(array: Array, wanted: int) -> int:
    found = int(helper.np_dtype_to_tensor_dtype(array.dtype))
    return found if found != wanted and array.dtype != dtype_of(wanted) else wanted


# ------------------------------------------------------------------------------- results


def append(
    scope: Scope, node: onnx.NodeProto, inputs: Sequence[Value | None]
) -> list[Value] | None:
    """Append a node if it is valid on the numbers at hand; return the tensors it writes."""
    results = _results(node, inputs, scope.opset)
    if results is None or _is_deadly(node):
        return None
    types = _types(scope, node, inputs)
    if types is None:
        return None
    found = []
    known = all(one is None or one.constant for one in inputs)
    for name, result in zip(node.output, results, strict=False):
        kind = types.get(name)
        if kind is None:
            return None
        element = kind.tensor_type.elem_type
        if isinstance(result, np.ndarray) and element and result.size <= LARGEST:
            found.append(Value(name, element, result, known))
        elif isinstance(result, np.ndarray):
            return None
        else:
            scope.loose.append((name, kind))
    scope.nodes.append(node)
    scope.values.extend(found)
    return found


def _is_deadly(node: onnx.NodeProto) -> bool:
    """Whether onnx's inference would end this process (tests/regressions has those)."""
    try:
        check_survivable(node, "")
    except ModelError:
        return True
    return False


def _types(
    scope: Scope, node: onnx.NodeProto, inputs: Sequence[Value | None]
) -> Mapping[str, TypeProto] | None:
    given = {one.name: one.info().type for one in inputs if one is not None}
    schema = schema_of(node.op_type, scope.opset)
    imports = [helper.make_opsetid("", scope.opset)]
    try:
        return onnx.shape_inference.infer_node_outputs(
            schema, node, given, opset_imports=imports
        )
    except Exception:  # noqa: BLE001  it raises errors of several kinds: the node is invalid
        return None


def _results(
    node: onnx.NodeProto, inputs: Sequence[Value | None], opset: int
) -> Sequence[Any] | None:
    """Return what a node gives in float64, None as an entry where nobody can tell."""
    arrays = [None if one is None else one.array for one in inputs]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return evaluate_node(ir.serde.deserialize_node(node), arrays, opset)
    except NoKernelError:
        return None
    except Exception:  # noqa: BLE001  what the reference cannot read is not valid here
        return None


def binary(scope: Scope, operator: str, value: Value) -> list[Value]:
    """Append an affine operator: a constant as either operand, of a shape that fits."""
    draws = scope.draws
    shape = broadcastable(draws, value.shape)
    same = [
        one
        for one in scope.values
        if one.constant and one.element == value.element and one.shape == shape
    ]
    if same and draws.chance(30):
        other = draws.pick(same)
    else:
        other = scope.constant(drawn_array(draws, value.element, shape), value.element)
    pair = [other, value] if draws.chance(25) else [value, other]
    node = helper.make_node(
        operator, [one.name for one in pair], [scope.fresh()], name=_node_name(scope)
    )
    if scope.opset < 7:
        _broadcast_by_attribute(draws, node, pair)
    return append(scope, node, pair) or []


def _broadcast_by_attribute(draws: Draws, node: onnx.NodeProto, pair: list[Value]) -> None:
    """Before version 7 the second operand broadcasts where an attribute says so."""
    first, second = pair[0].shape, pair[1].shape
    if first == second and draws.chance(50):
        return
    node.attribute.append(helper.make_attribute("broadcast", 1))
    rank = len(second)
    if rank and draws.chance(60):
        places = [k for k in range(len(first) - rank + 1) if first[k : k + rank] == second]
        if places:
            node.attribute.append(helper.make_attribute("axis", draws.pick(places)))


def floats(scope: Scope) -> list[Value]:
    """Return the values of a float type that are not constants, or else any of them."""
    found = [one for one in scope.values if one.element in FLOATS]
    return [one for one in found if not one.constant] or found
