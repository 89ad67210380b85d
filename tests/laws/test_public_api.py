"""The public names and signatures; a change here is a change for users."""

from __future__ import annotations

import inspect

import onnx
import onnx_ir as ir
import pytest

import bnfold
from tests.small import conv_bn, operators


def test_public_names():
    assert bnfold.__all__ == [
        "BenchReport",
        "ExportReport",
        "ExportResult",
        "FoldReport",
        "FoldResult",
        "Refusal",
        "VerifyReport",
        "benchmark",
        "errors",
        "export",
        "fold",
        "passes",
        "verify",
    ]
    for name in bnfold.__all__:
        assert getattr(bnfold, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bnfold.nothing


def test_signature_of_fold():
    parameters = inspect.signature(bnfold.fold).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model": inspect.Parameter.empty,
        "only": (),
        "skip": (),
        "assume_constant_inputs": False,
        "assume_inference": False,
        "norms": False,
        "requantize_bias": False,
        "strict": False,
        "verify": None,
        "certificate": False,
        "shapes": (),
        "max_time": None,
        "seed": 0,
    }


def test_signature_of_verify():
    parameters = inspect.signature(bnfold.verify).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "original": inspect.Parameter.empty,
        "folded": inspect.Parameter.empty,
        "certificate": None,
        "inputs": None,
        "shapes": None,
        "provider": "cpu",
        "folded_provider": None,
        "level": None,
        "folded_level": None,
        "labels": None,
        "search_s": 0.0,
        "max_time": 60.0,
        "run": None,
        "refold": True,
        "impulses": False,
        "seed": 0,
        "progress": None,
    }
    kinds = [parameter.kind for parameter in parameters.values()]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[2:])


def test_signature_of_benchmark():
    parameters = inspect.signature(bnfold.benchmark).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model": inspect.Parameter.empty,
        "folded": None,
        "more": (),
        "arms": ("original", "folded", "unfused"),
        "provider": "cpu",
        "provider_options": None,
        "batch": None,
        "shapes": None,
        "inputs": None,
        "threads": 0,
        "dtype": "model",
        "cuda_graph": False,
        "prefer_nhwc": False,
        "precision": 0.01,
        "max_time_s": None,
        "confidence": 0.95,
        "details": True,
        "seed": 0,
        "progress": None,
    }
    kinds = [parameter.kind for parameter in parameters.values()]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[2:])


def test_signature_of_export():
    parameters = inspect.signature(bnfold.export).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "model": inspect.Parameter.empty,
        "args": inspect.Parameter.empty,
        "path": inspect.Parameter.empty,
        "kwargs": None,
        "fold": True,
        "verify": True,
        "exporter": "dynamo",
        "opset": None,
        "dynamic": (),
        "dynamic_batch": False,
        "input_names": (),
        "output_names": (),
        "eval_mode": False,
        "unfolded": None,
        "certificate": False,
        "external_data": "keep",
        "size_threshold": None,
        "seed": 0,
        "progress": None,
    }
    kinds = [parameter.kind for parameter in parameters.values()]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[3:])


def test_takes_a_path_a_proto_and_an_onnx_ir_model(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(conv_bn(), path)
    for given in (path, str(path), conv_bn(), ir.from_proto(conv_bn())):
        result = bnfold.fold(given, verify=False)
        assert operators(result.to_proto()) == ["Conv", "Relu"]
        assert isinstance(result.model, ir.Model)
        assert len(result.report.steps) == 1


def test_an_input_object_is_not_modified():
    proto = conv_bn()
    before = proto.SerializeToString()
    bnfold.fold(proto, verify=False)
    assert proto.SerializeToString() == before
    model = ir.from_proto(proto)
    bnfold.fold(model, verify=False).to_proto()
    assert ir.to_proto(model).graph.node == ir.to_proto(ir.from_proto(proto)).graph.node
    assert proto.SerializeToString() == before


def test_anything_else_is_refused_with_words():
    with pytest.raises(bnfold.errors.UsageError, match="cannot fold a int"):
        bnfold.fold(3)


def test_the_pass_works_in_a_sequence_of_onnx_ir_passes():
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    fold = bnfold.passes.FoldAffine()
    model = ir.from_proto(conv_bn())
    result = ir.passes.Sequential(fold, RemoveUnusedNodesPass())(model)
    assert result.modified
    assert [node.op_type for node in result.model.graph] == ["Conv", "Relu"]
    assert len(fold.report.steps) == 1
    assert not bnfold.passes.FoldAffine()(result.model).modified


def test_a_result_is_checked_when_a_runtime_is_there():
    pytest.importorskip("onnxruntime")
    result = bnfold.fold(conv_bn())
    assert result.check.passed


def test_signatures_of_saving():
    layout = ["external_data", "size_threshold"]
    for method, names in (
        ("save", ["self", "path", *layout]),
        ("save_in_place", ["self", *layout]),
    ):
        signature = inspect.signature(getattr(bnfold.FoldResult, method))
        assert list(signature.parameters) == names
        assert signature.return_annotation == "Saved"


def test_saving_over_the_source_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(conv_bn(), path)
    result = bnfold.fold(path, verify=False)
    with pytest.raises(bnfold.errors.UsageError, match="overwrite the input"):
        result.save(path)
    result.save(tmp_path / "o.onnx")
    assert operators(onnx.load(tmp_path / "o.onnx")) == ["Conv", "Relu"]
