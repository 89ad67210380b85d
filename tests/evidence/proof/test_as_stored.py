"""What types round away: factors that leave a weight as it is, sizes, shifts, far bounds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from bnfold.evidence.proof.storage import Trial, weigh
from bnfold.records import Verdict
from tests.evidence.proof.models import KINDS, N, model
from tests.proving import assert_proved

RNG = np.random.default_rng(7)
WEIGHT = RNG.normal(0, 0.2, (8, 4, 3, 3))
UNTRAINED = {"g": np.ones(8), "b": np.zeros(8), "m": np.zeros(8), "v": np.ones(8)}
IMAGE, RESULT = [("x", (2, 4, 8, 8))], [("out", (2, 8, 8, 8))]


def convolution(dtype: str, epsilon: float, **changed: np.ndarray) -> onnx.ModelProto:
    nodes = [
        N("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        N("BatchNormalization", ["y", "g", "b", "m", "v"], ["z"], name="bn", epsilon=epsilon),
        N("Relu", ["z"], ["out"], name="relu"),
    ]
    stored = {"w": WEIGHT, **UNTRAINED, **changed}
    return model(nodes, stored, IMAGE, RESULT, dtype=dtype)


@pytest.mark.parametrize("dtype", sorted(KINDS))
@pytest.mark.parametrize("epsilon", [1e-8, 1e-5, 1e-3])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_an_untrained_batch_normalization_folds(
    dtype: str, epsilon: float, beta: float
) -> None:
    """1/√(1 + ε) leaves numbers of coarse types as they are: that is no unchanged weight."""
    original = convolution(dtype, epsilon, b=beta * RNG.normal(size=8))
    result = bnfold.fold(original, certificate=True, verify=False)  # proved, and not run
    folded = result.to_proto()
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
    assert_proved(original, result)


def test_an_untrained_batch_normalization_passes_the_check_of_fold() -> None:
    result = bnfold.fold(convolution("float16", 1e-5))
    assert result.check is not None
    assert result.check.verdict is Verdict.PASSED


def kept(dtype: str) -> tuple[onnx.ModelProto, bnfold.FoldResult]:
    original = convolution(dtype, 1e-5)
    return original, bnfold.fold(original, certificate=True, verify=False)


def test_a_certificate_tells_the_weight_that_was_rounded_to_itself() -> None:
    _, result = kept("bfloat16")
    assert result.certificate is not None
    assert [(one.change.name, str(one.change.kind)) for one in result.certificate.tensors][
        -1
    ] == ("w", "kept")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("certified", [False, True])
def test_a_weight_that_was_not_rounded_to_itself_is_refused(
    dtype: str, *, certified: bool
) -> None:
    """The same claim for a scale that the type does not round away."""
    _, result = kept(dtype)
    other = convolution(dtype, 1e-5, g=np.full(8, 1.02))
    certificate = result.certificate if certified else None
    report = bnfold.verify(other, result.to_proto(), certificate=certificate, run=False)
    assert report.verdict is Verdict.FAILED


def test_without_a_certificate_one_channel_of_a_kept_weight_off_is_refused() -> None:
    original, result = kept("bfloat16")
    spoiled = result.to_proto()
    tensor = next(one for one in spoiled.graph.initializer if one.name == "w")
    array = np.array(numpy_helper.to_array(tensor))
    array[5] = (array[5].astype(np.float64) * 1.05).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    assert bnfold.verify(original, spoiled, run=False).verdict is Verdict.FAILED


SIZE = 7


def by_size(dtype: str, *, stored: float | None = None) -> onnx.ModelProto:
    """``x`` over the square root of its last size, as attention scales its queries."""
    kind, numpy_kind = KINDS[dtype]
    nodes = [
        N("Shape", ["x"], ["size"], name="size", start=-1),
        N("Cast", ["size"], ["wide"], name="wide", to=TensorProto.FLOAT),
        N("Sqrt", ["wide"], ["root"], name="root"),
        N("Cast", ["root"], ["scale"], name="scale", to=kind),
        N("Div", ["x", "scale"], ["out"], name="by"),
    ]
    held = {} if stored is None else {"scale": np.array([stored]).astype(numpy_kind)}
    shape = (2, 3, SIZE)
    of = nodes if stored is None else nodes[-1:]
    return model(of, held, [("x", shape)], [("out", shape)], dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_computed_from_a_size_is_rounded_as_the_graph_rounds_it(dtype: str) -> None:
    """√7 in float16 is what a fold stores, no other number: the walk had the unrounded."""
    original = by_size(dtype)
    stored = float(np.sqrt(np.float32(SIZE)).astype(KINDS[dtype][1]))
    right = by_size(dtype, stored=stored)
    assert bnfold.verify(original, right, run=False).verdict is Verdict.PASSED
    wrong = by_size(dtype, stored=stored * 1.02)
    assert bnfold.verify(original, wrong, run=False).verdict is Verdict.FAILED


def shifted(beta: float) -> onnx.ModelProto:
    nodes = [
        N("BatchNormalization", ["x", "g", "b", "m", "v"], ["z"], name="bn"),
        N("Softplus", ["z"], ["out"], name="end"),
    ]
    stored = {
        "g": np.array([-0.5, 0.36, -1.2]),
        "b": np.array([-0.5, beta, 0.17]),
        "m": np.array([-0.8, 0.03, -0.26]),
        "v": np.array([0.6, 0.61, 1.1]),
    }
    shape = (2, 3, 4, 4)
    return model(nodes, stored, [("x", shape)], [("out", shape)], dtype="bfloat16")


def test_a_shift_beside_large_numbers_is_no_rounding() -> None:
    """A shift was taken for the rounding of the largest number of all channels."""
    assert bnfold.verify(shifted(0.633), shifted(0.633), run=False).verdict is Verdict.PASSED
    report = bnfold.verify(shifted(0.633), shifted(0.949), run=False)
    assert report.verdict is Verdict.FAILED


def test_a_factor_of_float64_rounding_in_a_channel_that_hardly_varies_is_none() -> None:
    """Two places of a channel, nearly equal: rounding of sums looked like a factor."""
    original = np.array([[[0.5, 0.5 + 1e-7]], [[0.3, -0.7]]]).reshape(1, 2, 1, 2)
    folded = original + 1.4e-8 + np.array([2e-16, -2e-16])
    moves = [original + 1.4e-8 * k for k in (-0.9, -0.3, 0.4, 1.0)]
    nudged = [one + (folded - original) for one in moves]
    assert weigh([Trial(original, folded, nudged)]).size <= 1.0
    wrong = original * np.array([1.0, 1.001]).reshape(1, 2, 1, 1)
    assert weigh([Trial(original, wrong, [wrong + (m - original) for m in moves])]).size > 1.0


def bounded(kind: str) -> onnx.ModelProto:
    """A step that numbers around one never meet, and an Add on either side of nothing."""
    operators = {
        "Mod": N("Mod", ["x", "far"], ["y"], name="step", fmod=1),
        "Clip": N("Clip", ["x", "low", "far"], ["y"], name="step"),
        "Min": N("Min", ["x", "far"], ["y"], name="step"),
        "none": N("Identity", ["x"], ["y"], name="step"),
    }
    stored = {"t": np.array([0.3]), "far": np.array(60.0), "low": np.array(-60.0)}
    read = {*operators[kind].input, "t"}
    nodes = [operators[kind], N("Add", ["y", "t"], ["out"], name="add")]
    held = {name: one for name, one in stored.items() if name in read}
    return model(nodes, held, [("x", (6,))], [("out", (6,))])


@pytest.mark.parametrize("kind", ["Mod", "Clip", "Min"])
def test_a_bound_that_is_dropped_is_seen_behind_it(kind: str) -> None:
    assert bnfold.verify(bounded(kind), bounded(kind), run=False).verdict is Verdict.PASSED
    report = bnfold.verify(bounded(kind), bounded("none"), run=False)
    assert report.verdict is Verdict.FAILED


def test_a_bias_that_few_numbers_bring_through_a_max_is_compared() -> None:
    """Where other numbers showed the difference beside noise, it was not believed."""
    weight = np.random.default_rng(3).normal(0, 0.05, (3, 2, 14, 14))

    def made(first: float) -> onnx.ModelProto:
        nodes = [
            N("Conv", ["x", "w"], ["y"], name="conv", strides=[14, 14]),
            N("Add", ["y", "t"], ["z"], name="add"),
            N("Max", ["z", "low"], ["out"], name="max"),
        ]
        stored = {
            "w": weight,
            "t": np.array([first, -0.15, -0.66]).reshape(3, 1, 1),
            "low": np.array([0.3, 0.55, 0.8]).reshape(3, 1, 1),
        }
        return model(nodes, stored, [("x", ("N", 2, 15, 15))], [("out", ("N", 3, 1, 1))])

    right = bnfold.fold(made(0.21), verify=False).to_proto()
    wrong = bnfold.fold(made(-0.21), verify=False).to_proto()
    assert bnfold.verify(made(0.21), right, run=False).verdict is Verdict.PASSED
    assert bnfold.verify(made(0.21), wrong, run=False).verdict is Verdict.FAILED


def test_a_step_that_other_sizes_do_not_move_is_moved_by_other_signs() -> None:
    """Of a Hardmax in front of the wrong channel, nothing was said to be compared."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        nodes = [
            N("Hardmax", ["x"], ["y"], name="step"),
            N("Mul", ["y", "s"], ["z"], name="mul"),
            N("Add", ["z", "t"], ["out"], name="add"),
        ]
        scale, shape = rng.uniform(1.0, 2.0, 4), (4, 4)
        stored = {"s": scale, "t": np.array([0.1, 0.2, -0.6, -0.7])}
        right = model(nodes, stored, [("x", shape)], [("out", shape)])
        wrong = model(
            nodes,
            {**stored, "s": scale * [1, 1, 1.01, 1]},
            [("x", shape)],
            [("out", shape)],
        )
        assert bnfold.verify(right, wrong, run=False).verdict is Verdict.FAILED


