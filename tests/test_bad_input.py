"""Input that cannot be used: one clear error, exit code 3, no traceback, no output file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import bnfold
from tests.battery import direct, judge, oddities
from tests.battery.graphs import Net
from tests.cli.calling import Done, run

LABELS = ("where:", "why:", "next:")


def good() -> onnx.ModelProto:
    return direct.conv_below("bn", "padded")


def bn_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == "BatchNormalization")


def parameter(model: onnx.ModelProto, index: int) -> onnx.TensorProto:
    name = bn_of(model).input[index]
    return next(t for t in model.graph.initializer if t.name == name)


def put(stored: onnx.TensorProto, array: np.ndarray) -> None:
    stored.CopyFrom(numpy_helper.from_array(array.astype(np.float32), stored.name))


def assert_clear_error(done: Done, *words: str) -> None:
    text = done.stderr
    assert done.returncode == 3, (done.returncode, text)
    assert "Traceback" not in text
    assert "does not know how to handle" not in text, (
        f"a fault of ours, not a clear error: {text}"
    )
    assert text.count("error:") == 1
    for label in LABELS:
        assert text.count(label) == 1, f"{label} once in {text!r}"
    for word in words:
        assert word.lower() in text.lower(), f"{word!r} missing in {text!r}"
    assert done.stdout == ""


def assert_refused(model: Path, tmp_path: Path, *words: str, strict: bool = False) -> None:
    """Both commands and the library say the same, and nothing is left behind.

    The error names the file, or the words that say where inside it.
    """
    words = words or (model.name,)
    more = ("--strict",) if strict else ()
    before = sorted(p.name for p in tmp_path.iterdir())
    result = run("fold", model, "-o", tmp_path / "out.onnx", "--no-verify", *more)
    assert_clear_error(result, *words)
    assert_clear_error(run("inspect", model, *more), *words)
    assert_clear_error(run("fold", model, "--dry-run", "--json", *more), *words)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    with pytest.raises(bnfold.errors.ModelError) as caught:
        bnfold.fold(model, verify=False, strict=strict)
    assert caught.value.where
    assert caught.value.why
    assert caught.value.remedy


def written(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    return path


# --------------------------------------------------------------------------- not a model


@pytest.mark.parametrize(
    "content",
    [
        b"this is not a model at all, just a line of text\n",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\x00" * 64,
        b"PK\x03\x04" + bytes(range(256)),
        b'{"format": "json"}',
    ],
    ids=["text", "png", "zeros", "zip", "json"],
)
def test_not_a_protobuf(tmp_path, content):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert_refused(path, tmp_path)


def test_empty_file(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"")
    assert_refused(path, tmp_path, "bad.onnx", "empty")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, keep):
    data = good().SerializeToString()
    path = tmp_path / "bad.onnx"
    path.write_bytes(data[: int(len(data) * keep)])
    assert_refused(path, tmp_path)


def test_missing_file(tmp_path):
    result = run("fold", tmp_path / "absent.onnx", "-o", tmp_path / "out.onnx")
    assert result.returncode in {2, 3}
    assert "absent.onnx" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_instead_of_a_file(tmp_path):
    (tmp_path / "bad.onnx").mkdir()
    result = run("fold", tmp_path / "bad.onnx", "-o", tmp_path / "out.onnx")
    assert result.returncode in {2, 3}
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_empty_graph(tmp_path):
    model = onnx.ModelProto(ir_version=8)
    model.opset_import.append(helper.make_opsetid("", 17))
    assert_refused(written(tmp_path, model), tmp_path)


def test_graph_without_nodes_and_outputs(tmp_path):
    model = helper.make_model(helper.make_graph([], "empty", [], []))
    assert_refused(written(tmp_path, model), tmp_path)


# ---------------------------------------------------------------------- structural faults


def cyclic(model: onnx.ModelProto) -> None:
    conv = model.graph.node[0]
    relu = helper.make_node("Relu", [bn_of(model).output[0]], ["back"], "back_node")
    conv.input[0] = "back"
    model.graph.node.append(relu)


def self_loop(model: onnx.ModelProto) -> None:
    bn = bn_of(model)
    bn.input[0] = bn.output[0]


def duplicate_output(model: onnx.ModelProto) -> None:
    name = model.graph.node[0].output[0]
    model.graph.node.append(helper.make_node("Relu", ["x"], [name], "second"))


def duplicate_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def duplicate_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(model.graph.input[0])


def node_writes_input(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["x"], ["x"], "writes_input"))


def node_writes_initializer(model: onnx.ModelProto) -> None:
    name = model.graph.initializer[0].name
    model.graph.node.insert(0, helper.make_node("Relu", ["x"], [name], "writes_weight"))


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def no_default_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "com.microsoft"


def foreign_domain_without_opset(model: onnx.ModelProto) -> None:
    y = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Odd", [y], ["z"], "odd", domain="no.where"))
    model.graph.output[0].name = "z"


def undefined_value(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def undefined_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (cyclic, "cycl"),
        (self_loop, "cycl"),
        (duplicate_output, "conv_3"),
        (duplicate_initializer, "k_1"),
        (duplicate_input, "x"),
        (node_writes_input, "x"),
        (node_writes_initializer, "k_1"),
        (no_opset, "opset"),
        (no_default_opset, "opset"),
        (foreign_domain_without_opset, "no.where"),
        (undefined_value, "nowhere"),
        (undefined_output, "nowhere"),
    ],
)
def test_structural_fault(tmp_path, spoil, word):
    model = good()
    spoil(model)
    assert_refused(written(tmp_path, model), tmp_path, word)


# ------------------------------------------------------------------------ external weights


def with_external_data(tmp_path: Path) -> Path:
    path = tmp_path / "bad.onnx"
    onnx.save_model(
        good(), path, save_as_external_data=True, location="bad.data", size_threshold=0
    )
    return path


def test_external_data_that_is_there_folds(tmp_path):
    path = with_external_data(tmp_path)
    out = tmp_path / "out.onnx"
    result = run("fold", path, "-o", out, "--no-verify")
    assert result.returncode == 0, result.stderr
    folded = onnx.load(out)
    assert judge.wrong_outputs(good(), folded) == []
    assert judge.affine_count(folded) == 0


def test_external_data_of_the_original_is_not_touched(tmp_path):
    path = with_external_data(tmp_path)
    before = (tmp_path / "bad.data").read_bytes(), path.read_bytes()
    assert run("fold", path, "-o", tmp_path / "out.onnx", "--no-verify").returncode == 0
    assert ((tmp_path / "bad.data").read_bytes(), path.read_bytes()) == before


def test_external_output_can_live_in_another_folder(tmp_path):
    path = with_external_data(tmp_path)
    (tmp_path / "there").mkdir()
    out = tmp_path / "there" / "out.onnx"
    assert run("fold", path, "-o", out, "--no-verify").returncode == 0
    for name in ("bad.onnx", "bad.data"):
        (tmp_path / name).unlink()
    assert judge.wrong_outputs(good(), onnx.load(out)) == []


def test_missing_external_data(tmp_path):
    path = with_external_data(tmp_path)
    (tmp_path / "bad.data").unlink()
    assert_refused(path, tmp_path, "bad.data")


@pytest.mark.parametrize("keep", [0, 8, 0.9])
def test_short_external_data(tmp_path, keep):
    path = with_external_data(tmp_path)
    data = (tmp_path / "bad.data").read_bytes()
    size = int(keep * len(data)) if keep < 1 else keep
    (tmp_path / "bad.data").write_bytes(data[:size])
    assert_refused(path, tmp_path, "bad.data")


def test_external_data_outside_the_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    model = good()
    stored = model.graph.initializer[0]
    (tmp_path / "secret.data").write_bytes(stored.raw_data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret.data"), ("offset", "0"), ("length", "864")):
        stored.external_data.add(key=key, value=value)
    path = tmp_path / "inner" / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    assert_refused(path, tmp_path / "inner", "secret.data")


# ------------------------------------------------------------------- numbers without sense


def with_variance(value: float) -> onnx.ModelProto:
    """Two layers, the variance of the first of which is ``value`` in one channel."""
    net = Net("variance")
    y = net.node("Relu", [net.bn(net.conv(net.input(["N", 3, 8, 8]), 3, 6), 6, epsilon=1e-5)])
    net.output(net.bn(net.conv(y, 6, 4), 4))
    model = net.model()
    variance = numpy_helper.to_array(parameter(model, 4)).copy()
    variance[2] = value
    put(parameter(model, 4), variance)
    return model


@pytest.mark.parametrize("value", [-0.5, -1e6, -1e-5, np.nan, np.inf, -np.inf])
def test_variance_without_sense_is_an_error_if_strict(tmp_path, value):
    model = with_variance(value)
    path = written(tmp_path, model)
    assert_refused(path, tmp_path, "variance", bn_of(model).name, strict=True)


@pytest.mark.parametrize("value", [-0.5, -1e6, -1e-5, np.nan, np.inf, -np.inf])
def test_variance_without_sense_stays_with_a_warning_and_the_rest_folds(tmp_path, value):
    model = with_variance(value)
    done = run("fold", written(tmp_path, model), "-o", tmp_path / "out.onnx", "--no-verify")
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if "warning" in line]
    assert bn_of(model).name in warning
    assert "input_var" in warning
    folded = onnx.load(tmp_path / "out.onnx")
    assert [n.op_type for n in folded.graph.node] == [
        "Conv",
        "BatchNormalization",
        "Relu",
        "Conv",
    ]
    (stay,) = bnfold.fold(model, verify=False).report.stays
    assert stay.refusals[0].code is bnfold.records.Code.NOT_FINITE


def test_variance_a_little_below_zero_is_folded_with_its_epsilon():
    model = with_variance(-5e-6)
    result = bnfold.fold(model, strict=True)
    assert judge.affine_count(result.to_proto()) == 0
    assert judge.wrong_outputs(model, result.to_proto()) == []
    assert result.report.warnings == ()


@pytest.mark.parametrize("index", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 5, 7])
def test_parameter_of_wrong_length(tmp_path, index, length):
    model = good()
    put(parameter(model, index), np.ones(length))
    assert_refused(written(tmp_path, model), tmp_path, bn_of(model).name)


def test_parameter_of_wrong_rank(tmp_path):
    model = good()
    put(parameter(model, 1), np.ones((6, 1)))
    assert_refused(written(tmp_path, model), tmp_path, bn_of(model).name)


def test_weights_shorter_than_their_shape(tmp_path):
    model = good()
    stored = model.graph.initializer[0]
    stored.raw_data = stored.raw_data[:-8]
    assert_refused(written(tmp_path, model), tmp_path, stored.name)


def test_parameters_of_a_batch_norm_that_could_not_fold_are_checked_too(tmp_path):
    net = Net("unfoldable")
    net.output(net.node("Relu", [net.bn(net.input(["N", 6, 4, 4]), 6)]))
    model = net.model()
    put(parameter(model, 4), np.full(6, -1.0))
    assert_refused(written(tmp_path, model), tmp_path, "variance", strict=True)
    assert len(bnfold.fold(model, verify=False).report.warnings) == 1


# ------------------------------------------------------------------------------- warnings


def test_unsorted_graph_is_sorted_with_a_warning_and_folds(tmp_path):
    model = oddities.unsorted()
    path, out = tmp_path / "unsorted.onnx", tmp_path / "out.onnx"
    path.write_bytes(model.SerializeToString())
    result = run("fold", path, "-o", out, "--no-verify")
    assert result.returncode == 0, result.stderr
    assert "sorted" in result.stderr
    folded = onnx.load(out)
    onnx.checker.check_model(folded, full_check=True)
    assert [n.op_type for n in folded.graph.node] == ["Conv", "Relu"]
    assert judge.wrong_outputs(model, folded) == []
    assert any("sorted" in w for w in bnfold.fold(path, verify=False).report.warnings)


def test_a_sorted_graph_gives_no_warning(tmp_path):
    assert bnfold.fold(written(tmp_path, good()), verify=False).report.warnings == ()


def test_unknown_operators_stop_nothing(tmp_path):
    path, out = tmp_path / "foreign.onnx", tmp_path / "out.onnx"
    path.write_bytes(oddities.foreign_op("after").SerializeToString())
    assert run("fold", path, "-o", out, "--no-verify").returncode == 0
    assert judge.affine_count(onnx.load(out)) == 0


# --------------------------------------------------------------------------------- output


def test_output_folder_does_not_exist(tmp_path):
    path = written(tmp_path, good())
    out = tmp_path / "absent" / "out.onnx"
    assert_clear_error(run("fold", path, "-o", out, "--no-verify"), "absent")
    assert not out.parent.exists()


def test_output_folder_is_a_file(tmp_path):
    path = written(tmp_path, good())
    (tmp_path / "plain").write_text("x")
    assert_clear_error(run("fold", path, "-o", tmp_path / "plain" / "out.onnx", "--no-verify"))
    assert (tmp_path / "plain").read_text() == "x"


def test_output_is_a_folder(tmp_path):
    path = written(tmp_path, good())
    (tmp_path / "folder").mkdir()
    result = run("fold", path, "-o", tmp_path / "folder", "--no-verify")
    assert result.returncode in {2, 3}
    assert "folder" in result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_output_folder_is_read_only(tmp_path):
    path = written(tmp_path, good())
    (tmp_path / "locked").mkdir(mode=0o500)
    result = run("fold", path, "-o", tmp_path / "locked" / "out.onnx", "--no-verify")
    assert_clear_error(result, "locked")
    assert list((tmp_path / "locked").iterdir()) == []


def test_output_device_is_full(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    path = written(tmp_path, good())
    link = tmp_path / "out.onnx"
    link.symlink_to(full)
    result = run("fold", path, "-o", link, "--no-verify")
    assert result.returncode in {0, 3}
    assert "Traceback" not in result.stderr
    if result.returncode == 0:
        assert judge.wrong_outputs(good(), onnx.load(link)) == []
    assert full.is_char_device()


def test_the_input_is_never_overwritten(tmp_path):
    path = written(tmp_path, good())
    before = path.read_bytes()
    for out in (path, tmp_path / "." / "bad.onnx"):
        result = run("fold", path, "-o", out, "--no-verify")
        assert result.returncode in {2, 3}
    (tmp_path / "link.onnx").symlink_to(path)
    run("fold", path, "-o", tmp_path / "link.onnx", "--no-verify")
    assert path.read_bytes() == before


def test_an_old_output_survives_a_failed_fold(tmp_path):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"yesterday's result")
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"nonsense")
    assert run("fold", path, "-o", out, "--no-verify").returncode == 3
    assert out.read_bytes() == b"yesterday's result"


def test_a_fresh_process_says_the_same(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(good().SerializeToString()[:300])
    done = subprocess.run(
        [sys.executable, "-m", "bnfold", "fold", str(path), "-o", str(tmp_path / "out.onnx")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("next:") == 1
    assert not (tmp_path / "out.onnx").exists()
