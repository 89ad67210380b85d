"""The battery's own judgement of a fold; it knows nothing of how the fold was made."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from bnfold.evidence.reference import Evaluator
from bnfold.model.io import from_proto
from tests.reference64 import drop_nothing

ULP: Final = {  # the unit roundoff u: half the distance from 1 to the next number
    TensorProto.FLOAT16: 2.0**-11,
    TensorProto.BFLOAT16: 2.0**-8,
    TensorProto.FLOAT: 2.0**-24,
    TensorProto.DOUBLE: 2.0**-53,
}
SMALLEST_NORMAL: Final = {
    TensorProto.FLOAT16: 2.0**-14,
    TensorProto.BFLOAT16: 2.0**-126,
    TensorProto.FLOAT: 2.0**-126,
    TensorProto.DOUBLE: 2.0**-1022,
}
AFFINE_OPS: Final = frozenset({"Mul", "Add", "Sub", "Div"})
RANDOM_OPS: Final = frozenset(
    {"RandomNormal", "RandomUniform", "Dropout", "If", "Loop", "Scan"}
)
SIZED: Final = frozenset({"Resize", "Upsample"})  # their float inputs decide the shape
GATES: Final = frozenset({"HardSigmoid", "LeakyRelu"})  # attributes are stored numbers too
FREE_SIZES: Final = {"N": (2, 3), "H": (6, 9), "W": (7, 8), "V": (5, 1)}
Inputs = dict[str, np.ndarray]


# ---------------------------------------------------------------- foreign operators


def foreign(
    node: ir.Node, inputs: Sequence[np.ndarray | None], opset: int
) -> list[np.ndarray | None]:
    """Operators of domains that no kernel knows."""
    x = inputs[0]
    match node.domain, node.op_type:
        case (
            "my.ops",
            "Mystery",
        ):  # not affine, and told apart from everything else
            return [x**2 + 0.5 * x + 1]
        case "my.ops", "BatchNormalization":  # not what its name says
            return [x**2 + inputs[1].reshape(-1, 1, 1)]
    return drop_nothing(node, inputs, opset)


# --------------------------------------------------------------------------- inputs


def _odd_inputs(model: onnx.ModelProto, turn: int) -> Inputs | None:
    """Inputs of graphs whose shape is itself an input."""
    names = {i.name for i in model.graph.input}
    if "shape" not in names:
        return None
    rng = np.random.default_rng(turn)
    shape = np.array([2 + turn, 4 if _kinds(model.graph)["Conv"] else 6, 5, 6], np.int64)
    return {"x": rng.standard_normal(int(np.prod(shape))).astype(np.float32), "shape": shape}


def _value(info: onnx.ValueInfoProto, turn: int, seed: int) -> np.ndarray:
    kind = info.type.tensor_type
    shape = [
        FREE_SIZES.get(d.dim_param, (4, 5))[turn % 2] if d.dim_param else d.dim_value
        for d in kind.shape.dim
    ]
    rng = np.random.default_rng([seed, turn])
    if kind.elem_type == TensorProto.BOOL:
        return np.asarray(rng.random(shape) < 0.5) if shape else np.asarray(turn % 2 == 0)
    if kind.elem_type in ULP:
        values = np.asarray(rng.standard_normal(shape) * 1.5 + 0.2)
        return values.astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return rng.integers(0, 9, shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))


def inputs_of(model: onnx.ModelProto, turn: int) -> Inputs:
    """Seeded inputs; the free dimensions take another size every turn."""
    odd = _odd_inputs(model, turn)
    if odd is not None:
        return odd
    stored = {t.name for t in model.graph.initializer}
    return {
        info.name: _value(info, turn, zlib.crc32(info.name.encode()))
        for info in model.graph.input
        if info.name not in stored
    }


# ------------------------------------------------------------------------- counting


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)


def _kinds(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(node.op_type for inner in graphs_of(graph) for node in inner.node)


def node_count(model: onnx.ModelProto) -> int:
    return sum(_kinds(written_out(model).graph).values())


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without local functions: each call replaced by the function's body."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _constants(graph: onnx.GraphProto, ir_version: int, outer: set[str]) -> set[str]:
    """Names whose value is known before the model runs."""
    listed = {i.name for i in graph.input} if ir_version >= 4 else set()
    known = outer | {t.name for t in graph.initializer if t.name not in listed}
    known |= {t.values.name for t in graph.sparse_initializer}
    nodes = list(graph.node)
    while True:
        more = {
            name
            for node in nodes
            if node.op_type not in RANDOM_OPS and node.output[0] not in known
            if _is_known(node, known)
            for name in node.output
        }
        if not more:
            return known
        known |= more


def _is_known(node: onnx.NodeProto, known: set[str]) -> bool:
    needed = node.input[:1] if node.op_type == "CastLike" else node.input
    return all(name in known for name in needed if name)


def _integers(model: onnx.ModelProto) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = [*inferred.value_info, *inferred.input, *inferred.output]
    return {i.name for i in infos if i.type.tensor_type.elem_type not in {0, *ULP}}


def _affine_in(graph: onnx.GraphProto, known: set[str], integers: set[str]) -> int:
    count = 0
    for node in graph.node:
        stored = [name in known for name in node.input if name]
        if node.domain not in {"", "ai.onnx"} or node.output[0] in integers or all(stored):
            continue
        count += node.op_type in {"BatchNormalization", "Neg"}
        reciprocal = node.op_type == "Div" and stored[0]
        count += node.op_type in AFFINE_OPS and any(stored) and not reciprocal
    return count


def affine_count(model: onnx.ModelProto) -> int:
    """Float nodes that apply a constant map: BatchNormalization, Neg, Mul by a constant …"""
    model = written_out(model)
    integers = _integers(model)
    total, outer = 0, set()
    for graph in graphs_of(model.graph):
        outer = _constants(graph, model.ir_version, outer)
        total += _affine_in(graph, outer, integers)
    return total


# ---------------------------------------------------------------------- the error bound


def _perturbed(tensor: onnx.TensorProto, unit: float, rng: np.random.Generator) -> None:
    wide = numpy_helper.to_array(tensor).astype(np.float64)
    signs = np.where(rng.random(wide.shape) < 0.5, -1.0, 1.0)
    below_normal = unit * SMALLEST_NORMAL[tensor.data_type]
    step = np.where(wide == 0, 0.0, np.maximum(np.abs(wide) * unit, below_normal))
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(wide + signs * step), tensor.name))


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    for inner in graphs_of(graph):
        yield from inner.initializer
        yield from (t.values for t in inner.sparse_initializer)
        for node in inner.node:
            yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor, those of subgraphs and Constant nodes included."""
    return _tensors_of(model.graph)