def test_an_axis_that_is_declared_empty_is_drawn_empty() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 0, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    nodes = [
        N("Mul", ["x", "s"], ["y"], name="mul"),
        N("ReduceSum", ["y", "axes"], ["z"], name="sum"),
        N("Add", ["z", "t"], ["out"], name="add"),
    ]
    stored = [
        numpy_helper.from_array(np.zeros((0, 1), np.float32), "s"),
        numpy_helper.from_array(np.array([1]), "axes"),
        numpy_helper.from_array(np.array([0.5], np.float32), "t"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [out], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert bnfold.verify(made, made).verdict is Verdict.PASSED


@pytest.mark.parametrize("act", ["Relu", "Gelu"])
def test_a_thousand_channels_of_one_value_raise_no_false_alarm(act: str) -> None:
    """Six draws of noise against the worst of 1024 channels: one of some seeds was refused."""
    wrong_channels = 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        nodes = [
            N("MatMul", ["x", "w"], ["y"], name="matmul"),
            N("BatchNormalization", ["y", "g", "b", "m", "v"], ["z"], name="bn"),
            N(act, ["z"], ["out"], name="act"),
        ]
        stored = {
            "w": rng.normal(0, 0.03, (1024, 1024)),
            "g": rng.uniform(0.2, 2.0, 1024),
            "b": rng.normal(0, 0.5, 1024),
            "m": rng.normal(0, 0.5, 1024),
            "v": rng.uniform(0.3, 2.0, 1024),
        }
        shape = (1, 1024)
        opset = 20 if act == "Gelu" else 17
        original = model(nodes, stored, [("x", shape)], [("out", shape)], opset)
        folded = bnfold.fold(original, verify=False).to_proto()
        report = bnfold.verify(original, folded, run=False)
        assert report.verdict is Verdict.PASSED, (seed, report.why)
        tensor = folded.graph.initializer[0]
        array = np.array(numpy_helper.to_array(tensor))
        array[:, 700] *= np.float32(1.00001)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        wrong_channels += bnfold.verify(original, folded, run=False).verdict is Verdict.FAILED
    assert wrong_channels == 2


@pytest.mark.parametrize("size", [0.05, 1.0])
def test_one_tap_of_three_thousand_is_not_lost_in_their_rounding(size: float) -> None:
    """In bfloat16, beside half an ulp of each of 3072 weights, none of which was rounded."""
    rng = np.random.default_rng(1)
    nodes = [
        N("Conv", ["x", "w", "b"], ["y"], name="conv", strides=[32, 32]),
        N("Sub", ["y", "t"], ["z"], name="sub"),
        N("Softplus", ["z"], ["out"], name="act"),
    ]
    stored = {
        "w": rng.normal(0, 0.02, (8, 3, 32, 32)),
        "b": rng.normal(0, 0.2, 8),
        "t": rng.normal(0, 0.7, (8, 1, 1)),
    }
    shapes = [("x", ("N", 3, 32, 32))], [("out", ("N", 8, 1, 1))]
    original = model(nodes, stored, *shapes, dtype="bfloat16")
    folded = bnfold.fold(original, verify=False).to_proto()
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.PASSED
    tensor = next(one for one in folded.graph.initializer if one.name == "w")
    array = np.array(numpy_helper.to_array(tensor))
    array[6, 1, 7, 9] = size
    tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.FAILED


def test_scales_of_a_resize_are_sizes_and_no_rounded_weights() -> None:
    """Moved by half an ulp, 7 × 8/7 places are 7: the comparison ended in an error."""
    nodes = [
        N("Resize", ["x", "", "scales"], ["y"], name="resize", mode="nearest"),
        N("Mul", ["y", "s"], ["z"], name="mul"),
        N("Conv", ["z", "w"], ["out"], name="conv"),
    ]
    stored = {
        "scales": np.array([1.0, 1.0, 8 / 7, 2.0]),
        "s": np.array([1.5, -0.7, 1.2]).reshape(3, 1, 1),
        "w": RNG.normal(0, 0.4, (4, 3, 1, 1)),
    }
    original = model(nodes, stored, [("x", (2, 3, 7, 4))], [("out", (2, 4, 8, 8))])
    folded = bnfold.fold(original, verify=False).to_proto()
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.PASSED
    moved = onnx.ModelProto()
    moved.CopyFrom(folded)
    tensor = next(one for one in moved.graph.initializer if one.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.001, "w"))
    assert bnfold.verify(original, moved, run=False).verdict is Verdict.FAILED


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("seed", range(6))
def test_a_difference_is_not_unsaid_by_inputs_that_a_bound_hides(
    dtype: str, seed: int
) -> None:
    """One set of inputs put all of the channel beyond the bound, and that was believed."""
    rng = np.random.default_rng(seed)
    nodes = [
        N("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"], name="bn"),
        N("Conv", ["y", "w"], ["z"], name="conv", strides=[2, 2]),
        N("Clip", ["z", "low", "high"], ["out"], name="clip"),
    ]
    stored = {
        "g": np.array([1.4]),
        "b": np.array([0.3]),
        "m": np.array([0.2]),
        "v": np.array([1.2]),
        "low": np.array(-3.0),
        "high": np.array(3.0),
        "w": rng.normal(0, 0.3, (5, 1, 7, 7)),
    }
    shapes = [("x", ("N", 1, 8, 8))], [("out", ("N", 5, 1, 1))]
    original = model(nodes, stored, *shapes, dtype=dtype)
    folded = bnfold.fold(original, verify=False).to_proto()
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.PASSED
    for tensor in folded.graph.initializer:
        array = np.array(numpy_helper.to_array(tensor))
        if array.ndim and array.shape[0] == 5:
            array[3] *= array.dtype.type(1.01)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.FAILED


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_untrained_layer_of_open_sizes_is_rounded_at_other_lengths_too(dtype: str) -> None:
    """What did not change was nudged at the usual lengths, and at no others."""
    nodes = [
        N("ConvTranspose", ["x", "w"], ["y"], name="conv", group=3, strides=[2, 2]),
        N("BatchNormalization", ["y", "g", "b", "m", "v"], ["out"], name="bn"),
    ]
    stored = {"w": RNG.normal(0, 0.3, (3, 2, 3, 3))}
    stored |= {name: one[:6] for name, one in UNTRAINED.items()}
    shapes = [("x", ("n", 3, "h", "w_"))], [("out", ("n", 6, "p", "q"))]
    original = model(nodes, stored, *shapes, dtype=dtype)
    folded = bnfold.fold(original, verify=False).to_proto()
    assert [node.op_type for node in folded.graph.node] == ["ConvTranspose"]
    assert bnfold.verify(original, folded, run=False).verdict is Verdict.PASSED
