"""How often the bytes of a large model are read, digested and computed: counted, not timed."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from benchmarks.large_models import mixed
from bnfold.cli.main import main
from bnfold.evidence.proof import contents
from bnfold.evidence.proof.contents import contents_of, contents_of_both
from bnfold.expression import Expression
from bnfold.files import data_writer, pairs
from bnfold.folding.api import fold_unchecked
from bnfold.model.digests import place_of, tensor_digest
from bnfold.model.io import load
from bnfold.model.layout import Layout
from bnfold.model.save import begun

SIDE = 600
LAYERS = 6
MATRIX = 4 * SIDE * SIDE


@pytest.fixture
def model(tmp_path):
    (tmp_path / "in").mkdir()
    return mixed(tmp_path / "in" / "m.onnx", LAYERS * MATRIX, SIDE)


@pytest.fixture
def counted(monkeypatch):
    """Bytes that were digested, and elements of matrices that were computed."""
    found: Counter[str] = Counter()

    class Counting:
        def __init__(self, data=b"", inner=None):
            self._inner = inner or hashlib.sha256(data)

        def update(self, data):
            found["digested"] += memoryview(data).nbytes
            self._inner.update(data)

        def copy(self):
            return Counting(inner=self._inner.copy())

        def __getattr__(self, name):
            return getattr(self._inner, name)

    class Hashes:
        sha256 = Counting

        @staticmethod
        def file_digest(file, kind):
            digest = hashlib.file_digest(file, kind)
            found["digested"] += file.tell()
            return digest

    made = Expression._rounded_block

    def noted(self, block, part, dtype):
        found["computed"] += part.nbytes
        return made(self, block, part, dtype)

    monkeypatch.setattr("bnfold.model.digests.hashlib", Hashes)
    monkeypatch.setattr(data_writer, "hashlib", Hashes)
    monkeypatch.setattr(pairs, "hashlib", Hashes)
    monkeypatch.setattr(Expression, "_rounded_block", noted)
    monkeypatch.setattr(contents, "_WORTH_A_THREAD", 1 << 10)
    return found


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["bnfold", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def stored(model):
    return model.with_name(f"{model.name}.data").stat().st_size


def sizes(before, after):
    """How many bytes all tensors of the original have, and those that a fold changed."""
    found = [contents_of(load(path)) for path in (before, after)]
    whole, changed = (
        sum(
            value.const_value.nbytes
            for name, value in one.stored.items()
            if one is found[0] or found[0].tensors.get(name) != one.tensors[name]
        )
        for one in found
    )
    assert 0 < changed < whole
    return whole, changed


def test_every_byte_of_a_fold_is_digested_once_and_computed_twice(
    model, tmp_path, counted, monkeypatch
):
    """What stays has one digest for both models; the names of files need none here."""
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.json"
    words = ("--no-verify", "--certificate", certificate)
    command(monkeypatch, "fold", model, "-o", out, *words)
    did = dict(counted)
    whole, changed = sizes(model, out)
    assert whole + changed <= did["digested"] < 1.01 * (whole + changed)
    assert changed <= did["computed"] < 2.01 * changed  # to be written, to be compared
    before, after = contents_of(load(model)), contents_of(load(out))
    written = json.loads(certificate.read_text())
    assert written["original"]["sha256"] == before.digest
    assert written["folded"]["sha256"] == after.digest


def test_verify_digests_of_what_stayed_one_file_and_compares_the_other(
    model, tmp_path, counted, monkeypatch
):
    out, certificate = tmp_path / "o.onnx", tmp_path / "c.json"
    words = ("--no-verify", "--certificate", certificate)
    command(monkeypatch, "fold", model, "-o", out, *words)
    counted.clear()
    command(monkeypatch, "verify", model, out, "--certificate", certificate)
    did = dict(counted)
    whole, changed = sizes(model, out)
    assert whole + changed <= did["digested"] < 1.01 * (whole + changed)
    assert "computed" not in did


@pytest.mark.parametrize("place", [0, 1, 5000, 2 * SIDE * SIDE, MATRIX - 1])
def test_a_byte_that_differs_anywhere_is_another_digest(model, tmp_path, monkeypatch, place):
    """Equal bytes are digested once: the first that differs, wherever it is, ends that."""
    monkeypatch.setattr(contents, "_WORTH_A_THREAD", 1 << 10)
    monkeypatch.setattr(contents, "CACHED_ELEMENTS", 1000)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "m.onnx"
    copy.write_bytes(model.read_bytes())
    data = bytearray(model.with_name("m.onnx.data").read_bytes())
    name, size = "m2.w", len(data)
    entry = load(model).graph.initializers[name].const_value
    data[entry.offset + place] ^= 1
    copy.with_name("m.onnx.data").write_bytes(data)
    before, after = contents_of_both(load(model), load(copy))
    assert size == stored(copy)
    differ = {key for key, one in before.tensors.items() if after.tensors[key] != one}
    assert differ == {name}
    assert after == contents_of(load(copy))
    assert before == contents_of(load(model))


@pytest.mark.parametrize("kind", [ir.DataType.INT4, ir.DataType.FLOAT16, ir.DataType.FLOAT])
@pytest.mark.parametrize("place", ["over", "beside"])
def test_digests_of_what_is_written_are_those_of_what_is_there(tmp_path, kind, place):
    """Also for elements that share bytes, which are digested unpacked: those are not known."""
    rng = np.random.default_rng(0)
    numbers = (
        rng.integers(-8, 8, (64, 64))
        if kind is ir.DataType.INT4
        else rng.normal(size=(64, 64))
    )
    held = ir.Tensor(numbers.astype(kind.numpy()), name="w")
    node = onnx.helper.make_node("MatMul", ["x", "m"], ["h"], "MatMul")
    scaled = onnx.helper.make_node("Mul", ["h", "s"], ["y"], "Mul")
    graph = onnx.helper.make_graph(
        [node, scaled],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 64])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 64])],
        [
            onnx.numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "m"),
            onnx.numpy_helper.from_array(rng.uniform(1, 2, 64).astype(np.float32), "s"),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 21)]
    first = ir.from_proto(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    first.graph.initializers["w"] = ir.Value(name="w", const_value=held)
    path = tmp_path / "m.onnx"
    layout = Layout.of("one", 1)
    with begun(first, path, layout) as writing:
        writing.finish()
    folded = fold_unchecked(path).model
    target = None if place == "over" else tmp_path / "o.onnx"
    with begun(folded, target, layout, digested=True) as writing:
        tensors = {name: one.const_value for name, one in folded.graph.initializers.items()}
        known = {name: writing.digests.get(place_of(one)) for name, one in tensors.items()}
        told = {name: tensor_digest(one) for name, one in tensors.items()}
        assert {name: one for name, one in known.items() if one} == {
            name: one for name, one in told.items() if known[name]
        }
        assert known["m"]
        assert (known["w"] is None) == (kind is ir.DataType.INT4)
        writing.finish()
    saved = contents_of(load(target or path))
    assert saved.tensors == told


def test_nothing_is_left_of_what_was_begun_and_not_ended(model, tmp_path):
    folded = fold_unchecked(model).model
    (tmp_path / "out").mkdir()
    with begun(folded, tmp_path / "out" / "o.onnx"):
        assert list((tmp_path / "out").iterdir())
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(KeyError), begun(folded, tmp_path / "out" / "o.onnx"):
        raise KeyError
    assert not list((tmp_path / "out").iterdir())
