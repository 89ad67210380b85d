"""Models written as a stream: byte for byte the files that protobuf writes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.errors import OutputError
from bnfold.folding.api import fold_unchecked
from bnfold.model import light as reading
from bnfold.model import message, spliced
from bnfold.model.constants import expression_of
from bnfold.model.held_inside import HeldInside
from bnfold.model.io import from_proto, load, to_proto
from bnfold.model.layout import ExternalData, Layout
from bnfold.model.save import save, save_over_source
from bnfold.model.wire import varint
from tests import strategies
from tests.model.wires import UNKNOWN, graph, model, tensor
from tests.small import conv_bn

GROUP = UNKNOWN[6]
LAYOUTS = tuple(ExternalData)
OLD = {"LEAST_FILE_BYTES": 1 << 40}
NEW = {"LEAST_FILE_BYTES": 0, "LEAST_BYTES": 1, "LEAST_SHARE": 0}

USED: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Count what was written as a stream."""

    def noted(data, tensors):
        found = spliced.spliced(data, tensors)
        USED["whole" if found is None else "spliced"] += 1
        return found

    monkeypatch.setattr(message, "spliced", noted)


def as_(settings_: dict[str, float]):
    """Read and write the old way, or the new one."""
    patch = pytest.MonkeyPatch()
    for name, value in settings_.items():
        patch.setattr(reading, name, value)
    return patch


