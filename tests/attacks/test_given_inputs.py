"""Archives that unpack to more than a model could read, and code that ends the program."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.attacks.watching import faults_of
from tests.cli.calling import run
from tests.small import conv_bn

FIT = (1, 3, 8, 8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_bn().SerializeToString())
    return path


def header(shape: tuple[int, ...], kind: str = "<f4", version: int = 1) -> bytes:
    told = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape!r}, }}"
    told = told.ljust(118) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(told))
    return b"\x93NUMPY" + bytes([version, 0]) + length + told.encode()


def archive(path: Path, members: dict[str, bytes], pad: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, start in members.items():
            with file.open(name, "w", force_zip64=True) as member:
                member.write(start)
                for _ in range(0, pad, 1 << 20):
                    member.write(bytes(1 << 20))
    return path


def verify(model: Path, inputs: Path | str):
    return run("verify", model, model, "--inputs", inputs, "--max-time", "5")


def refused(done, *words: str) -> None:
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "does not know" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


BAD_MEMBERS = {
    "no array": {"x.txt": b"hello"},
    "no header": {"x.npy": b"hello"},
    "cut off": {"x.npy": header(FIT)[:20]},
    "shorter than it says": {"x.npy": header(FIT) + bytes(10)},
    "objects": {"x.npy": header(FIT, "|O") + bytes(1000)},
    "another shape": {"x.npy": header((1, 4, 8, 8)) + bytes(1024)},
    "huge": {"x.npy": header((1 << 40, 3, 8, 8))},
    "beyond all": {"x.npy": header((1 << 62, 1 << 62, 8, 8))},
    "negative": {"x.npy": header((-1, 3, 8, 8)) + bytes(1000)},
    "code in the header": {"x.npy": header("__import__('os').abort()") + bytes(1000)},
    "another type": {"x.npy": header(FIT, "<i8") + bytes(1536)},
    "another name too": {"x.npy": header(FIT) + bytes(768), "z.npy": header(FIT) + bytes(768)},
}


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_an_archive_is_judged_by_its_headers(name, model, tmp_path):
    refused(verify(model, archive(tmp_path / "x.npz", BAD_MEMBERS[name])), "x.npz")


def test_an_archive_that_is_none(model, tmp_path):
    path = tmp_path / "x.npz"
    for bad in (b"", b"PK\x03\x04" + bytes(100), bytes(1000), b"\x93NUMPY"):
        path.write_bytes(bad)
        refused(verify(model, path), "x.npz")


def test_a_bomb_is_not_unpacked(model, tmp_path, watcher):
    """320 MB of zeros in 1 MB: they fit the model, which leaves the batch open."""
    size_bytes = 320 << 20
    shape = (size_bytes // (4 * 3 * 8 * 8), 3, 8, 8)
    path = archive(tmp_path / "x.npz", {"x.npy": header(shape)}, pad=size_bytes)
    seen = watcher.run("verify", model, model, "--inputs", path)
    assert seen.exit_code == 3
    assert "unpacks" in seen.stderr
    assert faults_of(seen, most_bytes=300_000_000, most_s=10) == []


def test_an_array_that_says_it_is_larger_than_its_file(model, tmp_path):
    path = tmp_path / "x.npy"
    for shape in ((1 << 35, 3, 8, 8), (1 << 62, 1 << 62, 1, 1), FIT):
        path.write_bytes(header(shape) + bytes(700))
        refused(verify(model, path), "x.npy")


def test_zeros_that_fit_are_read(model, tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((40, 3, 8, 8), np.float32))
    assert verify(model, tmp_path / "x.npz").returncode in (0, 1)


BAD_PROTOS = {
    "garbage": b"\xff" * 40,
    "no data": onnx.TensorProto(data_type=1, dims=FIT).SerializeToString(),
    "huge": onnx.TensorProto(data_type=1, dims=(1 << 40, 3)).SerializeToString(),
    "negative": onnx.TensorProto(data_type=1, dims=(-1, 3)).SerializeToString(),
    "no type": onnx.TensorProto(data_type=99, dims=(1,), raw_data=b"1234").SerializeToString(),
    "short": onnx.TensorProto(data_type=1, dims=FIT, raw_data=b"1234").SerializeToString(),
    "elsewhere": onnx.TensorProto(
        data_type=1, dims=(3,), data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key="location", value="/etc/hostname")],
    ).SerializeToString(),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PROTOS)
def test_a_tensor_holds_its_own_data(name, model, tmp_path):
    path = tmp_path / "x.pb"
    path.write_bytes(BAD_PROTOS[name])
    refused(verify(model, path), "x.pb")


CODE = """
import os, sys

def leaves():
    sys.exit(0)

def leaves_with_a_word():
    sys.exit("done")

class Odd(BaseException):
    pass

def raises():
    raise Odd("odd\\nsecond line")

def ends_a_generator():
    raise GeneratorExit

def yields_then_leaves():
    yield {}
    sys.exit(0)

def endless():
    while True:
        yield {}

def interrupts():
    raise KeyboardInterrupt
"""


@pytest.fixture
def code(tmp_path, monkeypatch) -> None:
    (tmp_path / "made_inputs.py").write_text(CODE)
    (tmp_path / "left_at_import.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    for name in ("made_inputs", "left_at_import"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)


@pytest.mark.parametrize(
    "word",
    ["made_inputs:leaves", "made_inputs:leaves_with_a_word", "made_inputs:raises",
     "made_inputs:ends_a_generator", "made_inputs:yields_then_leaves", "made_inputs:endless",
     "made_inputs:absent", "left_at_import:f"],
)  # fmt: skip
@pytest.mark.usefixtures("code")
def test_code_that_ends_the_program_does_not_end_it_well(word, model):
    refused(verify(model, word), word)


@pytest.mark.usefixtures("code")
def test_code_that_interrupts_is_an_interruption(model):
    assert verify(model, "made_inputs:interrupts").returncode not in (0, 1, 2, 3, 4)


@pytest.mark.usefixtures("code")
def test_bench_is_no_other(model):
    done = run("bench", model, "--inputs", "made_inputs:leaves", "--max-time", "1")
    refused(done, "made_inputs:leaves")
