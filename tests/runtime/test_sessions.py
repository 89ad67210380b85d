"""A model is run in a child process, and whatever becomes of it is an answer."""

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bnfold.runtime.sessions as under_test
from bnfold.errors import MissingDependencyError
from bnfold.runtime import (
    Job,
    Level,
    Outcome,
    available,
    read_arrays,
    run,
    run_all,
    write_arrays,
)

FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


def test_the_parent_does_not_load_the_runtime() -> None:
    program = (
        "import sys, bnfold.runtime as r, bnfold.evidence\n"
        "assert r.available()\n"
        "assert 'onnxruntime' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        cwd=Path(under_test.__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()


def test_every_set_of_inputs_has_its_outputs(tmp_path: Path) -> None:
    model = save(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], FLOAT, ["n"])
    runs = run(Job(model, sets(tmp_path, np.float32([1, 2]), np.float32([3])), tmp_path))
    assert [one.outcome for one in runs] == [Outcome.RAN, Outcome.RAN]
    assert [one.outputs()["y"].tolist() for one in runs] == [[-1, -2], [-3]]


def test_the_level_is_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        under_test, "_run_child", lambda request, _: spy(asked, request.read_text())
    )
    for level in Level:
        run(Job(tmp_path / "m.onnx", (tmp_path / "i.npz",), tmp_path, level))
    assert [
        f'"level": "{level}"' in text for level, text in zip(Level, asked, strict=True)
    ] == [True] * 3


def test_a_set_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    model = save(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], FLOAT, [2])
    files = sets(tmp_path, np.float32([1]), np.float32([1, 2]), np.float32([3, 4]))
    runs = run(Job(model, files, tmp_path, stop_after=1))
    assert [one.outcome for one in runs] == [Outcome.FAILED, Outcome.RAN, Outcome.SKIPPED]
    assert "Got invalid dimensions" in runs[0].message
    assert runs[0].outputs() == {}


def test_a_model_that_does_not_load_fails_and_the_next_job_runs(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    good = save(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], FLOAT, ["n"])
    files = sets(tmp_path, np.float32([1]), np.float32([2]))
    first, second = run_all([Job(broken, files, tmp_path), Job(good, files, tmp_path)])
    assert [one.outcome for one in first] == [Outcome.FAILED, Outcome.SKIPPED]
    assert "broken.onnx" in first[0].message
    assert str(tmp_path) not in first[0].message
    assert all(one.ran for one in second)


def test_a_model_that_kills_the_runtime_is_reported_and_the_next_job_runs(
    tmp_path: Path,
) -> None:
    deadly = save_deadly(tmp_path)
    good = save(tmp_path, [helper.make_node("Neg", ["x"], ["y"])], FLOAT, [1, 2, 3])
    files = sets(tmp_path, np.ones((1, 2, 3), np.float32))
    first, second = run_all([Job(deadly, files, tmp_path), Job(good, files, tmp_path)])
    assert first[0].outcome is Outcome.DIED
    assert first[0].message == "the runtime died by signal 11 (SIGSEGV)"
    assert second[0].ran


def test_a_child_that_is_killed_keeps_what_it_had_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = '{"outcome": "ran", "message": "", "seconds": 0.1, "file": ""}'
    program = (
        "import json, os, sys\n"
        "job = json.load(open(sys.argv[1]))[0]\n"
        f"open(job['journal'], 'w').write('{answered}\\n')\n"
        "os.kill(os.getpid(), 9)"
    )
    monkeypatch.setattr(under_test, "_MODULE", ("-c", program))
    files = sets(tmp_path, np.float32([1]), np.float32([1]), np.float32([1]))
    runs = run(Job(tmp_path / "m.onnx", files, tmp_path))
    assert [one.outcome for one in runs] == [Outcome.RAN, Outcome.DIED, Outcome.SKIPPED]
    assert "signal 9 (SIGKILL)" in runs[1].message
    assert "ended the child" in runs[2].message


def test_a_child_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_MODULE", ("-c", "import time; time.sleep(60)"))
    files = sets(tmp_path, np.float32([1]))
    runs = run(Job(tmp_path / "m.onnx", files, tmp_path, timeout_s=0.2))
    assert runs[0].outcome is Outcome.TIMED_OUT
    assert "no answer after 0.2 s" in runs[0].message


@pytest.mark.parametrize(
    ("kind", "dtype"), [(BRAIN, ml_dtypes.bfloat16), (HALF, np.float16), (FLOAT, np.float32)]
)
def test_half_precision_goes_in_and_out(tmp_path: Path, kind: int, dtype: type) -> None:
    model = save(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], kind, ["n"])
    given = np.array([0.5, -3.0, 1.0078125]).astype(dtype)
    runs = run(Job(model, sets(tmp_path, given), tmp_path))
    assert runs[0].ran, runs[0].message
    assert runs[0].outputs()["y"].dtype == given.dtype
    assert runs[0].outputs()["y"].tobytes() == given.tobytes()


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x"], ["s"]),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, None)
    model = save(tmp_path, nodes, FLOAT, ["n"], sequence)
    runs = run(Job(model, sets(tmp_path, np.float32([1])), tmp_path))
    assert list(runs[0].outputs()) == ["y"]


def test_text_goes_in_and_out(tmp_path: Path) -> None:
    model = save(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], 8, ["n"])
    runs = run(Job(model, sets(tmp_path, np.array(["ab", "c"])), tmp_path))
    assert runs[0].ran, runs[0].message
    assert runs[0].outputs()["y"].tolist() == ["ab", "c"]


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    arrays = {
        "scalar": np.array(3.5, dtype=ml_dtypes.bfloat16),
        "a/b": np.ones((2, 0), dtype=np.float16),
        "whole": np.arange(3),
    }
    write_arrays(tmp_path / "a.npz", arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_without_the_runtime_the_error_names_both_extras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test.importlib.util, "find_spec", lambda _: None)
    assert not available()
    with pytest.raises(MissingDependencyError, match=r"bnfold\[cpu\].*bnfold\[gpu\]"):
        run(Job(tmp_path / "m.onnx", (), tmp_path))


def spy(asked: list[str], text: str) -> under_test.Run:
    asked.append(text)
    return under_test.Run(Outcome.FAILED, "never started")


def sets(folder: Path, *arrays: np.ndarray) -> tuple[Path, ...]:
    """One file of inputs for each array, given to the input called x."""
    files = tuple(folder / f"set{index}.npz" for index in range(len(arrays)))
    for file, array in zip(files, arrays, strict=True):
        write_arrays(file, {"x": array})
    return files


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    kind: int,
    shape: list[int | str],
    *more: onnx.ValueInfoProto,
) -> Path:
    x, y = (helper.make_tensor_value_info(name, kind, shape) for name in "xy")
    graph = helper.make_graph(nodes, "net", [x], [*more, y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


def save_deadly(folder: Path) -> Path:
    """ONNX Runtime 1.32 dies on empty optional outputs of BatchNormalization, opset 9."""
    outputs = ["y", "", "", "", ""]
    node = helper.make_node("BatchNormalization", ["x", "v", "v", "v", "v"], outputs)
    faces = [helper.make_tensor_value_info(name, FLOAT, [1, 2, 3]) for name in "xy"]
    ones = onnx.numpy_helper.from_array(np.ones(2, np.float32), "v")
    graph = helper.make_graph([node], "net", faces[:1], faces[1:], [ones])
    opsets = [helper.make_opsetid("", 9)]
    path = folder / "deadly.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), os.fspath(path))
    return path
