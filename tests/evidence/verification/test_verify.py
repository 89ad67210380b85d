"""`bnfold.verify` end to end: honest folds pass, spoiled ones do not, and it says why."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
import bnfold.verified as under_test
from bnfold.errors import DataError, MissingDependencyError, UsageError
from bnfold.evidence.proof import prove
from bnfold.evidence.verification import Wishes, judge_end_to_end
from bnfold.records import ProofReport, Verdict
from tests.evidence.nets import SPOILED, bn_conv, conv_bn, fans, honest, model_of
from tests.small import two_layers

NO_ASSUMPTIONS = SimpleNamespace(assumptions=())
RENAMED = {name: f"other_{name}" for name in ("g1", "m", "r", "g2")}


def silent(_):
    pass


def end_to_end(pair, **wishes):
    return judge_end_to_end(*pair, Wishes(**{"shapes": ["2x4x9x8"], **wishes}), silent)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_honest_folds_pass_and_every_spoiled_one_is_named(dtype):
    """One model of many branches: each is convicted or acquitted by its own output."""
    pairs = {f"honest{seed}": conv_bn(f"honest{seed}", dtype, honest, seed) for seed in (1, 2)}
    pairs["valid"] = bn_conv("valid", dtype, 3, 0)
    hidden = {"epsilon_forgotten", "one_channel_off"} if dtype != "float32" else set()
    wrong = {name for name in SPOILED if name not in hidden}
    pairs |= {name: conv_bn(name, dtype, SPOILED[name], 4) for name in wrong}
    pairs["padded"] = bn_conv("padded", dtype, 5, 1)
    report = end_to_end(fans(pairs, dtype))
    assert report.verdict is Verdict.FAILED
    failed = {check.name for check in report.outputs if not check.passed}
    assert failed == wrong | {"padded"}
    errors = {one.name: one.reference for one in report.metrics}
    for name, found in errors.items():
        guilty = found.worst > found.limit or found.excess_low > found.limit
        assert guilty == (name in failed), (name, found)
        assert (name in report.why) == (name in failed)
    assert all(errors[name].excess_high < 2.5 for name in errors if name not in failed)


def test_the_reference_measures_both_errors_by_channel():
    report = end_to_end(fans({"y": conv_bn("y", "float32", honest, 1)}, "float32"))
    assert report.verdict is Verdict.PASSED, report.why
    (metrics,) = report.metrics
    errors = metrics.reference
    assert 0 < errors.error_original < 1e-4
    assert 0.2 < errors.low < errors.ratio < errors.high < 5
    assert len(errors.channels) == 4
    assert all(before > 0 and after > 0 for before, after in errors.channels)
    assert errors.samples == 2 * report.referenced
    assert report.fell_back == ()
    assert 60 < metrics.snr_db < 200
    assert metrics.cosine == pytest.approx(1.0)
    assert 0 < metrics.tolerance < 1e-3


def test_a_fault_in_one_channel_is_found_in_it():
    report = end_to_end(
        fans({"y": conv_bn("y", "float32", SPOILED["one_channel_off"], 1)}, "float32")
    )
    assert report.verdict is Verdict.FAILED
    assert report.outputs[0].channel == 2
    assert report.metrics[0].reference.channel == 2
    assert "channel 2" in report.why


def test_without_time_for_a_reference_noise_alone_decides_and_it_is_said(monkeypatch):
    pair = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    monkeypatch.setattr("bnfold.evidence.verification.end_to_end._REFERENCE", -1.0)
    report = end_to_end(pair)
    assert report.verdict is Verdict.PASSED
    assert report.referenced == 0
    assert report.metrics[0].reference is None
    assert any("out of time" in one and "noise alone" in one for one in report.warnings)


def test_another_interface_fails_and_says_where():
    original, _ = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    other, _ = fans({"z": conv_bn("z", "float32", honest, 1)}, "float32")
    report = bnfold.verify(original, other)
    assert report.verdict is Verdict.FAILED
    assert "outputs were ['y'], are ['z']" in report.why


def test_another_declaration_of_the_same_interface_is_no_other_interface():
    """Other tools fill in shapes and rename symbols: that is a remark, not a verdict."""
    model, other = two_layers(), two_layers()
    other.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    report = bnfold.verify(model, other, shapes="2x3")
    assert report.verdict is Verdict.PASSED, report.why
    assert any("declared otherwise" in warning for warning in report.warnings)
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    assert bnfold.verify(model, other, shapes="2x3").verdict is Verdict.FAILED


def test_models_may_be_paths_protos_or_onnx_ir_and_stay_as_they_are(tmp_path):
    proto = two_layers()
    folded = bnfold.fold(proto, verify=False)
    folded.save(tmp_path / "folded.onnx")
    before = proto.SerializeToString()
    for one in (folded.model, folded.to_proto(), tmp_path / "folded.onnx"):
        report = bnfold.verify(proto, one, shapes="3x3")
        assert report.passed, report.why
        assert report.proof.passed
    assert proto.SerializeToString() == before
    with pytest.raises(UsageError, match="cannot verify a int"):
        bnfold.verify(proto, 3)


def a_little_off(w, b, bn):
    weight, bias = honest(w, b, bn)
    weight[2] *= 1.0025
    return weight, bias


def test_a_fault_below_the_storage_noise_is_convicted_by_the_proof():
    """The segment itself shows what the noise of a whole model hides."""
    pair = fans({"y": conv_bn("y", "float16", a_little_off, 4)}, "float16")
    assert end_to_end(pair).verdict is Verdict.PASSED
    report = bnfold.verify(*pair, shapes="2x4x9x8")
    assert report.verdict is Verdict.FAILED
    assert "the graphs part" in report.why
    assert 2 in {finding.channel for finding in report.proof.findings}


def test_a_comparison_of_segments_that_takes_too_long_convicts_nobody(monkeypatch):
    pair = fans({"y": conv_bn("y", "float16", a_little_off, 4)}, "float16")
    late = prove(*pair, seconds=-1.0)
    assert late.verdict is Verdict.NOT_JUDGED
    assert "time was up" in late.why
    monkeypatch.setattr(under_test, "prove", lambda *_, **__: late)
    report = bnfold.verify(*pair, shapes="2x4x9x8")
    assert report.verdict is Verdict.PASSED


def test_graphs_that_share_no_names_are_not_compared_segment_by_segment(monkeypatch):
    """The proof may fail where it cannot pair the values; it convicts heirs only."""
    renamed = two_layers()
    for node in renamed.graph.node:
        node.input[:] = [RENAMED.get(name, name) for name in node.input]
        node.output[:] = [RENAMED.get(name, name) for name in node.output]
    proof = ProofReport(Verdict.FAILED, why="nothing to pair")
    monkeypatch.setattr(under_test, "prove", lambda *_, **__: proof)
    report = bnfold.verify(two_layers(), renamed, shapes="2x3")
    assert report.verdict is Verdict.PASSED
    assert any("too little in common" in warning for warning in report.warnings)


def test_a_failure_end_to_end_names_the_first_node_that_differs():
    original, spoiled = two_layers(), two_layers()
    weight = numpy_helper.to_array(spoiled.graph.initializer[2]).copy()
    weight[2] *= 1.1
    spoiled.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w2"))
    report = bnfold.verify(original, spoiled)
    assert report.verdict is Verdict.FAILED
    assert "'second'" in report.why
    assert report.proof.findings[0].node


def test_a_missing_runtime_is_an_error_unless_a_certificate_proves(monkeypatch, tmp_path):
    monkeypatch.setattr("bnfold.runtime.sessions.available", lambda: False)
    monkeypatch.setattr(under_test, "available", lambda: False)
    model = two_layers()
    with pytest.raises(MissingDependencyError, match=r"bnfold\[cpu\]"):
        bnfold.verify(model, model)
    for verdict in (Verdict.PASSED, Verdict.FAILED):
        proof = ProofReport(verdict, certified=True, why="of the test")
        monkeypatch.setattr(under_test, "read_certificate", lambda _: NO_ASSUMPTIONS)
        monkeypatch.setattr(under_test, "prove", lambda *_, proof=proof, **__: proof)
        report = bnfold.verify(model, model, certificate=tmp_path / "c.json")
        assert report.verdict is verdict
        assert "nothing was run" in report.warnings[0]


def test_a_certificate_that_does_not_hold_convicts_what_runs_alike(monkeypatch):
    model = two_layers()
    monkeypatch.setattr(under_test, "read_certificate", lambda _: NO_ASSUMPTIONS)
    proof = ProofReport(Verdict.FAILED, certified=True, why="it was edited")
    monkeypatch.setattr(under_test, "prove", lambda *_, **__: proof)
    report = bnfold.verify(model, model, certificate="c.json", shapes="2x3")
    assert report.outputs
    assert report.verdict is Verdict.FAILED
    assert "it was edited" in report.why


def test_given_inputs_are_what_is_run(tmp_path):
    model = two_layers()
    np.savez(tmp_path / "x.npz", x=np.ones((5, 3), np.float32))
    report = bnfold.verify(model, model, inputs=tmp_path / "x.npz", labels=[0, 1, 0, 1, 1])
    assert report.cases == ({"x": (5, 3)},)
    assert report.labels.samples == 5
    assert report.labels.agreement == 1.0
    assert report.metrics[0].reference.samples == 5
    with pytest.raises(DataError, match="4 labels were given, 5 samples"):
        bnfold.verify(model, model, inputs=tmp_path / "x.npz", labels=[0, 1, 0, 1])
    with pytest.raises(UsageError, match="labels need samples"):
        bnfold.verify(model, model, labels=[1])
    with pytest.raises(DataError, match="given is 2×4"):
        bnfold.verify(model, model, inputs={"x": np.ones((2, 4), np.float32)})
    with pytest.raises(UsageError, match="either inputs or shapes"):
        bnfold.verify(model, model, inputs=np.ones((1, 3), np.float32), shapes="1x3")


def test_two_levels_are_compared_and_said():
    model = two_layers()
    report = bnfold.verify(model, model, level="disabled", folded_level="all", shapes="2x3")
    assert report.passed, report.why
    assert report.settings == ("disabled", "all")
    with pytest.raises(UsageError, match="no level 'most'"):
        bnfold.verify(model, model, level="most")


def test_a_provider_that_is_not_there_is_said():
    model = two_layers()
    for choice in ({"provider": "Nonsense"}, {"folded_provider": "Nonsense"}):
        with pytest.raises(MissingDependencyError, match="cannot run on Nonsense") as error:
            bnfold.verify(model, model, shapes="2x3", **choice)
        assert "CPUExecutionProvider" in error.value.why


def test_the_search_convicts_what_few_inputs_wake_and_spares_rounding():
    """The fault needs one input far from what is drawn: the search gets there."""
    pair = fans({"y": conv_bn("y", "float32", honest, 1)}, "float32")
    report = end_to_end(pair, search_s=3.0)
    assert report.passed, report.why
    assert report.search.tried > 20
    assert report.search.worst >= report.search.start
    spoiled = fans({"y": conv_bn("y", "float32", SPOILED["wrong_axis"], 1)}, "float32")
    found = end_to_end(spoiled, search_s=2.0)
    assert not found.search.passed
    assert "worst input found" in found.why


def test_blind_outputs_are_judged_in_front_and_all_blind_is_no_pass():
    x, y = info("x", ["n", 3]), info("y", ["n", 3])
    big = numpy_helper.from_array(np.full(3, 1e4, np.float32), "big")
    for kind in ("Tanh", "HardSigmoid", "Sigmoid"):
        nodes = [
            helper.make_node("Add", ["x", "big"], ["a"]),
            helper.make_node(kind, ["a"], ["y"]),
        ]
        off = numpy_helper.from_array(np.full(3, 1.2e4, np.float32), "big")
        pair = [model_of(nodes, [x], [y], [one]) for one in (big, off)]
        report = end_to_end(pair, shapes=["2x3"])
        assert report.verdict is Verdict.FAILED, kind
        assert report.outputs[1].name == "a"
        assert "saturated" in report.outputs[1].note
    nodes = [helper.make_node("Mul", ["x", "zero"], ["y"])]
    zero = numpy_helper.from_array(np.zeros(3, np.float32), "zero")
    blind = model_of(nodes, [x], [y], [zero])
    assert end_to_end((blind, blind), shapes=["2x3"]).verdict is Verdict.NOT_JUDGED


def test_choices_are_judged_by_what_is_chosen_from():
    """ArgMax of near ties: rounding decides anew, a fault is still one."""
    rng = np.random.default_rng(3)
    weight = np.repeat(rng.normal(size=(6, 1)), 4, axis=1) * (1 + 3e-8 * np.arange(4))
    pair = [arg_max(weight), arg_max(weight * (1 + 6e-8 * rng.choice([-1, 1], 4)))]
    report = end_to_end(pair, shapes=["16x6"])
    assert report.verdict is Verdict.PASSED, report.why
    pair = [arg_max(weight), arg_max(weight * np.array([1, 1, 1.5, 1]))]
    assert end_to_end(pair, shapes=["16x6"]).verdict is Verdict.FAILED


def arg_max(weight):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["y"], axis=1),
    ]
    stored = numpy_helper.from_array(weight.astype(np.float32), "w")
    return model_of(
        nodes, [info("x", ["n", 6])], [info("y", None, TensorProto.INT64)], [stored]
    )


def test_both_outputs_of_a_top_k_share_what_is_in_front():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("TopK", ["r", "k"], ["values", "indices"]),
    ]
    k = numpy_helper.from_array(np.array([2], np.int64), "k")
    outputs = [info("values", None), info("indices", None, TensorProto.INT64)]
    model = model_of(nodes, [info("x", ["n", 5])], outputs, [k])
    report = end_to_end((model, model), shapes=["3x5"])
    assert report.verdict is Verdict.PASSED, report.why


def info(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)
