"""What a model computes, in float64, by a way that the fold and its proof have no part in.

The kernels are those of the float64 reference, which tests compare with ONNX Runtime and with
``onnx.reference``. What decides is evaluated here, in the graph's own types, by
``onnx.reference``: constants that an operator makes which is not continuous (Floor, Round, a
Cast to integers, a comparison …), and all integers and bools. So the mistake of evaluating
such constants unrounded cannot be shared with the code under test. QuantizeLinear is read
without its rounding: two graphs that are the same function are the same then too, and
otherwise differ by steps, which say nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.campaign.sketch import Array, Case
from bnfold.evidence.reference import Evaluator, NoKernelError
from bnfold.model.graphs import subgraphs_of
from bnfold.model.io import from_proto
from tests.battery.judge import graphs_of, largest

Feeds = dict[str, Array]

HALF_ULP: Final = {
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
    TensorProto.FLOAT: 2.0**-24,
    TensorProto.DOUBLE: 2.0**-53,
}
"""Half the distance from one to the next number: the unit roundoff u."""
SMALLEST: Final = {
    TensorProto.FLOAT16: 2.0**-14,
    TensorProto.BFLOAT16: 2.0**-126,
    TensorProto.FLOAT: 2.0**-126,
    TensorProto.DOUBLE: 2.0**-1022,
}
_JUMPS: Final = """
Floor Ceil Round Mod Sign Cast CastLike Equal Greater GreaterOrEqual Less LessOrEqual Not And
Or Xor ArgMax ArgMin TopK NonZero Where QuantizeLinear DynamicQuantizeLinear IsNaN IsInf Shape
Size BitShift Compress Unique OneHot Range
"""
_NEVER: Final = """
RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli Dropout
If Loop Scan Optional
"""
JUMPS: Final = frozenset(_JUMPS.split())
NEVER: Final = frozenset(_NEVER.split())
RELAXED: Final = "campaign"
"""Domain of QuantizeLinear without rounding."""
PATTERNS: Final = 3
SAFETY: Final = 6.0
"""The largest of few random patterns of rounding, against the worst pattern."""
LEAST: Final = 1e-12
"""Relative to the largest number of an output: float64 arithmetic of small nets is better."""
SPAN: Final = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767)}


# ----------------------------------------------------------- constants, as graphs round


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with constants that decide evaluated, and QuantizeLinear relaxed.

    Functions are written out by onnx's own inliner: constants in them decide as others do.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if copy.functions:
        copy = onnx.inliner.inline_local_functions(copy)
    opsets = {one.domain: one.version for one in copy.opset_import}
    _evaluate_constants(copy.graph, {}, opsets)
    for graph in graphs_of(copy.graph):
        for node in graph.node:
            if node.op_type == "QuantizeLinear" and node.domain in ("", "ai.onnx"):
                node.domain = RELAXED
    copy.opset_import.append(helper.make_opsetid(RELAXED, 1))
    return copy


def _evaluate_constants(
    graph: onnx.GraphProto, outer: Mapping[str, Array], opsets: Mapping[str, int]
) -> None:
    """Evaluate them in a graph and in the graphs inside of it.

    Args:
        graph: The graph, changed in place.
        outer: Constants of the graphs around it.
        opsets: Versions of the operator sets.
    """
    listed = {one.name for one in graph.input}
    known = {**outer} | {
        one.name: numpy_helper.to_array(one)
        for one in graph.initializer
        if one.name not in listed and np.prod(one.dims) < 1 << 20
    }
    results_of_graph = {one.name for one in graph.output} if outer else set()
    jumped: dict[str, Array] = {}
    for node in list(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _evaluate_constants(attribute.g, known, opsets)
        results = _constant_results(node, known, opsets)
        if results is None or results_of_graph & set(results):
            continue
        known |= results
        if _decides(node, results) and not _keeps_floats(node, results):
            jumped |= results
            graph.node.remove(node)
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in jumped.items())


def _decides(node: onnx.NodeProto, results: Mapping[str, Array]) -> bool:
    whole = any(one.dtype.kind in "iub" for one in results.values())
    return whole or node.op_type in JUMPS


def _keeps_floats(node: onnx.NodeProto, results: Mapping[str, Array]) -> bool:
    """Whether a Cast goes from float to float: it keeps the value on both sides."""
    if node.op_type not in ("Cast", "CastLike"):
        return False
    return all(
        one.dtype.kind == "f" or one.dtype.name == "bfloat16" for one in results.values()
    )


def _constant_results(
    node: onnx.NodeProto, known: Mapping[str, Array], opsets: Mapping[str, int]
) -> dict[str, Array] | None:
    """Return what a node of constants gives in the types of the graph; None for others."""
    if node.op_type in NEVER or node.domain not in ("", "ai.onnx"):
        return None
    inputs = [name for name in node.input if name]
    if any(name not in known for name in inputs):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner = ReferenceEvaluator(_alone(node, known, opsets))
            found = runner.run(None, {name: known[name] for name in set(inputs)})
    except Exception:  # noqa: BLE001 — what onnx.reference cannot run stays as it is
        return None
    if any(isinstance(one, list) for one in found):
        return None  # a sequence: what is made of it is evaluated where it is read
    names = [name for name in node.output if name]
    pairs = zip(names, found, strict=True)
    return {name: np.asarray(one) for name, one in pairs}


def _alone(
    node: onnx.NodeProto, known: Mapping[str, Array], opsets: Mapping[str, int]
) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(known[name].dtype), known[name].shape
        )
        for name in dict.fromkeys(name for name in node.input if name)
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "alone", inputs, outputs)
    imports = [helper.make_opsetid("", opsets.get("", opsets.get("ai.onnx", 17)))]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


# ------------------------------------------------------------------------- evaluation


def _foreign(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array | None]:
    if node.domain == RELAXED:
        return [_unrounded(node, inputs)]
    if node.op_type == "Dropout":
        whole = np.ones(np.shape(inputs[0]), bool)
        return [inputs[0], whole][: len(node.outputs)]
    if next(subgraphs_of(node), None) is not None:
        raise NoKernelError(f"{node.domain}.{node.op_type}")
    return _by_onnx(node, inputs, opset)


def _by_onnx(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array | None]:
    """Ask ``onnx.reference``, in float32, for an operator without a kernel in float64."""
    proto = ir.serde.serialize_node(node)
    names = [name for name in proto.input if name]
    given = [one for one in inputs if one is not None]
    feeds = {
        n: a.astype(np.float32) if a.dtype.kind == "f" else a
        for n, a in zip(names, given, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = ReferenceEvaluator(_alone(proto, feeds, {"": opset}))
        found = iter(runner.run(None, feeds))
    return [np.asarray(next(found)) if name else None for name in proto.output]


def _unrounded(node: ir.Node, inputs: Sequence[Array | None]) -> Array:
    x, scale = (np.asarray(one, np.float64) for one in inputs[:2])
    zero = np.asarray(inputs[2] if len(inputs) > 2 and inputs[2] is not None else 0.0)
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    if scale.ndim == 1 and scale.size > 1 and x.ndim > 1:
        along = [1] * x.ndim
        along[axis] = scale.size
        scale, zero = scale.reshape(along), zero.reshape(along) if zero.ndim else zero
    given = node.inputs[2].const_value if len(node.inputs) > 2 and node.inputs[2] else None
    stored = 2 if given is None else int(given.dtype)
    if given is None and zero.dtype.kind in "iu":  # computed, by an Identity say
        stored = int(helper.np_dtype_to_tensor_dtype(np.dtype(zero.dtype.name)))
    low, high = SPAN.get(stored, (0, 255))
    return np.clip(x / scale + zero, low, high)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Feeds:
    """Evaluate a prepared model in float64; entries of a sequence count as outputs."""
    with np.errstate(all="ignore"):
        found = Evaluator(from_proto(model), fallback=_foreign).run(feeds)
    flat: Feeds = {}
    for name, one in found.items():
        if isinstance(one, list):
            flat |= {f"{name}[{place}]": entry for place, entry in enumerate(one)}
        elif one is not None:
            flat[name] = one
    return flat


def feeds_of(case: Case, turn: int, seed: int) -> Feeds:
    """Draw inputs; the open sizes take those of the turn."""
    sizes = case.sizes[turn % len(case.sizes)]
    stored = {one.name for one in case.model.graph.initializer}
    rng = np.random.default_rng((seed, turn, 77))
    factor = (1.0, 4.0, 0.3)[turn % 3]
    return {
        one.name: _drawn(one, sizes, rng, case.feeds.get(one.name), factor)
        for one in case.model.graph.input
        if one.name not in stored
    }


def _drawn(
    info: onnx.ValueInfoProto,
    sizes: Mapping[str, int],
    rng: np.random.Generator,
    how: Any,
    factor: float,
) -> Array:
    kind = info.type.tensor_type
    shape = [
        sizes.get(d.dim_param, 2)
        if d.dim_param
        else d.dim_value
        if d.HasField("dim_value")
        else 1
        for d in kind.shape.dim
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    if isinstance(how, str) and how == "mask":
        mask = rng.random(shape) < 0.75
        mask[..., 0] = True
        return mask.astype(dtype)
    if isinstance(how, np.ndarray):
        return how
    if kind.elem_type == TensorProto.BOOL:
        return np.asarray(rng.random(shape) < 0.5)
    if kind.elem_type in HALF_ULP:
        if isinstance(how, tuple):
            return (how[1] * (1 + 0.1 * rng.standard_normal(shape))).astype(dtype)
        return np.asarray(factor * rng.standard_normal(shape) + 0.2).astype(dtype)
    return np.asarray(rng.integers(0, 4, shape)).astype(dtype)


# --------------------------------------------------------------------------- bounds


def written(original: onnx.ModelProto, folded: onnx.ModelProto) -> set[str]:
    """Return the names of floating tensors that the fold wrote, those of subgraphs too.

    What the original holds as well, under whatever name, was not rounded anew.
    """
    old = {_bits(one) for one in stored(original).values()}
    return {
        name
        for name, one in stored(folded).items()
        if one.data_type in HALF_ULP and _bits(one) not in old
    }


def weights_of(model: onnx.ModelProto, nodes: set[str]) -> set[str]:
    """Return the names of floating tensors that nodes of these names read."""
    tensors = stored(model)
    read = {
        name
        for graph in graphs_of(model.graph)
        for node in graph.node
        if node.name in nodes
        for name in node.input
    }
    return {name for name in read & set(tensors) if tensors[name].data_type in HALF_ULP}


def stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return stored tensors by name, those of subgraphs and of Constant nodes too."""
    found = {t.name: t for graph in graphs_of(model.graph) for t in graph.initializer}
    found |= {
        node.output[0]: a.t
        for graph in graphs_of(model.graph)
        for node in graph.node
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return found


def _bits(one: onnx.TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return one.data_type, tuple(one.dims), numpy_helper.to_array(one).tobytes()


def moved(model: onnx.ModelProto, names: set[str], seed: int) -> onnx.ModelProto:
    """Return the model with these tensors moved by half an ulp, up or down.

    Equal numbers are rounded alike: what a Gather repeats a thousand times is off by the same
    each time, which errors that are drawn apart would average away. Numbers that became equal
    by rounding are not: every other pattern moves each by itself. Attributes in float32 that a
    fold may write (slopes) move as well.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(seed)
    for graph in graphs_of(copy.graph):
        for tensor in graph.initializer:
            if tensor.name in names:
                _move(tensor, rng, alike=seed % 2 == 0)
        for node in graph.node:
            for attribute in node.attribute:
                if (
                    node.op_type == "Constant"
                    and node.output[0] in names
                    and attribute.HasField("t")
                ):
                    _move(attribute.t, rng, alike=seed % 2 == 0)
                if attribute.name in ("alpha", "beta") and node.op_type in _SLOPED:
                    attribute.f *= 1 + float(rng.choice([-1.0, 1.0])) * 2.0**-23
    return copy


_SLOPED: Final = ("HardSigmoid", "LeakyRelu")


def _move(tensor: onnx.TensorProto, rng: np.random.Generator, *, alike: bool) -> None:
    if tensor.data_type not in HALF_ULP:
        return  # integers are what they are
    wide = numpy_helper.to_array(tensor).astype(np.float64)
    unit = HALF_ULP[tensor.data_type]
    floor = unit * SMALLEST[tensor.data_type]
    still = (wide == 0) | ~np.isfinite(wide)
    step = np.where(still, 0.0, np.maximum(np.abs(wide) * unit, floor))
    signs = rng.choice([-1.0, 1.0], wide.shape)
    if alike:
        _, first, place = np.unique(np.abs(wide), return_index=True, return_inverse=True)
        signs = np.sign(wide) * signs.reshape(-1)[first][place].reshape(wide.shape)
    array = np.asarray(wide + signs * step)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def bounds(
    model: onnx.ModelProto, names: set[str], feeds: Feeds, base: Feeds
) -> dict[str, float]:
    """Return how far rounding these tensors can move each output of a prepared model."""
    found = {name: LEAST * _peak(one) for name, one in base.items()}
    for seed in range(PATTERNS):
        for name, one in run(moved(model, names, seed), feeds).items():
            found[name] = max(found[name], SAFETY * largest(one, base[name]))
    return found


def widened(
    bound: Mapping[str, float],
    original: onnx.ModelProto,
    folded: onnx.ModelProto,
    feeds: Feeds,
    base: Feeds,
) -> dict[str, float]:
    """Return bounds that allow what a fold read to be rounded as well.

    A fold may take the float32 next to 1/6 for 1/6. Whole numbers are meant as they are: one
    nudged in ``(1 − mask) · lowest`` opens the mask, and explains everything.
    """
    kept = stored(folded)
    read = {
        name
        for name, one in stored(original).items()
        if one.data_type in HALF_ULP and name not in kept and not _is_whole(one)
    }
    more = bounds(original, read, feeds, base)
    return {name: max(one, more[name]) for name, one in bound.items()}


def _is_whole(tensor: onnx.TensorProto) -> bool:
    array = numpy_helper.to_array(tensor).astype(np.float64)
    return bool(np.all(array == np.round(array)))


def _peak(array: Array) -> float:
    if array.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(array[np.isfinite(array)]), initial=0.0))


def excess(found: Feeds, wanted: Feeds, bound: Mapping[str, float]) -> float:
    """Return the largest difference of an output, in units of its bound."""
    return max(
        (_over(largest(found[name], one), bound[name]) for name, one in wanted.items()),
        default=0.0,
    )


def _over(gap: float, bound: float) -> float:
    if gap == 0:
        return 0.0
    return gap / bound if bound > 0 else np.inf
