"""The command line: exit codes, what goes to which stream, what is written and what is not."""

from __future__ import annotations

import json
import re
import sys

import onnx
import pytest

from tests.battery import norms
from tests.cli.calling import run, started
from tests.small import conv_bn, operators, two_layers


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(conv_bn(), path)
    return path


def test_fold_writes_a_folded_model_and_tells_people_on_stderr(model, tmp_path):
    out = tmp_path / "out.onnx"
    done = started("fold", model, "-o", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "BatchNormalization: 1 → 0" in done.stderr
    assert "check: passed" in done.stderr
    assert operators(onnx.load(out)) == ["Conv", "Relu"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]


def test_json_is_the_only_thing_on_stdout(model, tmp_path):
    done = started("fold", model, "-o", tmp_path / "out.onnx", "--json", "--no-verify")
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
    done = started("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "1 would stay" in done.stdout
    assert "graph-output" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_inspect_says_at_which_sizes_a_fold_would_be_checked(tmp_path):
    path = tmp_path / "model.onnx"
    original = conv_bn()
    for dim in list(original.graph.input[0].type.tensor_type.shape.dim)[1:3]:
        dim.Clear()
    onnx.save(original, path)
    done = run("inspect", path)
    said = "sizes for a check: x=1x3x64x8 (axis 1 from Conv 'conv'; axes 0, 2 are open:"
    assert said in done.stdout
    (sizes,) = json.loads(run("inspect", path, "--json", "--shape", "x=2x3x9x8").stdout)[
        "sizes"
    ]
    assert sizes == {
        "name": "x", "shape": [2, 3, 9, 8], "decided": {"1": "Conv 'conv'"}, "assumed": [],
        "use": "numbers", "why": "",
    }  # fmt: skip


def test_inspect_says_which_input_no_numbers_are_drawn_for(tmp_path):
    path = tmp_path / "model.onnx"
    original = conv_bn()
    words = onnx.helper.make_tensor_value_info("words", onnx.TensorProto.STRING, [2])
    original.graph.input.append(words)
    onnx.save(original, path)
    done = run("inspect", path)
    assert "no check by drawn inputs: input 'words' holds STRING" in done.stdout
    sizes = json.loads(run("inspect", path, "--json").stdout)["sizes"]
    assert sizes[1]["shape"] is None
    assert "STRING" in sizes[1]["why"]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("x=1x4x8x8", "the model reads N×3×8×8, not 1×4×8×8"),
        ("x=1x3x8", "the model reads N×3×8×8, not 1×3×8"),
        ("z=1x3x8x8", "the model's inputs are 'x'"),
        ("x=1xthree", "it is not a list of sizes"),
    ],
)
def test_a_shape_that_does_not_fit_is_a_usage_error(model, shape, words):
    done = run("inspect", model, "--shape", shape)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("why", "option"),
    [
        ("the original does not run: [ShapeInferenceError] size", "--shape"),
        ("input 's' holds STRING, for which no numbers are drawn", "--inputs"),
        ("the proof ran out of time", "--max-time"),
        ("no window fits at the sizes that were tried", "--shape"),
        ("no output is moved by the inputs", "--certificate"),
    ],
)
def test_what_could_not_be_checked_is_said_first_with_the_option_that_helps(why, option):
    from bnfold.records import FoldReport, Verdict, VerifyReport
    from bnfold.report.to_text import fold_to_text

    report = FoldReport((), (), {"Mul": 1}, {})
    said = fold_to_text(report, VerifyReport(Verdict.NOT_JUDGED, why=why), "m.onnx", None)
    first, second, *_ = said.splitlines()
    assert first.startswith(f"m.onnx: NOT CHECKED: {why}; ")
    assert option in first
    assert second == "  0 folds, 0 maps stay"
    passed = fold_to_text(report, VerifyReport(Verdict.PASSED), "m.onnx", None)
    assert "NOT CHECKED" not in passed


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


@pytest.mark.parametrize("command", ["inspect", "fold", "verify", "bench", "export"])
def test_help_shows_no_internal_name(command):
    """``--arms _WORDS``: click takes the name of a function for what an option takes."""
    words = re.findall(r"--[a-z-]+ (\S+)", run(command, "--help").stdout)
    assert not [word for word in words if word.startswith("_")]


def test_help_and_version_work():
    assert "fold" in run("--help").stdout
    assert "0.1" in started("--version").stdout
    assert "--only" in run("fold", "--help").stdout


@pytest.mark.parametrize(
    ("options", "passed_on"),
    [
        ([], {}),
        (["--shape", "x=2x3x8x8"], {"shapes": ("x=2x3x8x8",)}),
        (["--max-time", "2.5"], {"max_time": 2.5}),
    ],
)
def test_fold_hands_sizes_and_time_to_the_check(model, monkeypatch, options, passed_on):
    from bnfold.cli.main import main

    asked = {}

    def stub(_, __, **choices):
        from bnfold.folding.api import fold_unchecked

        asked.update(choices)
        return fold_unchecked(model)

    monkeypatch.setattr("bnfold.checked.fold_into", stub)
    monkeypatch.setattr(sys, "argv", ["bnfold", "fold", str(model), "--dry-run", *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert {name: asked[name] for name in ("shapes", "max_time") if name in asked} == passed_on


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "x=1x4x8x8"], "the model reads N×3×8×8, not 1×4×8×8"),
        (["--max-time", "0"], "0"),
        (["--max-time", "soon"], "soon"),
    ],
)
def test_fold_refuses_sizes_and_times_that_make_no_sense(model, tmp_path, options, words):
    out = tmp_path / "out.onnx"
    done = run("fold", model, "-o", out, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not out.exists()


def test_without_a_runtime_the_first_line_says_that_nothing_was_checked(
    model, tmp_path, monkeypatch, capsys
):
    from bnfold.cli.main import main
    from bnfold.folding.api import fold_unchecked

    monkeypatch.setattr(
        "bnfold.checked.fold_into", lambda path, *_, **__: fold_unchecked(path)
    )
    said = {}
    for options in ((), ("--no-verify",)):
        out = tmp_path / f"out{len(options)}.onnx"
        monkeypatch.setattr(
            sys, "argv", ["bnfold", "fold", str(model), "-o", str(out), *options]
        )
        with pytest.raises(SystemExit):
            main()
        said[options] = capsys.readouterr().err.splitlines()[0]
    assert "NOT CHECKED" in said[()]
    assert "bnfold[cpu]" in said[()]
    assert "NOT CHECKED" not in said["--no-verify",]
