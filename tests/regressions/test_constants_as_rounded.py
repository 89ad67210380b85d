"""Constants had other values than the graph's own types give: floors, indices, branches.

Each case is first shown to be one: unrounded float64 answers otherwise than the type does.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence.reference import NoKernelError
from tests.chains import TYPES, Chain
from tests.reference64 import run64

KINDS = list(TYPES)
NARROW = [kind for kind in KINDS if kind != "float64"]
INTEGERS = np.arange(1, 60)


def _runtime():
    return pytest.importorskip("tests.battery.runtime")


def _feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    entry = model.graph.input[0]
    shape = [d.dim_value or 2 for d in entry.type.tensor_type.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    return {"x": np.random.default_rng(seed).normal(size=shape).astype(dtype)}


def _assert_same(model: onnx.ModelProto, tolerance: float) -> onnx.ModelProto:
    """The folded model computes what the original does, in float64 and on the runtime."""
    folded = bnfold.fold(model, verify=False).to_proto()
    assert [n.op_type for n in folded.graph.node if n.op_type == "BatchNormalization"] == []
    feeds = _feeds(model)
    wanted, got = run64(model, feeds)["y"], run64(folded, feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    if feeds["x"].dtype == np.float32:
        runtime = _runtime()
        wanted, complaint = runtime.outputs(model, feeds, optimised=False)
        got, other = runtime.outputs(folded, feeds, optimised=False)
        assert complaint == other == ""
        scale = np.abs(wanted["y"]).max()
        np.testing.assert_allclose(got["y"], wanted["y"], rtol=0, atol=1e-5 * scale)
    return folded


def _weight(folded: onnx.ModelProto) -> np.ndarray:
    """The weight of the only Conv, without the scale that the fold multiplied into it."""
    tensors = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
    conv = next(node for node in folded.graph.node if node.op_type == "Conv")
    return tensors[conv.input[1]].astype(np.float64)


def _slopes(chain: Chain) -> np.ndarray:
    """What `Chain` normalises with, in float64."""
    rng = np.random.default_rng(chain.array.size)
    scale, _, _, var = (
        rng.uniform(0.5, 1.5, chain.array.size).astype(chain.dtype).astype(np.float64)
        for _ in range(4)
    )
    return scale / np.sqrt(var + np.float32(1e-5))


def _assert_weight(chain: Chain) -> None:
    eps = float(np.finfo(np.float32).eps if chain.kind == "float64" else 0)
    eps = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(chain.kind, eps)
    wanted = chain.array.astype(np.float64) * _slopes(chain)
    folded = _assert_same(chain.weight(), 2 * eps)
    np.testing.assert_allclose(_weight(folded).reshape(-1), wanted, rtol=eps, atol=1e-12)


def _product(kind: str, differs) -> Chain:
    """Integers times a factor whose product, once rounded, answers otherwise."""
    for factor in np.linspace(0.05, 3, 591):
        chosen = _chosen(kind, factor, differs)
        if len(chosen) >= 2 or kind == "float64":
            return Chain.begin(kind, [*chosen[:4], 3, 11]).then("Mul", factor)
    pytest.fail("no factor shows anything")


def _chosen(kind: str, factor: float, differs) -> np.ndarray:
    dtype = TYPES[kind][1]
    once = np.asarray(factor).astype(dtype)
    rounded = (INTEGERS.astype(dtype) * once).astype(dtype).astype(np.float64)
    return INTEGERS[differs(INTEGERS * float(once), rounded)]


def _apart(function):
    return lambda exact, rounded: function(exact) != function(rounded)


STEPS = {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": lambda x: np.rint(x),
    "int": np.trunc,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["Floor", "Ceil", "int"])
def test_a_rounding_to_integers_reads_rounded_numbers(kind, step):
    chain = _product(kind, _apart(STEPS[step]))
    _assert_weight(chain.then(step, 0).then("Add", 0.5))


@pytest.mark.parametrize("kind", NARROW)
def test_a_round_reads_rounded_numbers(kind):
    chain = _product(kind, _apart(np.rint))
    _assert_weight(chain.then("Round", 0).then("Add", 0.5))


@pytest.mark.parametrize("kind", NARROW)
def test_a_remainder_reads_rounded_numbers(kind):
    chain = _product(kind, _apart(lambda x: np.floor(x / 7)))
    _assert_weight(chain.then("Mod", 7.0).then("Add", 0.25))


@pytest.mark.parametrize("kind", NARROW)
def test_a_sign_and_a_comparison_read_rounded_numbers(kind):
    chain = _product(kind, _apart(lambda x: np.sign(x - np.rint(x))))
    whole = float(chain.array[0])
    signs = chain.then("Sub", whole).then("Sign", 0).then("Add", 2.0)
    _assert_weight(signs)
    chain = _product(kind, _apart(lambda x: x >= np.rint(x)))
    _assert_weight(chain.then("Where", float(chain.array[0])))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_a_gather_takes_the_row_that_the_graph_takes(kind):
    chain = _product(kind, _apart(np.floor)).then("Floor", 0)
    model = chain.index()
    _assert_same(model, {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}[kind])


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_an_if_takes_the_branch_that_the_graph_takes(kind):
    chain = _product(kind, _apart(np.floor))
    model = chain.branch(float(np.rint(chain.array[0].astype(float))))
    folded = _assert_same(model, {"float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}[kind])
    taken = "Relu" if chain.array[0] >= np.rint(chain.array[0].astype(float)) else "Neg"
    assert [n.op_type for n in folded.graph.node] == [taken, "Conv"] or taken == "Neg"


def test_a_narrowing_cast_rounds_twice_as_the_graph_does():
    """√k in float32, then in float16: not what float64 gives when it is rounded at once."""
    numbers = np.random.default_rng(0).uniform(1, 100, 500_000).astype(np.float32)
    wide = np.sqrt(numbers.astype(np.float64))
    twice, once = np.sqrt(numbers).astype(np.float16), wide.astype(np.float16)
    apart = numbers[twice != once]
    assert apart.size >= 2
    chain = Chain.begin("float32", [*apart[:4], 5.0]).then("Sqrt", 0).then("half", 0)
    _assert_weight(chain)


# ------------------------------------------------------------------------ sizes and lengths


def _by_scales(kind: str) -> onnx.ModelProto:
    """Resize by computed scales, then Conv and BatchNormalization."""
    chain = Chain.begin("float32", [1.0, 1.0, 0.7, 0.7])
    if kind == "floor":  # 10 · 0.7f is 7 in float32
        chain.then("Mul", 10.0).then("Floor", 0).then("Div", 10.0)
    else:
        chain.then("Mul", 3.0).then("Div", 3.0)
    resize = helper.make_node("Resize", ["x", "", chain.name], ["r"], mode="nearest")
    rng = np.random.default_rng(3)
    weight = chain.constant(rng.normal(size=(3, 2, 1, 1)).astype(np.float32))
    conv = helper.make_node("Conv", ["r", weight], ["c"], name="conv")
    nodes = [resize, conv, chain._norm("c", 3)]
    return chain._model(nodes, ["N", 2, 10, 10], ["N", 3, None, None])


@pytest.mark.parametrize("kind", ["floor", "plain"])
def test_computed_scales_resize_as_the_graph_does(kind):
    model = _by_scales(kind)
    feeds = _feeds(model)
    (size,) = {run64(model, feeds)["y"].shape}
    found, complaint = _runtime().outputs(model, feeds, optimised=False)
    assert complaint == ""
    assert found["y"].shape == size
    _assert_same(model, 1e-6)


def _ranges(limit: float, delta: float, count: int) -> onnx.ModelProto:
    """Conv weight = Range(0, limit, delta) + 1."""
    chain = Chain.begin("float32", limit)
    zero, step = (chain.constant(np.float32(n)) for n in (0.0, delta))
    chain.name = chain.node("Range", zero, chain.name, step)
    chain.array = np.arange(count, dtype=np.float32) * np.float32(delta)
    return chain.then("Add", 1.0).weight()


@pytest.mark.parametrize(("limit", "delta", "count"), [(3.0, 0.5, 6), (4.0, 0.75, 6)])
def test_a_range_has_as_many_elements_as_in_the_graph(limit, delta, count):
    _assert_same(_ranges(limit, delta, count), 1e-6)


def test_a_range_of_unsure_length_is_refused():
    """(7 − 0) / 0.7f is 10 in float32 and 10.0000002 in float64."""
    model = _ranges(7.0, 0.7, 11)
    result = bnfold.fold(model, verify=False)
    whys = [refusal.why for refusal in result.report.refusals]
    assert any("could go either way" in why for why in whys), whys
    with pytest.raises(NoKernelError, match="could go either way"):
        run64(model, _feeds(model))


# ------------------------------------------------------------------- what cannot be decided


def _unsure(function: str, number: float, step: str = "Floor") -> onnx.ModelProto:
    """A step that stands on the very number that an inexact function gives."""
    chain = Chain.begin("float32", [number, 2 * number]).then(function, 0)
    return chain.then("Div", float(chain.array[0])).then(step, 0).then("Add", 1.0).weight()


@pytest.mark.parametrize("function", ["Exp", "Tanh", "Sigmoid"])
@pytest.mark.parametrize("step", ["Floor", "Ceil", "int"])
def test_a_tie_within_an_ulp_is_refused_with_its_reason(function, step):
    model = _unsure(function, 0.3, step)
    result = bnfold.fold(model, verify=False)
    folded = result.to_proto()
    assert "BatchNormalization" in [node.op_type for node in folded.graph.node]
    codes = {refusal.code for refusal in result.report.refusals}
    assert codes == {"undecided-constant"}
    assert all("could go either way" in r.why for r in result.report.refusals)
    feeds = _feeds(model)
    with pytest.raises(NoKernelError, match="could go either way"):
        run64(model, feeds)
    wanted, _ = _runtime().outputs(model, feeds, optimised=False)
    got, _ = _runtime().outputs(folded, feeds, optimised=False)
    np.testing.assert_array_equal(got["y"], wanted["y"])


@pytest.mark.parametrize("step", ["Floor", "Round", "int"])
def test_an_inexact_function_far_from_a_step_is_decided(step):
    chain = Chain.begin("float32", [0.3, 1.7]).then("Exp", 0).then("Mul", 3.0)
    _assert_weight(chain.then(step, 0))


def test_a_verdict_on_what_is_undecided_is_none():
    """The same nodes on the same numbers are the same; with other numbers nobody knows."""
    model = _unsure("Exp", 0.3)
    assert bnfold.verify(model, bnfold.fold(model, verify=False).model, run=False).passed
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(model)
    bn = next(node for node in spoiled.graph.node if node.op_type == "BatchNormalization")
    weight = next(t for t in spoiled.graph.initializer if t.name == bn.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 3, weight.name))
    verdict = bnfold.verify(model, spoiled, run=False)
    assert not verdict.passed


@pytest.mark.parametrize("value", [np.inf, np.nan, 3e9])
def test_a_float_beyond_the_integers_is_undecided(value):
    chain = Chain.begin("float32", [value, 1.0]).then("Mul", 1.0)
    model = chain.then("int", 0).then("Add", 1.0).weight()
    result = bnfold.fold(model, verify=False)
    assert "BatchNormalization" in [n.op_type for n in result.to_proto().graph.node]
    assert any("differ" in refusal.why for refusal in result.report.refusals)


def test_a_stored_constant_decides_what_it_decided_before():
    """Rounded once, (a · b) · c is another number than rounded twice."""
    rng = np.random.default_rng(0)
    a, b, c = rng.uniform(0.1, 3, (3, 4000)).astype(np.float32)
    twice, once = a * b * c, (a.astype(float) * b * c).astype(np.float32)
    place = int(np.argmax(twice > once))
    chain = Chain.begin("float32", [a[place]]).then("Mul", b[place]).then("Mul", c[place])
    assert float(chain.array[0]) > float(once[place])
    model = chain.branch(float(chain.array[0]))
    folded = _assert_same(model, 1e-6)
    assert [node.op_type for node in folded.graph.node] == ["Relu", "Conv"]


@pytest.mark.parametrize("kind", NARROW)
def test_what_cancels_is_not_blown_up(kind):
    """√(10 · 0.7f − 7) is 0 in float32, and 3.5e-4 of unrounded numbers."""
    chain = _product(kind, _apart(np.floor))
    chain.then("Sub", float(chain.array[0])).then("Sqrt", 0).then("Add", 0.125)
    assert float(chain.array[0]) == 0.125
    _assert_weight(chain)


def test_a_loop_body_reads_the_rounded_numbers_of_constants():
    """Turn by turn a row of a table is added: row ⌊10 · 0.7f⌋ = 7."""
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["ten", "factor"], ["product"]),
            helper.make_node("Floor", ["product"], ["floor"]),
            helper.make_node("Cast", ["floor"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["picked"], axis=0),
            helper.make_node("Add", ["carried", "picked"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [None]),
        ],
    )
    table = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    held = {
        "count": np.array(2),
        "ten": np.float32(10),
        "factor": np.float32(0.7),
        "table": table,
    }
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)],
        "loop",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    found = run64(model, {"x": np.zeros(3, np.float32)})["y"]
    np.testing.assert_array_equal(found, 2 * table[7].astype(np.float64))
