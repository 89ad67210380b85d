"""The reference reads constants as the model's own types give them, wherever they stand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.evidence.proof.sides import CannotEvaluateError, Side
from bnfold.evidence.reference import NoKernelError
from bnfold.model.io import from_proto
from tests.chains import Chain
from tests.reference64 import run64

N = helper.make_node
F, INT = TensorProto.FLOAT, TensorProto.INT64


def _model(nodes, held, x, opset=17, functions=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "typed",
        [helper.make_tensor_value_info("x", F, x)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=10, functions=list(functions)
    )


TEN = {"ten": np.float32(10), "factor": np.float32(0.7)}
SEVEN = [N("Mul", ["ten", "factor"], ["seven"])]
"""7 in float32, 6.99999988 before it is rounded."""
X = np.arange(12, dtype=np.float32).reshape(1, 12)


def _run(nodes, held=TEN, x=X, **more) -> np.ndarray:
    return run64(_model(nodes, held, x.shape, **more), {"x": x})["y"]


def test_a_step_beside_an_activation_reads_the_rounded_constant():
    found = _run([*SEVEN, N("GreaterOrEqual", ["x", "seven"], ["y"])])
    np.testing.assert_array_equal(found, X >= 7)


def test_a_smooth_operator_reads_the_unrounded_one():
    found = _run([*SEVEN, N("Mul", ["x", "seven"], ["y"])])
    np.testing.assert_array_equal(found, X.astype(float) * (10 * float(np.float32(0.7))))


def test_activations_stay_unrounded():
    """Casts and floors of them see the float64 values, as they always did."""
    nodes = [N("Mul", ["x", "factor"], ["a"]), N("Cast", ["a"], ["h"], to=TensorProto.FLOAT16)]
    found = _run([*nodes, N("Identity", ["h"], ["y"])])
    np.testing.assert_array_equal(found, X.astype(float) * float(np.float32(0.7)))


def test_inside_of_a_function():
    body = [
        N("Mul", ["a", "b"], ["p"]),
        N("Floor", ["p"], ["f"]),
        N("Add", ["c", "f"], ["d"]),
    ]
    opsets = [helper.make_opsetid("", 17)]
    own = helper.make_function("own", "Cut", ["a", "b", "c"], ["d"], body, opsets)
    nodes = [N("Cut", ["ten", "factor", "x"], ["y"], domain="own")]
    np.testing.assert_array_equal(_run(nodes, functions=[own]), X + 7)


def test_a_function_hands_over_what_is_known():
    body = [N("Mul", ["a", "b"], ["p"])]
    opsets = [helper.make_opsetid("", 17)]
    own = helper.make_function("own", "Product", ["a", "b"], ["p"], body, opsets)
    nodes = [N("Product", ["ten", "factor"], ["p"], domain="own"), N("Floor", ["p"], ["f"])]
    found = _run([*nodes, N("Add", ["x", "f"], ["y"])], functions=[own])
    np.testing.assert_array_equal(found, X + 7)


@pytest.mark.parametrize("taken", [True, False])
def test_inside_and_behind_of_a_branch(taken):
    """The branch computes 10 · 0.7f; behind the If it is cut to an integer."""
    other = helper.make_graph(
        [N("Neg", ["factor"], ["e"])], "e", [], [helper.make_tensor_value_info("e", F, [])]
    )
    product = helper.make_graph(
        [N("Mul", ["ten", "factor"], ["t"])],
        "t",
        [],
        [helper.make_tensor_value_info("t", F, [])],
    )
    branches = {"then_branch": product, "else_branch": other}
    nodes = [N("If", ["go"], ["p"], **branches), N("Floor", ["p"], ["f"])]
    found = _run([*nodes, N("Add", ["x", "f"], ["y"])], {**TEN, "go": np.array(taken)})
    np.testing.assert_array_equal(found, X + (7 if taken else -1))


def test_what_a_loop_carries_is_known():
    """0.7f is added ten times in float32, and cut: numpy does the same."""
    body = helper.make_graph(
        [N("Add", ["carried", "factor"], ["next"]), N("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("turn", INT, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", F, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", F, []),
        ],
    )
    held = {**TEN, "count": np.array(9)}
    nodes = [
        N("Loop", ["count", "", "factor"], ["sum"], body=body),
        N("Floor", ["sum"], ["f"]),
    ]
    wanted = np.float32(0.7)
    for _ in range(9):
        wanted += np.float32(0.7)
    found = _run([*nodes, N("Add", ["x", "f"], ["y"])], held)
    np.testing.assert_array_equal(found, X + np.floor(wanted))


def test_the_turn_of_a_loop_is_known():
    """Row ⌊turn · 0.7f⌋ of a table, ten turns: the last but one is 10 · 0.7f = 7."""
    body = helper.make_graph(
        [
            N("Cast", ["turn"], ["wide"], to=F),
            N("Mul", ["wide", "factor"], ["p"]),
            N("Floor", ["p"], ["f"]),
            N("Add", ["carried", "f"], ["next"]),
            N("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", INT, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", F, [1, 12]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", F, [1, 12]),
        ],
    )
    found = _run(
        [N("Loop", ["count", "", "x"], ["y"], body=body)], {**TEN, "count": np.array(11)}
    )
    turns = np.floor(np.arange(11, dtype=np.float32) * np.float32(0.7))
    np.testing.assert_array_equal(found, X + turns.sum())


def test_sizes_that_a_shape_gives_are_known():
    """Interpolation to ⌊10 · 0.7f⌋ of the size that an input has at run time."""
    x = np.zeros((1, 1, 10), np.float32)
    nodes = [
        N("Shape", ["x"], ["sh"]),
        N("Gather", ["sh", "two"], ["size"], axis=0),
        N("Cast", ["size"], ["wide"], to=F),
        N("Mul", ["wide", "factor"], ["p"]),
        N("Floor", ["p"], ["f"]),
        N("Cast", ["f"], ["new"], to=INT),
        N("Concat", ["ones", "new"], ["sizes"], axis=0),
        N("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    held = {"two": np.array([2]), "ones": np.array([1, 1]), "factor": np.float32(0.7)}
    assert _run(nodes, held, x).shape == (1, 1, 7)


def test_computed_scales_are_rounded():
    """0.7f · 10 / 10 in float32."""
    x = np.zeros((1, 1, 10), np.float32)
    held = {"s": np.float32([1, 1, 0.7]), "ten": np.float32(10)}
    nodes = [
        N("Mul", ["s", "ten"], ["a"]),
        N("Div", ["a", "ten"], ["b"]),
        N("Resize", ["x", "", "b"], ["y"], mode="nearest"),
    ]
    assert _run(nodes, held, x).shape == (1, 1, 7)


@pytest.mark.parametrize("like", [np.float16, np.float32, np.int32])
def test_cast_like_rounds_constants(like):
    held = {**TEN, "like": np.zeros(1, like)}
    nodes = [*SEVEN, N("CastLike", ["seven", "like"], ["c"]), N("Floor", ["c"], ["f"])]
    kind = {np.float16: "f", np.float32: "f", np.int32: "c"}[like]
    back = [N("Cast", [kind], ["w"], to=F), N("Add", ["x", "w"], ["y"])]
    chosen = nodes if kind == "f" else nodes[:-1]
    np.testing.assert_array_equal(_run([*chosen, *back], held), X + 7)


def test_a_constant_is_quantised_by_float32_division():
    """Steps of s, of which float64 finds some in the middle between two integers."""
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.01, 0.05, 4000).astype(np.float32)
    halves = (np.arange(1, 90) + 0.5).astype(np.float32)
    quotients = halves[:, None] * scales
    apart = np.rint(quotients / scales) != np.rint(
        quotients.astype(float) / scales.astype(float)
    )
    row, column = np.argwhere(apart)[0]
    held = {"w": quotients[row, column : column + 1], "s": scales[column], "z": np.int8(0)}
    nodes = [
        N("QuantizeLinear", ["w", "s", "z"], ["q"]),
        N("Cast", ["q"], ["c"], to=F),
        N("Add", ["x", "c"], ["y"]),
    ]
    wanted = np.rint(quotients[row, column] / scales[column])
    np.testing.assert_array_equal(_run(nodes, held), X + wanted)


def test_long_chains_are_no_recursion():
    chain = Chain.begin("float32", [2.0, 3.0])
    for _ in range(1500):
        chain.then("Add", 0.1)
    model = chain.then("Floor", 0).weight()
    x = np.ones((1, 2, 2, 2), np.float32)
    other = Chain.begin("float32", chain.array).then("Floor", 0).weight()
    np.testing.assert_array_equal(run64(model, {"x": x})["y"], run64(other, {"x": x})["y"])


# ------------------------------------------------------------------------------- the proof


def _constant(nodes, name: str, held=TEN) -> np.ndarray:
    model = from_proto(_model([*nodes, N("Identity", ["x"], ["y"])], held, [1, 12]))
    side = Side(model)
    return side.constant(side.values[name])


@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ([N("Floor", ["seven"], ["c"])], 7),
        ([N("Cast", ["seven"], ["c"], to=INT)], 7),
        ([N("Neg", ["seven"], ["n"]), N("Ceil", ["n"], ["c"])], -7),
        ([N("Cast", ["seven"], ["c"], to=TensorProto.DOUBLE)], 10 * float(np.float32(0.7))),
        ([N("Cast", ["factor"], ["c"], to=TensorProto.FLOAT16)], float(np.float16(0.7))),
    ],
)
def test_the_proof_reads_the_same_numbers(nodes, wanted):
    assert float(_constant([*SEVEN, *nodes], "c")) == wanted


def test_the_proof_says_what_it_cannot_decide():
    nodes = [
        N("Exp", ["factor"], ["e"]),
        N("Div", ["e", "e2"], ["d"]),
        N("Floor", ["d"], ["c"]),
    ]
    held = {**TEN, "e2": np.exp(np.float32(0.7))}
    with pytest.raises(CannotEvaluateError, match="could go either way"):
        _constant(nodes, "c", held)
    with pytest.raises(NoKernelError, match="could go either way"):
        _run([*nodes, N("Add", ["x", "c"], ["y"])], held)