def perturbed(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The model with every stored float moved by one unit roundoff, up or down."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    rng = np.random.default_rng(seed)
    sizes = {n for node in model.graph.node if node.op_type in SIZED for n in node.input[1:]}
    for tensor in tensors(moved):
        unit = ULP.get(tensor.data_type)
        if unit is not None and tensor.name not in sizes:
            _perturbed(tensor, unit, rng)
    for graph in graphs_of(moved.graph):
        for node in graph.node:
            if node.op_type in GATES:
                for attribute in node.attribute:
                    attribute.f *= 1 + rng.choice([-1.0, 1.0]) * 2.0**-23
    return moved


SAFETY: Final = 6.0  # the largest of few random sign patterns, against the worst pattern


def least_bounds(base: Inputs) -> dict[str, float]:
    """What float64 itself may be off, output by output."""
    bound = {}
    for name, value in base.items():
        finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind == "f" else []
        bound[name] = 1e-12 * float(np.max(finite, initial=0.0))
    return bound


def rounding_bounds(
    moved: Sequence[Evaluator], feeds: Inputs, base: Inputs
) -> dict[str, float]:
    """How far one rounding of every stored number can move each output.

    Rounding to storage is off by at most u of the number itself. Several random patterns of
    full-size errors are run; the largest change any of them makes, times a safety factor,
    bounds what the smaller errors of a true rounding make.
    """
    bound = least_bounds(base)
    for one in moved:
        for name, value in one.run(feeds).items():
            bound[name] = max(bound[name], SAFETY * largest(value, base[name]))
    return bound


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; NaN and inf count as equal to themselves."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return np.inf
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else np.inf
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    return float(np.max(np.nan_to_num(gap, nan=np.inf), initial=0.0))


# ------------------------------------------------------------------------ the questions


def wrong_outputs(original: onnx.ModelProto, folded: onnx.ModelProto) -> list[str]:
    """Outputs that differ by more than rounding the stored numbers explains.

    What the numbers of the folded model may be off is asked only where the outputs differ.
    """
    complaints = []
    before, after = evaluator(original), evaluator(folded)
    moved: list[Evaluator] = []
    for turn in range(2):
        feeds = inputs_of(original, turn)
        with np.errstate(all="ignore"):
            wanted, got = before.run(feeds), after.run(feeds)
            gaps = {name: largest(value, got[name]) for name, value in wanted.items()}
            bound = least_bounds(got)
            if any(gap > bound[name] for name, gap in gaps.items()):
                moved = moved or [evaluator(perturbed(folded, seed)) for seed in range(3)]
                bound = rounding_bounds(moved, feeds, got)
        for name, gap in gaps.items():
            if gap > bound[name]:
                complaints.append(f"{name}: {gap:.3g} off, rounding makes {bound[name]:.3g}")
    return complaints


def evaluator(model: onnx.ModelProto) -> Evaluator:
    """The float64 evaluator of a model, which runs as often as is wanted."""
    return Evaluator(from_proto(model), fallback=foreign)


def checker_complaint(model: onnx.ModelProto, *, full: bool) -> str:
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    return ""


def newly_invalid(original: onnx.ModelProto, folded: onnx.ModelProto) -> str:
    """What the checker says of the folded model but did not say of the original."""
    for full in (False, True):
        complaint = checker_complaint(folded, full=full)
        if complaint and not checker_complaint(original, full=full):
            return complaint
    return ""


def interface(model: onnx.ModelProto) -> list[bytes]:
    """Inputs and outputs as bytes; weights that IR 3 lists as inputs do not count."""
    stored = {t.name for t in model.graph.initializer} if model.ir_version < 4 else set()
    infos = [i for i in model.graph.input if i.name not in stored]
    return [i.SerializeToString() for i in (*infos, *model.graph.output)]


def default_values(model: onnx.ModelProto) -> dict[str, bytes]:
    """The stored values of overridable inputs."""
    if model.ir_version < 4:
        return {}
    listed = {i.name for i in model.graph.input}
    return {t.name: t.SerializeToString() for t in model.graph.initializer if t.name in listed}


def duplicate_names(model: onnx.ModelProto) -> list[str]:
    """Value names defined twice in the main graph."""
    graph = model.graph
    names = Counter(name for node in graph.node for name in node.output if name)
    names.update(t.name for t in graph.initializer)
    names.update(t.values.name for t in graph.sparse_initializer)
    stored = {t.name for t in graph.initializer}
    names.update(i.name for i in graph.input if i.name not in stored)
    return [name for name, count in names.items() if count > 1]


def foul_numbers(original: onnx.ModelProto, folded: onnx.ModelProto) -> list[str]:
    """Stored tensors with inf, NaN or subnormal numbers that the original did not have."""
    old = {t.SerializeToString() for t in tensors(original)}
    return [
        tensor.name
        for tensor in tensors(folded)
        if tensor.data_type in ULP and tensor.SerializeToString() not in old
        if _is_foul(tensor)
    ]


def _is_foul(tensor: onnx.TensorProto) -> bool:
    """Any inf or NaN, or a whole channel that is subnormal.

    One small weight beside larger ones is off by no more than the larger ones are, so it is
    the largest of a channel that counts. A channel that became subnormal is lost by half the
    smallest step, 2⁻²⁵ in fp16, and that is nothing beside one of which rounding takes 2⁻¹⁵.
    """
    wide = np.abs(numpy_helper.to_array(tensor).astype(np.float64))
    if not np.all(np.isfinite(wide)):
        return True
    axes = range(min(wide.ndim, 2)) if wide.ndim > 1 else ()
    peaks = [np.max(np.moveaxis(wide, a, 0).reshape(wide.shape[a], -1), 1) for a in axes]
    peaks.append(np.max(wide, initial=0.0))
    tiny = SMALLEST_NORMAL[tensor.data_type]
    mixes = wide.ndim > 1 and wide.shape[1] > 1  # else its channels read other numbers
    if mixes and np.max(wide, initial=0.0) >= 2.0**9 * tiny:
        return False
    return any(bool(np.any((peak > 0) & (peak < tiny))) for peak in peaks)
