"""What a check says when there is more, or less, to see than a difference of numbers."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold.evidence.check as under_test
from bnfold.errors import MissingDependencyError
from bnfold.evidence import check_fold
from bnfold.model.io import to_proto
from bnfold.records import Verdict
from tests.evidence.nets import conv_bn, fans, honest, model_of

FLOAT = TensorProto.FLOAT


def test_the_models_are_not_modified() -> None:
    original, folded = fans({"y": conv_bn("y", "bfloat16", honest, 1)}, "bfloat16")
    before = [to_proto(model).SerializeToString() for model in (original, folded)]
    report = check_fold(original, folded)
    assert report.passed, report.why
    assert [to_proto(model).SerializeToString() for model in (original, folded)] == before


def test_another_interface_fails_without_running(monkeypatch: pytest.MonkeyPatch) -> None:
    original, _ = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    renamed, _ = fans({"z": conv_bn("z", "float32", honest, 1)}, "float32")
    monkeypatch.setattr(under_test, "find_ground", None)
    report = check_fold(original, renamed)
    assert report.verdict is Verdict.FAILED
    assert "outputs were ['y'], are ['z']" in report.why


def test_another_declared_shape_or_type_is_another_interface() -> None:
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    x = [info("x", ["n", 3])]
    three, four = (model_of(relu, x, [info("y", ["n", size])]) for size in (3, "c"))
    half = model_of(relu, x, [info("y", ["n", 3], TensorProto.FLOAT16)])
    assert "output 'y' had shape ('n', 3), has ('n', 'c')" in check_fold(three, four).why
    assert "output 'y' was" in check_fold(three, half).why


def test_without_the_runtime_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bnfold.runtime.sessions.available", lambda: False)
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [info("x", [1])], [info("y", [1])]
    )
    with pytest.raises(MissingDependencyError, match=r"bnfold\[cpu\]"):
        check_fold(model, model)


def test_an_original_that_does_not_run_is_not_judged() -> None:
    foreign = [helper.make_node("Frobnicate", ["x"], ["y"], domain="elsewhere")]
    graph = helper.make_graph(foreign, "g", [info("x", [1, 2])], [info("y", [1, 2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("elsewhere", 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    report = check_fold(model, model)
    assert report.verdict is Verdict.NOT_JUDGED
    assert not report.passed
    assert "Frobnicate" in report.why


def test_an_input_that_cannot_be_drawn_is_not_judged() -> None:
    x = helper.make_tensor_sequence_value_info("x", FLOAT, None)
    node = helper.make_node("SequenceLength", ["x"], ["y"])
    model = model_of([node], [x], [info("y", [], TensorProto.INT64)])
    report = check_fold(model, model)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "input 'x' is a sequence" in report.why


def test_a_folded_model_that_does_not_run_fails() -> None:
    before = [helper.make_node("Mul", ["x", "c"], ["y"])]
    after = [helper.make_node("MatMul", ["x", "c"], ["y"])]
    constants = [numpy_helper.from_array(np.full((2, 3), 2, np.float32), "c")]
    faces = [info("x", [2, 3])], [info("y", None)]
    report = check_fold(
        model_of(before, *faces, constants), model_of(after, *faces, constants)
    )
    assert report.verdict is Verdict.FAILED
    assert "the folded model fails with optimisation disabled" in report.why


def test_an_original_that_kills_the_runtime_is_run_with_optimisation() -> None:
    """ONNX Runtime 1.32 dies on this legal model when optimisation is off."""
    original = deadly_bn()
    report = check_fold(original, scaled_conv(2.0))
    assert report.passed, report.why
    said = "ran only with optimisation 'basic': the runtime died by signal"
    assert said in report.warnings[0]
    assert check_fold(original, scaled_conv(2.02)).verdict is Verdict.FAILED


def test_a_saturated_output_is_judged_in_front_of_the_saturation() -> None:
    original, same, spoiled = (saturated(factor) for factor in (1.0, 1.0, 1.01))
    passed, failed = check_fold(original, same), check_fold(original, spoiled)
    assert passed.passed
    assert [check.name for check in passed.outputs] == ["y", "before"]
    assert "reacted neither to the inputs nor to rounding noise" in passed.outputs[0].note
    assert failed.verdict is Verdict.FAILED
    assert "output 'before'" in failed.why


def test_a_saturated_softmax_is_judged_by_its_logarithm() -> None:
    """It forgets a shift that all classes share, so what is in front of it may differ."""
    original, shared, spoiled = (decided(t) for t in (0.0, 7.5, [0.0, 1.0, 0.0]))
    passed, failed = check_fold(original, shared), check_fold(original, spoiled)
    assert passed.passed, passed.why
    assert [check.name for check in passed.outputs] == ["y", "y/log"]
    assert failed.verdict is Verdict.FAILED
    assert "output 'y/log'" in failed.why


def test_nothing_to_see_is_not_judged() -> None:
    nodes = [
        helper.make_node("Clip", ["x", "low", "low"], ["t"]),
        helper.make_node("Floor", ["t"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.float32(0), "low")]
    model = model_of(nodes, [info("x", ["n", 2])], [info("y", ["n", 2])], constants)
    report = check_fold(model, model)
    assert report.verdict is Verdict.NOT_JUDGED
    assert "equality says nothing" in report.why


def test_outputs_that_are_no_tensors_are_not_judged() -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    y = helper.make_tensor_sequence_value_info("y", FLOAT, None)
    model = model_of([node], [info("x", ["n"])], [y])
    report = check_fold(model, model)
    assert report.verdict is Verdict.NOT_JUDGED
    assert report.outputs[0].note == "not a dense tensor: not compared"


def test_new_nan_is_convicted_and_old_nan_is_not() -> None:
    original, same = rooted(-0.5), rooted(-0.5)
    assert check_fold(original, same).passed
    report = check_fold(original, rooted(-0.6))
    assert report.verdict is Verdict.FAILED
    assert "cannot be subtracted" in report.outputs[0].note


def test_integer_outputs_are_compared_exactly() -> None:
    rng = np.random.default_rng(5)
    weight = rng.normal(0, 1, (6, 6)).astype(np.float32)
    swapped = weight[:, [1, 0, 2, 3, 4, 5]]
    assert check_fold(chosen(weight), chosen(weight)).passed
    assert check_fold(chosen(weight), chosen(swapped)).verdict is Verdict.FAILED


def test_another_shape_is_convicted() -> None:
    constants = [numpy_helper.from_array(np.array([1]), "axes")]
    x, y = [info("x", ["n", 1, 4])], [info("y", None)]
    same = model_of([helper.make_node("Relu", ["x"], ["y"])], x, y)
    squeezed = model_of([helper.make_node("Squeeze", ["x", "axes"], ["y"])], x, y, constants)
    report = check_fold(same, squeezed)
    assert report.verdict is Verdict.FAILED
    assert "another shape" in report.outputs[0].note


def info(name: str, shape: list[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


PAIRS = [info("x", [1, 2, 3])], [info("y", [1, 2, 3])]


def deadly_bn() -> ir.Model:
    """Doubles what a convolution gives; its unused outputs are spelled as empty strings."""
    none = ["", "", "", ""]
    stored = {"w": np.ones((2, 2, 1)), "g": np.full(2, 2), "b": np.zeros(2), "v": np.ones(2)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"]),
        helper.make_node("BatchNormalization", ["t", *"gbbv"], ["y", *none], epsilon=0.0),
    ]
    return model_of(nodes, *PAIRS, floats(stored), opset=9)


def scaled_conv(factor: float) -> ir.Model:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    return model_of([node], *PAIRS, floats({"w": np.full((2, 2, 1), factor)}), opset=9)


def floats(arrays: dict[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in arrays.items()
    ]


def saturated(factor: float) -> ir.Model:
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["before"]),
        helper.make_node("Sigmoid", ["before"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.full((1, 3), 2 * factor, np.float32), "s"),
        numpy_helper.from_array(np.full((1, 3), 1000, np.float32), "t"),
    ]
    return model_of(nodes, [info("x", ["n", 3])], [info("y", ["n", 3])], constants)


def decided(shift: float | list[float]) -> ir.Model:
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("Add", ["m", "t"], ["before"]),
        helper.make_node("Softmax", ["before"], ["y"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.full((1, 3), 0.5, np.float32), "s"),
        numpy_helper.from_array(np.float32([[900, 0, 0]]) + np.float32(shift), "t"),
    ]
    return model_of(nodes, [info("x", ["n", 3])], [info("y", ["n", 3])], constants)


def rooted(shift: float) -> ir.Model:
    nodes = [
        helper.make_node("Add", ["x", "t"], ["moved"]),
        helper.make_node("Sqrt", ["moved"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.full((1, 64), shift, np.float32), "t")]
    return model_of(nodes, [info("x", ["n", 64])], [info("y", ["n", 64])], constants)


def chosen(weight: np.ndarray) -> ir.Model:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("ArgMax", ["t"], ["y"], axis=1, keepdims=0),
    ]
    constants = [numpy_helper.from_array(weight, "w")]
    faces = [info("x", ["n", 6])], [info("y", ["n"], TensorProto.INT64)]
    return model_of(nodes, *faces, constants)
