"""``bnfold fold --require``: a gate in a pipeline."""

from __future__ import annotations

import json
import sys

import onnx
import pytest

from tests.small import conv_bn, operators, two_layers


@pytest.fixture
def call(monkeypatch, capsys):
    """The command in this process: its exit code, stdout and stderr."""
    from bnfold.cli.main import main

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["bnfold", "fold", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code, *capsys.readouterr())

    return called


@pytest.fixture
def paths(tmp_path):
    """Where a model can be read, and where the fold would be written."""
    return tmp_path / "model.onnx", tmp_path / "out.onnx"


def stuck() -> onnx.ModelProto:
    """Its BatchNormalization stays: the Conv's own output is read from outside."""
    model = conv_bn()
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, None))
    return model


def lone_mul() -> onnx.ModelProto:
    """Its Mul stays: nothing beside it has weights."""
    model = two_layers()
    del model.graph.node[2:]
    del model.graph.node[0]
    model.graph.node[0].input[0], model.graph.node[0].output[0] = "x", "y"
    for face in (*model.graph.input, *model.graph.output):
        face.type.tensor_type.shape.dim[1].dim_value = 4
    return model


@pytest.mark.parametrize("words", [["no-batchnorm"], ["no-stays"], ["no-BatchNormalization"],
                                   ["no-BATCHNORM"], ["no-Gemm", "no-stays"]])  # fmt: skip
def test_what_is_not_met_exits_with_1_writes_nothing_and_names_node_and_reason(
    call, paths, words
):
    model, out = paths
    onnx.save(stuck(), model)
    options = [part for word in words for part in ("--require", word)]
    certificate = out.with_suffix(".json")
    code, _, err = call(
        model, "-o", out, "--no-verify", "--certificate", certificate, *options
    )
    assert code == 1
    assert f"{words[-1]} is required, and 1 is left; the model is not written" in err
    assert "bn: " in err
    assert "output" in err
    assert "bnfold inspect" in err
    assert not out.exists()
    assert not certificate.exists()
    assert "Traceback" not in err


def test_a_mul_that_stays_is_named(call, paths):
    model, out = paths
    onnx.save(lone_mul(), model)
    code, _, err = call(model, "-o", out, "--no-verify", "--require", "no-Mul")
    assert code == 1
    assert "no-Mul is required, and 1 is left" in err
    assert "scale: " in err
    assert not out.exists()


def test_an_operator_that_no_fold_could_move_says_so(call, paths):
    model, out = paths
    onnx.save(conv_bn(), model)
    code, _, err = call(model, "-o", out, "--no-verify", "--require", "no-Relu")
    assert code == 1
    assert "no-Relu is required, and 1 is left" in err
    assert "they are not maps that a fold could move" in err


def test_a_name_that_no_operator_has_is_not_met_by_accident(call, paths):
    model, out = paths
    onnx.save(conv_bn(), model)
    code, _, err = call(model, "-o", out, "--no-verify", "--require", "no-BatchNormalisation")
    assert code == 2
    assert "there is no operator 'BatchNormalisation'" in err
    assert not out.exists()


def in_a_function() -> onnx.ModelProto:
    """`stuck`, with its BatchNormalization in a function of the model."""
    model = stuck()
    names = ["a", "s", "b", "m", "v"]
    inner = onnx.helper.make_node("BatchNormalization", names, ["r"], name="inner")
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(
        onnx.helper.make_function("my.own", "Norm", names, ["r"], [inner], opsets)
    )
    model.graph.node[1].op_type, model.graph.node[1].domain = "Norm", "my.own"
    model.opset_import.append(onnx.helper.make_opsetid("my.own", 1))
    return model


def test_functions_of_the_model_are_no_place_to_hide(call, paths):
    model, out = paths
    onnx.save(in_a_function(), model)
    code, _, err = call(model, "-o", out, "--no-verify", "--require", "no-batchnorm")
    assert code == 1
    assert "no-batchnorm is required, and 1 is left" in err
    assert not out.exists()


def test_only_one_of_many_needs_to_fail(call, paths):
    model, out = paths
    onnx.save(two_layers(), model)
    met = ["--require", "no-batchnorm", "--require", "no-stays"]
    code, _, err = call(model, "-o", out, "--no-verify", *met, "--require", "no-Gemm")
    assert code == 1
    assert "no-Gemm is required, and 2 are left" in err


@pytest.mark.parametrize(
    "words", [["no-batchnorm", "no-stays", "verified"], ["no-BatchNorm"], ["no-Mul", "no-Add"]]
)
def test_what_is_met_is_written(call, paths, words):
    model, out = paths
    onnx.save(conv_bn(), model)
    check = [] if "verified" in words else ["--no-verify"]
    options = [part for word in words for part in ("--require", word)]
    code, _, err = call(model, "-o", out, *check, *options)
    assert code == 0, err
    assert operators(onnx.load(out)) == ["Conv", "Relu"]


def test_verified_needs_a_check(call, paths):
    model, out = paths
    onnx.save(conv_bn(), model)
    code, _, err = call(model, "-o", out, "--no-verify", "--require", "verified")
    assert code == 1
    assert "the fold is not verified; the model is not written" in err
    assert "the check was not done" in err
    assert "leave --no-verify and --dry-run out" in err
    assert not out.exists()


@pytest.mark.parametrize("word", ["batchnorm", "no-", "", "Verified", "never"])
def test_a_word_that_is_not_known_exits_with_2_before_the_work(call, paths, word):
    model, out = paths
    code, _, err = call(model, "-o", out, "--require", word)
    assert code == 2
    assert f"there is no requirement {word!r}" in err
    assert "no-batchnorm, no-stays, verified, or no-OPERATOR" in err


def test_reports_are_written_all_the_same(call, paths, tmp_path):
    model, out = paths
    onnx.save(stuck(), model)
    page, summary = tmp_path / "r.html", tmp_path / "r.md"
    code, stdout, err = call(
        model, "-o", out, "--no-verify", "--require", "no-stays",
        "--report", page, "--markdown", summary, "--json",
    )  # fmt: skip
    assert code == 1, err
    assert not out.exists()
    assert [one["site"] for one in json.loads(stdout)["stayed"]] == [["bn"]]
    assert page.stat().st_size > 1000
    assert "| graph-output | 1 |" in summary.read_text(encoding="utf-8")


def test_a_dry_run_is_judged_too(call, paths):
    model, _ = paths
    onnx.save(stuck(), model)
    code, _, err = call(model, "--dry-run", "--require", "no-stays")
    assert code == 1
    assert "no-stays is required" in err
    onnx.save(conv_bn(), model)
    code, _, err = call(model, "--dry-run", "--require", "no-stays")
    assert code == 0, err
