"""Large models: memory that does not grow with them, and files that are not read in vain."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from benchmarks.large_models import inlined, mixed
from bnfold.blocks import blocks, reader
from bnfold.expression import Expression, Held, round_once
from bnfold.files import data_writer
from bnfold.files.data_writer import DataWriter
from bnfold.folding.api import fold_unchecked
from bnfold.model import held_outside, light
from bnfold.model.constants import folded_tensor
from bnfold.model.io import load
from bnfold.model.pieces import bytes_of, pieces_of

ROOT = Path(__file__).parents[2]
SIDE = 3000
LARGEST_MB = 4 * SIDE * SIDE / 1e6
SIZE_MB = 180

PEAK = """
import json, sys, threading, time
from pathlib import Path
def memory():
    words = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines()
                 if ":" in line and line.count(":") == 1)
    return [int(words[key].split()[0]) / 1e3 for key in ("RssAnon", "RssFile")]
from bnfold.cli.main import main
from bnfold.model import light
light.LEAST_FILE_BYTES = int(sys.argv.pop(1))
sys.argv[0] = "bnfold"
import bnfold.checked, bnfold.folding.api, bnfold.model.save, bnfold.verified
import bnfold.evidence.proof, bnfold.report.to_json
base, peak = memory(), [0, 0]
def sample():
    while True:
        peak[:] = map(max, peak, memory())
        time.sleep(0.002)
