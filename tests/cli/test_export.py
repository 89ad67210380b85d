"""``bnfold export``: what it finds, what it prints where, exit codes, weights of a file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from bnfold.cli.main import main  # noqa: E402  behind what skips the file

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import torch
from torch import nn
from beside import width

def net():
    torch.manual_seed(0)
    print("a module that talks")
    made = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    made[1].running_mean.uniform_(-1, 1)
    made[1].running_var.uniform_(0.5, 2)
    return made.eval()

def called():
    return net(), torch.randn(2, 3, 8, 8)

def by_name():
    return net(), (), {"input": torch.randn(2, 3, 8, 8)}

def training():
    return net().train(), torch.randn(2, 3, 8, 8)

def nothing():
    return "no module"

def broken():
    raise RuntimeError("no such data set")

def ends():
    raise SystemExit("goodbye")
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "beside.py").write_text("width = 4\n")
    monkeypatch.chdir(tmp_path)
    for name in ("nets", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("nets", "beside"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(folder, monkeypatch, capsys):  # noqa: ARG001  the command runs in it
    """The command in this process, with TorchScript: both take a fraction of the time."""

    def command(*arguments):
        said = ["bnfold", "export", *map(str, arguments), "--exporter", "torchscript"]
        monkeypatch.setattr(sys, "argv", said)
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capsys.readouterr())

    return command


def test_a_module_becomes_a_folded_file_and_a_document(folder):
    pytest.importorskip("onnxscript")
    said = ("nets:called", "-o", "o.onnx", "--dynamic-batch", "--json", "--markdown", "s.md")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bnfold", "export", *said],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "bnfold/export-report/1"
    assert document["verification"]["verdict"] == "passed"
    assert document["inputs"][0]["shape"] == ["batch", 3, 8, 8]
    assert document["fold"]["operators"]["before"]["BatchNormalization"] == 1
    assert "against torch: passed" in done.stderr
    assert "a module that talks" in done.stderr
    assert "exported, the same function" in (folder / "s.md").read_text()
    assert [node.op_type for node in onnx.load("o.onnx").graph.node] == ["Conv", "Relu"]
    names = sorted(one.name for one in folder.iterdir() if one.name != "__pycache__")
    assert names == ["beside.py", "nets.py", "o.onnx", "s.md"]


def test_sizes_instead_of_arguments_and_a_certificate(run, folder):
    files = ("--unfolded", "u.onnx", "--certificate", "c.json", "--no-verify")
    done = run("nets:net", "-o", "o.onnx", "--input", "input=1x3x8x8", *files)
    assert done.returncode == 0, done.stderr
    assert "not verified" in done.stderr
    kinds = [node.op_type for node in onnx.load(folder / "u.onnx").graph.node]
    assert "BatchNormalization" in kinds
    assert json.loads((folder / "c.json").read_text())


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ((), 0),
        (("--external-data", "one", "--size-threshold", 1), 1),
        (("--external-data", "per-tensor", "--size-threshold", 64), 1),
        (("--external-data", "per-tensor", "--size-threshold", 1), 2),
        (("--external-data", "inline"), 0),
    ],
)
def test_weights_go_where_they_are_asked_to(run, folder, layout, files):
    done = run("nets:called", "-o", "o.onnx", "--unfolded", "u.onnx", "--no-verify", *layout)
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("o.onnx*.data"))) == files
    assert bool(list(folder.glob("u.onnx*.data"))) == bool(files)
    found = onnx.load(folder / "o.onnx", load_external_data=False).graph.initializer
    outside = sum(one.data_location == onnx.TensorProto.EXTERNAL for one in found)
    assert outside == (0 if not files else 1 if 64 in layout else 2)
    onnx.load(folder / "o.onnx")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nets:net", "-o", "o.onnx"), 2, "--input"),
        (("nets", "-o", "o.onnx"), 2, "module:callable"),
        (("nets:absent", "-o", "o.onnx"), 3, "no attribute 'absent'"),
        (("nets:broken", "-o", "o.onnx"), 3, "no such data set"),
        (("nets:broken", "-o", "o.onnx"), 3, "nets:broken, nets.py line 27"),
        (("nets:ends", "-o", "o.onnx"), 3, "goodbye"),
        (("nets:nothing", "-o", "o.onnx"), 3, "returned an object of type str"),
        (("nets:training", "-o", "o.onnx"), 3, "1 (BatchNorm2d)"),
        (("nets:called", "-o", "no/o.onnx"), 3, "no folder"),
        (("nets:net", "-o", "o.onnx", "--input", "y=1x3x8x8"), 2, "no such input"),
        (("nets:called", "-o", "o.onnx", "--certificate", "c.json"), 2, "--unfolded"),
    ],
)
def test_nonsense_has_its_exit_code_and_writes_nothing(arguments, code, said, run, folder):
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert not list(folder.glob("*.onnx"))
    assert "Traceback" not in done.stderr


def test_train_mode_on_request_and_arguments_by_name(run, folder):
    assert run("nets:training", "-o", "o.onnx", "--eval", "--no-verify").returncode == 0
    done = run("nets:by_name", "-o", "o2.onnx", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert onnx.load(folder / "o2.onnx").graph.input[0].name == "input"


def state():
    return {
        "0.weight": torch.ones(4, 3, 3, 3),
        "1.weight": torch.full((4,), 2.0),
        "1.bias": torch.zeros(4),
        "1.running_mean": torch.zeros(4),
        "1.running_var": torch.ones(4),
        "1.num_batches_tracked": torch.tensor(7),
    }


def test_weights_of_a_file(run, folder):
    wrapped = {f"module.{name}": one for name, one in state().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, folder / "w.pt")
    files = ("--weights", "w.pt", "--no-verify", "-o", "o.onnx")
    done = run("nets:called", *files)
    assert done.returncode == 0, done.stderr
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load("o.onnx").graph.initializer]
    (weight,) = [one for one in weights if one.ndim == 4]
    assert weight == pytest.approx(2 / (1 + 1e-5) ** 0.5)


def test_weights_that_do_not_fit_are_named(run, folder):
    wrong = state() | {"2.weight": torch.ones(1), "1.bias": torch.zeros(5)}
    del wrong["1.weight"]
    torch.save(wrong, folder / "w.pt")
    done = run("nets:called", "--weights", "w.pt", "-o", "o.onnx")
    assert done.returncode == 3
    for said in ("missing: 1.weight", "unexpected: 2.weight", "1.bias is [5] in the file"):
        assert said in done.stderr


def test_a_file_of_code_is_not_run(run, folder):
    torch.save(torch.nn.ReLU(), folder / "w.pt")
    done = run("nets:called", "--weights", "w.pt", "-o", "o.onnx")
    assert done.returncode == 3
    assert "cannot read the weights" in done.stderr


@pytest.mark.parametrize("data", [b"junk\n", b"", b"PK\x03\x04", b"\x80\x02X"])
def test_a_file_of_anything_else_is_no_file_of_weights(data, run, folder):
    """torch's unpickler meets "junk" with a KeyError, and advises to run other files' code."""
    (folder / "w.pt").write_bytes(data)
    done = run("nets:called", "--weights", "w.pt", "-o", "o.onnx")
    assert done.returncode == 3
    assert "cannot read the weights" in done.stderr
    assert "weights_only" not in done.stderr


@pytest.mark.usefixtures("folder")
def test_a_full_disk_is_said_to_be_full(run, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bnfold.exporting.sources.source_named", full)
    done = run("nets:called", "-o", "o.onnx")
    assert done.returncode == 3
    assert "why:   No space left on device" in done.stderr
    assert "TMPDIR" in done.stderr