def files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def both(work, base: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What some work leaves in a folder, the old way and the new one."""
    found = []
    for name, ways in (("old", OLD), ("new", NEW)):
        folder = base / name
        folder.mkdir(parents=True)
        patch = as_(ways)
        try:
            work(folder)
        finally:
            patch.undo()
        found.append(files(folder))
        shutil.rmtree(folder)
    return found[0], found[1]


@settings(max_examples=40, deadline=None)
@given(
    drawn=strategies.models(),
    one=st.sampled_from(LAYOUTS),
    other=st.sampled_from(LAYOUTS),
    threshold=st.sampled_from([None, 0, 16, 64]),
    in_place=st.booleans(),
)
def hold_to_protobuf(folders, drawn, one, other, threshold, in_place) -> None:
    base = folders.mktemp("spliced")
    save(from_proto(drawn), base / "m.onnx", Layout(one, 1))
    work = written_in_place if in_place else written_beside
    old, new = both(partial(work, base, one, other, threshold), base)
    assert old == new


def written_in_place(base, one, other, threshold, folder) -> None:
    for path in base.glob("m.onnx*"):
        shutil.copy(path, folder)
    result = fold_unchecked(folder / "m.onnx")
    result.save_in_place(external_data=other, size_threshold=threshold)
    result.save_in_place(external_data=one)
    assert numbers(result.model) == numbers(load(folder / "m.onnx"))


def written_beside(base, _, other, threshold, folder) -> None:
    result = fold_unchecked(base / "m.onnx")
    result.save(folder / "o.onnx", external_data=other, size_threshold=threshold)


def test_every_layout_is_byte_for_byte_what_protobuf_writes(tmp_path_factory):
    before = USED["spliced"]
    hold_to_protobuf(tmp_path_factory)
    assert USED["spliced"] > before + 20, "it compared too little"


def numbers(model_):
    return {
        name: value.const_value.tobytes() for name, value in model_.graph.initializers.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=4), st.data())
def test_lengths_of_any_size_are_those_of_protobuf(tmp_path_factory, sizes, data):
    """Lengths of one, two and three bytes, of the tensor, the graph and the data."""
    base = tmp_path_factory.mktemp("lengths")
    more = b"".join(data.draw(st.lists(st.sampled_from(UNKNOWN[:5]), max_size=2)))
    held = [
        b"".join(tensor(f"w{place}", (size,), os.urandom(size), 2)) + more
        for place, size in enumerate(sizes)
    ]
    (base / "m.onnx").write_bytes(b"".join(model(b"".join(graph(*held)) + more)) + more)
    old, new = both(lambda folder: save(load(base / "m.onnx"), folder / "o.onnx"), base)
    assert old == new


def test_a_wrong_length_would_be_noticed(tmp_path, monkeypatch):
    """The negative control of the tests above."""
    save(from_proto(conv_bn()), tmp_path / "m.onnx")

    def work(folder):
        return fold_unchecked(tmp_path / "m.onnx").save(folder / "o.onnx")

    old, new = both(work, tmp_path)
    assert old == new
    monkeypatch.setattr(
        spliced, "header", lambda number, size: varint(number << 3 | 2) + varint(size + 1)
    )
    old, new = both(work, tmp_path)
    assert old != new


def rich() -> ir.Model:
    """A model with tensors of all kinds, as somebody builds it in onnx_ir."""
    read = from_proto(conv_bn())
    rng = np.random.default_rng(0)
    tensors = {
        "numpy": ir.tensor(rng.normal(size=(9, 9)).astype(np.float32), doc_string="said"),
        "lazy": ir.LazyTensor(
            lambda: ir.tensor(np.arange(80.0)), dtype=ir.DataType.DOUBLE, shape=ir.Shape([80])
        ),
        "packed": ir.Tensor(
            np.arange(64).astype(ir.DataType.INT4.numpy()), dtype=ir.DataType.INT4
        ),
        "text": ir.StringTensor([b"a" * 99], shape=ir.Shape([1])),
        "empty": ir.tensor(np.zeros((0, 5), np.float32)),
    }
    for name, one in tensors.items():
        one.metadata_props.update({"b": "2", "a": "1"} if name == "numpy" else {})
        read.graph.register_initializer(ir.Value(name=name, const_value=one))
    return read


def test_tensors_of_every_kind_are_written_as_onnx_ir_does(tmp_path):
    old, new = both(lambda folder: save(rich(), folder / "o.onnx"), tmp_path)
    assert old == new
    assert old["o.onnx"] == to_proto(rich()).SerializeToString()


def test_what_protobuf_says_otherwise_it_writes_itself(tmp_path):
    """An unknown group is kept by protobuf, and not walked by us."""
    odd = b"".join(tensor("w", (16,), bytes(range(16)), 2)) + GROUP
    data = b"".join(model(b"".join(graph(odd))))
    before = USED["whole"]

    def work(folder):
        read = from_proto(onnx.ModelProto.FromString(data))
        more = ir.tensor(np.arange(64.0))
        read.graph.register_initializer(ir.Value(name="more", const_value=more))
        save(read, folder / "o.onnx")

    old, new = both(work, tmp_path)
    assert old == new
    assert GROUP in old["o.onnx"]
    assert USED["whole"] == before + 1


def test_more_than_a_message_holds_is_left_to_protobuf(monkeypatch):
    data = from_proto_bytes()
    tensors = {0: ir.tensor(np.zeros(100, np.uint8))}
    assert spliced.spliced(data, tensors) is not None
    monkeypatch.setattr(spliced, "MOST_BYTES", len(data) + 50)
    assert spliced.spliced(data, tensors) is None


def from_proto_bytes() -> bytes:
    return b"".join(model(b"".join(graph(b"".join(tensor("w", (100,), b"", 2))))))


def test_a_tensor_that_has_other_bytes_than_it_says_is_not_written(tmp_path):
    lies = ir.LazyTensor(
        lambda: ir.tensor(np.zeros(7, np.float32)),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape([9]),
    )
    stream = spliced.spliced(from_proto_bytes(), {0: lies})
    with pytest.raises(OutputError, match="28 bytes, and it says 36"):
        stream.write(tmp_path / "o.onnx")
    with pytest.raises(OutputError, match="28 bytes, and it says 36"):
        list(stream.pieces())


def test_a_pipe_gets_the_same_bytes(tmp_path):
    save(from_proto(conv_bn()), tmp_path / "m.onnx")

    def work(folder):
        # what is no regular file is written into: an open descriptor of ours
        with (folder / "o").open("wb") as file:
            fold_unchecked(tmp_path / "m.onnx").save(f"/dev/fd/{file.fileno()}")

    old, new = both(work, tmp_path)
    assert old == new
    assert len(old["o"]) > 100


def test_a_model_goes_on_with_what_was_written_in_place(tmp_path):
    patch = as_(NEW)
    try:
        save(from_proto(conv_bn()), tmp_path / "m.onnx")
        result = fold_unchecked(tmp_path / "m.onnx")
        folded = [
            name
            for name, value in result.model.graph.initializers.items()
            if expression_of(value.const_value)
        ]
        before = numbers(result.model)
        result.save_in_place()
        tensors = {n: v.const_value for n, v in result.model.graph.initializers.items()}
        assert folded
        assert all(isinstance(tensors[name], HeldInside) for name in folded)
        assert numbers(result.model) == before
        identity = (tmp_path / "m.onnx").stat()
        assert {one.file.key[1] for one in tensors.values()} == {identity.st_ino}
        save_over_source(result.model)
        assert numbers(load(tmp_path / "m.onnx")) == before
    finally:
        patch.undo()
