"""The command line: exit codes, what goes to which stream, what is written and what is not."""

from __future__ import annotations

import json
import subprocess
import sys

import onnx
import pytest

from tests.battery import norms
from tests.small import conv_bn, operators, two_layers


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnfold", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(conv_bn(), path)
    return path


def test_fold_writes_a_folded_model_and_tells_people_on_stderr(model, tmp_path):
    out = tmp_path / "out.onnx"
    done = run("fold", model, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "BatchNormalization: 1 → 0" in done.stderr
    assert "check: passed" in done.stderr
    assert operators(onnx.load(out)) == ["Conv", "Relu"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]


def test_json_is_the_only_thing_on_stdout(model, tmp_path):
    done = run("fold", model, "-o", tmp_path / "out.onnx", "--json", "--no-verify")
    report = json.loads(done.stdout)
    assert report["schema"] == "bnfold/fold-report/2"
    assert report["folded"][0]["rule"] == "BatchNormalization"
    assert report["folded"][0]["absorbed_by"] == ["conv"]
    assert report["operators"]["before"]["BatchNormalization"] == 1
    assert "BatchNormalization" not in report["operators"]["after"]
    assert report["check"] is None


def test_dry_run_writes_nothing(model, tmp_path):
    done = run("fold", model, "-o", tmp_path / "out.onnx", "--dry-run")
    assert done.returncode == 0
    assert "BatchNormalization: 1 → 0" in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_output_is_a_usage_error(model):
    done = run("fold", model)
    assert done.returncode == 2
    assert "-o OUT" in done.stderr


def test_the_input_is_never_overwritten(model):
    before = model.read_bytes()
    done = run("fold", model, "-o", model)
    assert done.returncode == 2
    assert "the input itself" in done.stderr
    assert model.read_bytes() == before


def test_inspect_lists_what_goes_and_what_stays(tmp_path):
    path = tmp_path / "model.onnx"
    original = conv_bn()
    original.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, None))
    onnx.save(original, path)
    done = run("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "1 would stay" in done.stdout
    assert "graph-output" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_inspect_json_carries_code_reason_node_and_remedy(tmp_path):
    path = tmp_path / "model.onnx"
    original = conv_bn()
    original.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    onnx.save(original, path)
    refusal = json.loads(run("inspect", path, "--json").stdout)["stayed"][0]["refusals"][0]
    assert refusal["code"] == "batch-statistics"
    assert refusal["node"] == "bn"
    assert "by the batch" in refusal["why"]
    assert "eval" in refusal["remedy"]


def test_inspect_says_over_what_each_normalisation_goes(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(norms.exported_group_norm(equal=False, padded=True, dynamic=True), path)
    done = run("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "GroupNormalization, spelled out" in done.stdout
    assert "axes 1, 2, 3" in done.stdout
    assert "computed from the data" in done.stdout
    (norm,) = json.loads(run("inspect", path, "--json").stdout)["normalisations"]
    assert norm["axes"] == [1, 2, 3]
    assert norm["groups"] == 3
    assert norm["constant_statistics"] is False
    assert "does not survive the Reshape" in norm["cannot_fold"]


def test_norms_and_assume_inference_reach_the_fold(tmp_path):
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(norms.rows("LayerNormalization", 17, "mul_add"), path)
    done = run("fold", path, "-o", out, "--norms")
    assert done.returncode == 0, done.stderr
    assert "check: passed" in done.stderr
    assert [len(n.input) for n in onnx.load(out).graph.node] == [2, 2, 2]
    trained = conv_bn()
    trained.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    onnx.save(trained, path)
    done = run("fold", path, "-o", out, "--assume-inference")
    assert done.returncode == 0, done.stderr
    assert "check: passed" in done.stderr
    assert "another function than the file's own" in done.stderr
    assert operators(onnx.load(out)) == ["Conv", "Relu"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], ["Gemm", "Relu", "Gemm"]),
        (["--only", "Mul"], ["Gemm", "Relu", "Gemm", "Add"]),
        (["--only", "shift"], ["Gemm", "Mul", "Relu", "Gemm"]),
        (["--only", "s*"], ["Gemm", "Relu", "Gemm"]),
        (["--skip", "Mul"], ["Gemm", "Mul", "Relu", "Gemm"]),
        (["--skip", "first"], ["Gemm", "Relu", "Gemm"]),  # it goes down instead
        (["--skip", "first", "--skip", "Relu"], ["Gemm", "Mul", "Relu", "Gemm"]),
        (["--skip", "Gemm"], ["Gemm", "Mul", "Relu", "Gemm", "Add"]),
        (["--only", "nothing"], ["Gemm", "Mul", "Relu", "Gemm", "Add"]),
    ],
)
def test_only_and_skip_choose_by_operator_and_by_node(tmp_path, options, left):
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(two_layers(), path)
    done = run("fold", path, "-o", out, "--no-verify", *options)
    assert done.returncode == 0, done.stderr
    assert operators(onnx.load(out)) == left


def test_a_spoiled_fold_is_convicted_and_not_written(model, tmp_path, monkeypatch, capsys):
    """The check must be able to say no: a rule that forgets the epsilon is caught."""
    from bnfold.affine import Affine
    from bnfold.cli.main import main
    from bnfold.rules.base import Source
    from bnfold.rules.batch_norm import BatchNormalization

    honest = BatchNormalization.source

    def spoiled(self, node, facts):
        found = honest(self, node, facts)
        affine = found.affine
        scale = affine.scale.copy()
        scale[1] *= 1.01
        return Source(found.index, Affine.per_channel(affine.axis, scale, affine.shift))

    monkeypatch.setattr(BatchNormalization, "source", spoiled)
    out = tmp_path / "out.onnx"
    monkeypatch.setattr(sys, "argv", ["bnfold", "fold", str(model), "-o", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "another function" in capsys.readouterr().err
    assert not out.exists()


def test_an_unexpected_error_is_a_message_and_not_a_traceback(model, monkeypatch, capsys):
    from bnfold.cli.main import main
    from bnfold.rules.conv import Conv

    def breaks(*_):
        message = "a bug"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(Conv, "take_after", breaks)
    monkeypatch.setattr(sys, "argv", ["bnfold", "inspect", str(model)])
    monkeypatch.delenv("BNFOLD_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr().err
    assert stop.value.code == 3
    assert "ZeroDivisionError: a bug" in shown
    assert "Traceback" not in shown
    assert "report" in shown


def test_help_and_version_work():
    assert "fold" in run("--help").stdout
    assert "0.1" in run("--version").stdout
    assert "--only" in run("fold", "--help").stdout