threading.Thread(target=sample, daemon=True).start()
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.stderr.write(json.dumps([high - low for high, low in zip(peak, base)]))
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of five matrices of 36 MB, and four convolutions."""
    return mixed(tmp_path_factory.mktemp("large") / "m.onnx", SIZE_MB * 1e6, SIDE)


@pytest.fixture(scope="module")
def inside(large, tmp_path_factory):
    """The same model with its weights in the file."""
    return inlined(large, tmp_path_factory.mktemp("inside") / "m.onnx")


def peaks(*arguments: object, least: int = light.LEAST_FILE_BYTES) -> tuple[float, float]:
    """What a command takes beyond what it is when it starts: of its own, and mapped; in MB.

    Args:
        arguments: Its words.
        least: Model files from so many bytes on are read without their weights.
    """
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(least), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    anonymous, mapped = json.loads(done.stderr.splitlines()[-1])
    return anonymous, mapped


@on_linux
def test_a_fold_takes_memory_for_one_tensor_and_keeps_no_pages(large, tmp_path):
    anonymous, mapped = peaks("fold", large, "-o", tmp_path / "o.onnx", "--no-verify")
    assert anonymous < LARGEST_MB
    assert mapped < LARGEST_MB


@on_linux
def test_inspect_keeps_no_pages(large):
    anonymous, mapped = peaks("inspect", large)
    assert anonymous < LARGEST_MB
    assert mapped < LARGEST_MB


@on_linux
@pytest.mark.thorough
def test_a_certificate_takes_memory_for_one_tensor(large, tmp_path):
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.json"
    words = ("--certificate", certificate, "--max-time", 600)
    anonymous, mapped = peaks("fold", large, "-o", out, "--no-verify", *words)
    assert anonymous < 2 * LARGEST_MB + 300
    assert mapped < 2 * LARGEST_MB + 40
    anonymous, mapped = peaks("verify", large, out, *words)
    assert anonymous < 2 * LARGEST_MB + 300
    assert mapped < 2 * LARGEST_MB + 40


@on_linux
def test_a_fold_of_weights_inside_takes_memory_for_one_tensor(inside, tmp_path):
    words = ("fold", inside, "-o", tmp_path / "o.onnx", "--no-verify")
    anonymous, mapped = peaks(*words)
    assert anonymous < 2 * LARGEST_MB
    assert mapped < LARGEST_MB
    assert (tmp_path / "o.onnx").stat().st_size > SIZE_MB * 1e6
    as_before, _ = peaks(*words, least=1 << 40)  # shows that the bound is one
    assert as_before > 2 * SIZE_MB


@on_linux
def test_inspect_of_weights_inside_takes_memory_for_one_tensor(inside):
    anonymous, mapped = peaks("inspect", inside)
    assert anonymous < 2 * LARGEST_MB
    assert mapped < LARGEST_MB


@on_linux
@pytest.mark.thorough
def test_a_certificate_of_weights_inside_takes_memory_for_one_tensor(inside, tmp_path):
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.json"
    words = ("--certificate", certificate, "--max-time", 600)
    anonymous, _ = peaks("fold", inside, "-o", out, "--no-verify", *words)
    assert anonymous < 2 * LARGEST_MB + 300
    anonymous, _ = peaks("verify", inside, out, *words)
    assert anonymous < 2 * LARGEST_MB + 300


def test_inspect_reads_no_weight_that_decides_nothing(tmp_path, monkeypatch):
    """Two of three large matrices meet a map; what is read of the others would be in vain."""
    path = mixed(tmp_path / "m.onnx", 12 * 4 * 100 * 100, 100)
    read: set[str] = set()
    part = held_outside.MappedOutside.part

    def noted(self, start, stop):
        read.add(self.name)
        return part(self, start, stop)

    monkeypatch.setattr(held_outside.MappedOutside, "part", noted)
    result = fold_unchecked(path)
    changed = {name for step in result.report.steps for name in step.tensors}
    matrices = {tensor for tensor in load(path).graph.initializers if ".w" in tensor}
    assert read & matrices == changed & matrices
    assert 0 < len(changed & matrices) < len(matrices)


def test_large_folds_are_bit_for_bit_what_the_whole_gives(large, tmp_path):
    result = fold_unchecked(large)
    result.save(tmp_path / "o.onnx")
    before = {
        name: value.const_value for name, value in load(large).graph.initializers.items()
    }
    after = load(tmp_path / "o.onnx").graph.initializers
    for layer in (0, 1, 2):
        name = f"m{layer}.w"
        whole = before[name].numpy()
        if layer < 2:
            factor = before[f"m{layer}.s"].numpy().astype(np.float64)
            whole = (whole.astype(np.float64) * factor).astype(np.float32)
        assert np.array_equal(after[name].const_value.numpy(), whole)


SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@given(SHAPES, st.integers(1, 50))
def test_blocks_make_up_the_whole_in_order(shape, most):
    whole = np.arange(int(np.prod(shape))).reshape(shape)
    found = list(blocks(shape, most))
    assert all(0 < block.stop - block.start <= most for block in found)
    for block in found:
        part = whole[block.at]
        assert part.shape == block.shape
        assert np.array_equal(part.reshape(-1), np.arange(block.start, block.stop))
    assert [block.start for block in found[1:]] == [block.stop for block in found[:-1]]
    assert sum(block.stop - block.start for block in found) == whole.size


@settings(deadline=None)
@given(st.data())
def test_an_expression_by_blocks_is_the_whole(data):
    from bnfold import blocks as module
    from bnfold import expression as under_test

    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=6))
    numbers = st.floats(-1e3, 1e3, width=32)
    base = data.draw(arrays.arrays(np.float32, shape, elements=numbers))
    whole = Expression(Held(base), shape)
    for axis in data.draw(st.sets(st.integers(0, len(shape) - 1))):
        vector = data.draw(arrays.arrays(np.float64, shape[axis], elements=numbers))
        whole = whole.times(vector, (axis,))
    most = data.draw(st.integers(1, 40))
    axis = data.draw(st.integers(0, len(shape) - 1))
    kept = data.draw(st.integers(0, len(shape) - 1))
    vector = data.draw(arrays.arrays(np.float64, shape[axis], elements=numbers))
    wide = base.astype(np.float64)
    for factor in whole.factors:
        wide = wide * factor
    others = tuple(one for one in range(len(shape)) if one != axis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test, "MOST_ELEMENTS", most)
        patch.setattr(under_test, "CACHED_ELEMENTS", data.draw(st.integers(1, 40)))
        patch.setattr(module.blocks, "__defaults__", (most,))
        assert np.array_equal(whole.evaluate(), wide)
        for kind in (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
            assert np.array_equal(whole.rounded(kind), round_once(wide, kind), equal_nan=True)
        assert np.allclose(whole.peaks(axis), np.abs(wide).max(axis=others), rtol=1e-12)
        assert np.array_equal(whole.peaks(None), [np.abs(wide).max()])
        image = np.tensordot(wide, vector, axes=([axis], [0]))
        assert np.allclose(whole.contracted(vector, axis), image, rtol=1e-9, atol=1e-3)
        sums = wide.reshape(*shape[:kept], -1).sum(axis=-1)
        assert np.allclose(whole.summed(kept), sums, rtol=1e-9, atol=1e-3)


@pytest.mark.parametrize("kind", list(ir.DataType))
def test_pieces_and_bytes_are_those_of_the_tensor(tmp_path, kind):
    if kind in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return
    count = 24
    raw = np.random.default_rng(0).bytes(3 + count * kind.bitwidth // 8)
    (tmp_path / "w.bin").write_bytes(raw)
    like = ir.ExternalTensor(
        "w.bin", 3, None, kind, shape=ir.Shape([4, 6]), name="w", base_dir=tmp_path
    )
    held = held_outside.held_outside(like, held_outside.DataFile(tmp_path / "w.bin"))
    assert b"".join(map(bytes, bytes_of(held))) == raw[3:] == held.tobytes()
    whole = like.numpy()
    assert held.numpy().dtype == whole.dtype
    assert held.numpy().tobytes() == whole.tobytes()
    assert b"".join(part.tobytes() for part in pieces_of(held)) == whole.tobytes()
    assert reader(held)(5, 9).tobytes() == whole.reshape(-1)[5:9].tobytes()


def test_pages_go_with_the_last_array_that_shows_them(large):
    tensor = load(large).graph.initializers["m0.w"].const_value
    first = tensor.numpy()
    assert tensor.numpy() is first
    assert np.shares_memory(first, tensor.numpy())
    del first
    assert tensor._view() is None


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_more_data_files_than_may_stay_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(held_outside, "_MOST_OPEN", 0)
    path = mixed(tmp_path / "m.onnx", 4 * 100 * 100, 100)
    before = open_files()
    model = load(path)
    expected = onnx.load(path)
    for tensor in expected.graph.initializer:
        held = model.graph.initializers[tensor.name].const_value
        assert np.array_equal(held.numpy(), onnx.numpy_helper.to_array(tensor))
    assert open_files() <= before
    (tmp_path / "m.onnx.data").write_bytes(b"")
    with pytest.raises(held_outside.ModelError, match="cannot be read any more"):
        model.graph.initializers["m0.w"].const_value.numpy()


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("system", ["copies", "refuses", "gives up"])
@pytest.mark.parametrize("expected", [0, 1 << 30])
def test_a_stream_holds_what_was_written_and_copied(
    tmp_path, monkeypatch, hashed, system, expected
):
    source = np.random.default_rng(0).bytes(5 << 20)
    (tmp_path / "in").write_bytes(source)
    if system == "refuses":
        monkeypatch.setattr(os, "copy_file_range", refuses, raising=False)
    elif system == "gives up":
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0, raising=False)
    monkeypatch.setattr(data_writer, "_AHEAD_BYTES", 1 << 20)
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    with DataWriter(tmp_path / "out", hashed=hashed, expected=expected) as file:
        file.write(b"abc")
        file.pad_to(64)
        file.copy(descriptor, 7, 3 << 20)
        file.write(memoryview(source)[:100_000])
        file.copy(descriptor, 1, 5)
        file.pad_to(file.size + 3)
    os.close(descriptor)
    whole = b"abc" + bytes(61) + source[7 : 7 + (3 << 20)] + source[:100_000] + source[1:6]
    assert (tmp_path / "out").read_bytes() == whole + bytes(3)
    digest = hashlib.sha256(whole + bytes(3)).hexdigest()
    assert file.digest == (digest if hashed else "")


def refuses(*_):
    raise OSError(18, "Invalid cross-device link")


def test_a_source_that_is_too_short_is_an_error(tmp_path):
    (tmp_path / "in").write_bytes(b"abc")
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    with pytest.raises(OSError, match="shorter"), DataWriter(tmp_path / "out") as file:
        file.copy(descriptor, 0, 4)
    os.close(descriptor)


def test_what_goes_wrong_beside_is_raised(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(OSError, match="No space"), DataWriter(tmp_path / "out") as file:
        file.write(bytes(1 << 20))


def test_folded_tensors_of_every_type_are_written_as_they_are_read():
    base = np.random.default_rng(0).normal(size=(5, 7))
    for kind in (
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
    ):
        tensor = folded_tensor(Expression.of(base).times(np.arange(7.0), (1,)), kind, None)
        assert b"".join(map(bytes, bytes_of(tensor))) == tensor.tobytes()
