"""Every operator of the ONNX backend suite, with maps and layers in front of it and behind."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.campaign.layers import affine, linear, norm, some_map
from benchmarks.campaign.sketch import TYPES, Array, Case, NoCaseError, Place, Sketch, named
from benchmarks.campaign.truth import NEVER

_KINDS: Final = {number: word for word, number in TYPES.items()}
_LARGEST: Final = 200_000
_STRIDE: Final = 769
"""A prime: neighbouring numbers are different operators, and all are met in turn."""


@cache
def models(operator: str = "") -> Sequence[Any]:
    """Return the test cases of the suite: all, or those that are one node of one operator.

    All of them take seconds to make.
    """
    suite = importlib.import_module("onnx.backend.test.case.node")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if operator:
            importlib.import_module(f"{suite.__name__}.{operator.lower()}")
            found = vars(suite)["_NodeTestCases"]
        else:
            found = suite.collect_testcases(None)
    unique = {
        one.name: one
        for one in found
        if one.kind == "node" and (not operator or _is_only(one.model, operator))
    }
    return tuple(unique[name] for name in sorted(unique))


def _is_only(model: onnx.ModelProto, operator: str) -> bool:
    return [node.op_type for node in model.graph.node] == [operator]


def case_of(number: int, operator: str = "") -> tuple[str, Case]:
    """Return the name of a test case, and the case that belongs to a number.

    Numbers run over all test cases first, then over other maps around them.

    Raises:
        NoCaseError: If nothing can be put around it.
    """
    pool = models(operator)
    test = pool[number * _STRIDE % len(pool)]
    if not _floats(test.model.graph.output):
        raise NoCaseError("no floating output")
    rng = np.random.default_rng((number, 29))
    return test.name, wrapped(test, rng)


def wrapped(test: Any, rng: np.random.Generator) -> Case:
    """Return the case of a model with maps and layers around it.

    Raises:
        NoCaseError: If nothing can be put around it.
    """
    model = test.model
    _must_be_wrappable(test)
    given = _samples(test)
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    kind = _kind_of(model)
    sketch = Sketch(rng, kind, opset)
    front, feeds, constants = _front(sketch, model, given, rng)
    ends = _behind(sketch, test, kind)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    del graph.node[:], graph.input[:], graph.output[:]
    graph.input.extend(sketch.inputs)
    graph.node.extend([*front, *model.graph.node, *ends[0]])
    graph.initializer.extend([*sketch.weights, *constants])
    graph.output.extend(ends[1])
    del graph.value_info[:]
    whole.ir_version = max(whole.ir_version, 4)  # before, all constants are listed as inputs
    return Case(named(whole), "suite", kind, feeds=feeds)


def _must_be_wrappable(test: Any) -> None:
    model = test.model
    kinds = {node.op_type for node in model.graph.node}
    if kinds & (NEVER - {"If", "Loop", "Scan", "Dropout"}):
        raise NoCaseError("its results are random")
    if not test.data_sets:
        raise NoCaseError("it has no inputs")
    imports = {one.domain for one in model.opset_import}
    if imports - {"", "ai.onnx"}:
        raise NoCaseError("another operator set")
    for info in (*model.graph.input, *model.graph.output):
        if not info.type.HasField("tensor_type"):
            raise NoCaseError("an input or output that is no tensor")


def _floats(infos: Sequence[onnx.ValueInfoProto]) -> list[str]:
    return [one.name for one in infos if one.type.tensor_type.elem_type in _KINDS]


def _kind_of(model: onnx.ModelProto) -> str:
    for info in (*model.graph.output, *model.graph.input):
        word = _KINDS.get(info.type.tensor_type.elem_type)
        if word:
            return word
    raise NoCaseError("no floating value")


def _samples(test: Any) -> dict[str, Array]:
    inputs = test.data_sets[0][0]
    stored = {one.name for one in test.model.graph.initializer}
    names = [one.name for one in test.model.graph.input if one.name not in stored]
    if len(inputs) != len(names) or any(
        not isinstance(a, np.ndarray | np.generic) for a in inputs
    ):
        raise NoCaseError("inputs that are no arrays")
    found = {name: np.asarray(one) for name, one in zip(names, inputs, strict=True)}
    if any(one.size > _LARGEST for one in found.values()):
        raise NoCaseError("large inputs")
    return found


def _front(
    sketch: Sketch, model: onnx.ModelProto, given: dict[str, Array], rng: np.random.Generator
) -> tuple[list[onnx.NodeProto], dict[str, Any], list[onnx.TensorProto]]:
    """Put maps in front of floating inputs; make some of the further inputs constants."""
    feeds: dict[str, Any] = {}
    constants: list[onnx.TensorProto] = []
    for place, info in enumerate(one for one in model.graph.input if one.name in given):
        array, kind = given[info.name], info.type.tensor_type.elem_type
        if place and (rng.random() < 0.7 or _decides_sizes(model, array)):
            constants.append(_stored(array, info.name, kind))
            continue
        mapped = kind == sketch.element and array.ndim > 0 and rng.random() < 0.8
        name = f"{info.name}_in" if mapped else info.name
        sketch.given(name, list(array.shape), kind)
        feeds[name] = ("near", array) if mapped else array
        if mapped:
            _mapped_input(sketch, name, info.name, array)
    return list(sketch.nodes), feeds, constants


def _decides_sizes(model: onnx.ModelProto, array: Array) -> bool:
    """Whether an input is likely axes, a shape, or scales: no runtime gets them drawn."""
    sized = any(node.op_type in ("Resize", "Upsample") for node in model.graph.node)
    return sized or (array.dtype.kind == "i" and array.ndim < 2 and array.size <= 8)


def _mapped_input(sketch: Sketch, name: str, target: str, array: Array) -> None:
    end = _gentle(sketch, Place(name, array.shape))
    if sketch.chance(0.4) and array.ndim in (2, 4) and sketch.element == TensorProto.FLOAT:
        end = norm(sketch, end)
    if end.name == name:
        end = Place(sketch.op("Identity", [name]), array.shape)
    sketch.nodes[-1].output[0] = target


def _gentle(sketch: Sketch, place: Place) -> Place:
    """A map close to the identity, so that values stay where an operator is defined."""
    axis = 1 if place.rank > 1 and sketch.chance(0.7) else 0
    along = [place.shape[axis], *[1] * (place.rank - axis - 1)]
    along = along if sketch.chance(0.8) else []
    scale = sketch.const(sketch.rng.uniform(0.6, 1.4, along), "s")
    name = sketch.op("Mul", [place.name, scale])
    if sketch.chance(0.5):
        shift = sketch.const(sketch.rng.uniform(0.0, 0.2, along), "t")
        name = sketch.op("Add", [name, shift])
    return Place(name, place.shape)


def _stored(array: Array, name: str, kind: int) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.asarray(array), name)
    if tensor.data_type != kind:
        raise NoCaseError("a type that arrays do not have")
    return tensor


def _behind(
    sketch: Sketch, test: Any, kind: str
) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """Put a map behind every floating output, a layer behind some, before the map or after."""
    sketch.nodes = []
    outputs = []
    results = test.data_sets[0][1]
    for info, array in zip(test.model.graph.output, results, strict=False):
        if not isinstance(array, np.ndarray) or info.type.tensor_type.elem_type != TYPES[kind]:
            outputs.append(info)
            continue
        place = _ended(sketch, Place(info.name, array.shape))
        free = [None] * place.rank
        outputs.append(helper.make_tensor_value_info(place.name, TYPES[kind], free))
    return sketch.nodes, outputs


def _ended(sketch: Sketch, place: Place) -> Place:
    """Append a map and a layer in either order, or three maps: so that something folds."""
    if 0 in place.shape or not place.shape:
        return place
    if place.rank in (2, 3, 4) and sketch.chance(0.7):
        if sketch.chance(0.5):
            return some_map(sketch, linear(sketch, place))
        return linear(sketch, some_map(sketch, place))
    axis = place.rank - 1
    for _ in range(3):  # three maps are two operators at most
        place = affine(sketch, place, axis)
    return place
