"""Where weights are written: as they lay, in one file, in a file for each, in the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnfold.cli import fold
from bnfold.errors import ModelError, UsageError
from bnfold.folding.api import fold_unchecked
from bnfold.model import layout as under_test
from bnfold.model.io import load
from bnfold.model.layout import Layout, plan_of
from bnfold.model.save import save

SIDE = 24
KINDS = ("keep", "one", "per-tensor", "inline")


def model(seed=0):
    """MatMul + Mul, MatMul + Add, MatMul: one weight changes, one addend is new."""
    rng = np.random.default_rng(seed)
    weights = dict.fromkeys(("a", "b", "c"), (SIDE, SIDE)) | {"s": (SIDE,), "t": (1,)}
    tensors = [
        numpy_helper.from_array(rng.uniform(0.5, 1.5, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("Mul", ["xa", "s"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["rb"]),
        helper.make_node("Add", ["rb", "t"], ["p"]),
        helper.make_node("Sigmoid", ["p"], ["q"]),
        helper.make_node("MatMul", ["q", "c"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, 1, ["n", SIDE]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(folder: Path, kind: str, alignment: int = 1) -> Path:
    """Write the model with its weights as the kind says; offsets are multiples of a number."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "m.onnx"
    proto = model()
    if kind == "inline":
        onnx.save(proto, path)
        return path
    offset = 0
    for number, tensor in enumerate(proto.graph.initializer):
        data, tensor.raw_data = tensor.raw_data, b""
        tensor.ClearField("raw_data")
        name = f"w{number}.bin" if kind == "per-tensor" else "w.bin"
        begin = 0 if kind == "per-tensor" else -(-offset // alignment) * alignment
        with (folder / name).open("ab") as file:
            file.write(bytes(begin - file.tell()) + data)
        offset = begin + len(data)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": begin, "length": len(data)}.items():
            tensor.external_data.add(key=key, value=str(value))
    onnx.save(proto, path)
    return path


def places(path: Path) -> dict[str, tuple[str, int] | None]:
    """Where every tensor lies: its file and its offset, or None for inside."""
    found = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        is_outside = tensor.data_location == TensorProto.EXTERNAL
        place = (entries["location"], int(entries["offset"])) if is_outside else None
        found[tensor.name] = place
    return found


def numbers(path: Path) -> dict[str, bytes]:
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes()
        for tensor in onnx.load(path).graph.initializer
    }


def layout_of(path: Path) -> str:
    files = [place[0] for place in places(path).values() if place is not None]
    if not files:
        return "inline"
    return "one" if len(set(files)) == 1 else "per-tensor"


@pytest.mark.parametrize("chosen", KINDS)
@pytest.mark.parametrize("kind", ["one", "per-tensor", "inline"])
def test_every_layout_holds_the_same_bits(tmp_path, kind, chosen):
    path = written(tmp_path / "in", kind)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/o.onnx"
    saved = fold_unchecked(path).save(out, external_data=chosen)
    inside = fold_unchecked(model()).to_proto()
    assert numbers(out) == {
        tensor.name: numpy_helper.to_array(tensor).tobytes()
        for tensor in inside.graph.initializer
    }
    assert layout_of(out) == (kind if chosen == "keep" else chosen)
    assert {file.name for file in saved.files} == {p[0] for p in places(out).values() if p}
    assert saved.said == ""
    names = {out.name, *(file.name for file in saved.files)}
    assert {entry.name for entry in out.parent.iterdir()} == names
    onnx.checker.check_model(str(out))


def test_one_file_has_the_plain_name_and_several_have_their_contents(tmp_path):
    path = written(tmp_path / "in", "one")
    (tmp_path / "out").mkdir()
    result = fold_unchecked(path)
    assert result.save(tmp_path / "out/o.onnx").files == (tmp_path / "out/o.onnx.data",)
    first = result.save(tmp_path / "out/p.onnx", external_data="per-tensor")
    assert all(len(file.name) == len("p.onnx.0123456789abcdef.data") for file in first.files)
    again = result.save(tmp_path / "out/p.onnx", external_data="per-tensor")
    assert again == replace(first, left=())


def test_one_layout_after_the_other_leaves_nothing_behind(tmp_path):
    path = written(tmp_path / "in", "one")
    out = tmp_path / "out/o.onnx"
    out.parent.mkdir()
    result = fold_unchecked(path)
    for chosen in (*KINDS, *reversed(KINDS)):
        saved = result.save(out, external_data=chosen)
        there = {entry.name for entry in out.parent.iterdir()}
        assert there == {"o.onnx", *(file.name for file in saved.files)}, chosen


@pytest.mark.parametrize("chosen", KINDS)
@pytest.mark.parametrize("kind", ["one", "per-tensor"])
def test_in_place_goes_on_with_every_layout(tmp_path, kind, chosen):
    path = written(tmp_path / "in", kind)
    result = fold_unchecked(path)
    result.save_in_place(external_data=chosen)
    assert layout_of(path) == (kind if chosen == "keep" else chosen)
    first = numbers(path)
    result.save_in_place(external_data="inline")
    assert numbers(path) == first
    assert [one.name for one in path.parent.glob("m.onnx*")] == ["m.onnx"]


def test_small_tensors_go_inside_where_that_is_asked(tmp_path):
    path = written(tmp_path / "in", "one")
    out = tmp_path / "in/o.onnx"
    fold_unchecked(path).save(out, size_threshold=100)
    outside = {name for name, place in places(out).items() if place}
    assert outside == {"a", "b", "c"}
    fold_unchecked(written(tmp_path / "i", "inline")).save(
        out, external_data="one", size_threshold=1
    )
    assert None not in places(out).values()


def test_what_was_inside_stays_inside(tmp_path):
    path = written(tmp_path / "in", "one")
    proto = onnx.load(path, load_external_data=False)
    weight = next(one for one in proto.graph.initializer if one.name == "a")
    weight.CopyFrom(model().graph.initializer[0])
    onnx.save(proto, path)
    fold_unchecked(path).save(tmp_path / "in/o.onnx")
    assert places(tmp_path / "in/o.onnx")["a"] is None
    assert places(tmp_path / "in/o.onnx")["b"] is not None


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 4, 64, 256, 4096, 1 << 16]))
def test_alignment_is_kept(tmp_path_factory, alignment):
    folder = tmp_path_factory.mktemp("aligned")
    path = written(folder, "one", alignment)
    fold_unchecked(path).save(folder / "o.onnx")
    offsets = [place[1] for place in places(folder / "o.onnx").values() if place]
    assert len(set(offsets)) == len(offsets)
    assert all(offset % alignment == 0 for offset in offsets)


def test_a_model_without_folds_keeps_its_data_byte_for_byte(tmp_path):
    for kind, alignment in (("one", 4), ("one", 512), ("per-tensor", 1)):
        path = written(tmp_path / f"{kind}{alignment}", kind, alignment)
        saved = fold_unchecked(path, skip=("*",)).save(path.with_name("o.onnx"))
        old = sorted(file.read_bytes() for file in path.parent.glob("w*.bin"))
        assert sorted(file.read_bytes() for file in saved.files) == old


def test_tensors_that_share_a_part_of_a_file_share_it_still(tmp_path):
    path = written(tmp_path / "in", "one")
    proto = onnx.load(path, load_external_data=False)
    by_name = {tensor.name: tensor for tensor in proto.graph.initializer}
    del by_name["c"].external_data[:]
    by_name["c"].external_data.extend(by_name["b"].external_data)
    onnx.save(proto, path)
    for chosen in ("keep", "per-tensor"):
        out = tmp_path / f"in/{chosen}.onnx"
        fold_unchecked(path, skip=("Add",)).save(out, external_data=chosen)
        assert places(out)["b"] == places(out)["c"]


@pytest.mark.parametrize("chosen", ["inline", "keep"])
def test_what_no_file_can_hold_goes_beside_it_and_that_is_said(tmp_path, monkeypatch, chosen):
    monkeypatch.setattr(under_test, "PROTOBUF_LIMIT_BYTES", 5000)
    kind = "inline" if chosen == "keep" else "one"
    path = written(tmp_path / "in", kind)
    saved = fold_unchecked(path).save(tmp_path / "in/o.onnx", external_data=chosen)
    assert "2 GB" in saved.said
    assert saved.data == tmp_path / "in/o.onnx.data"
    outside = {name for name, place in places(tmp_path / "in/o.onnx").items() if place}
    assert outside == {"a", "b", "c"}


def test_it_is_said_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "PROTOBUF_LIMIT_BYTES", 5000)
    path, out = written(tmp_path / "in", "one"), tmp_path / "in/o.onnx"
    words = [str(path), "-o", str(out), "--no-verify", "--external-data", "inline"]
    done = CliRunner().invoke(fold.command, words)
    assert done.exit_code == 0, done.output
    assert "2 GB a model file can hold" in done.output


@pytest.mark.thorough
def test_two_gigabytes_asked_into_one_file_go_beside_it(tmp_path):
    path = written(tmp_path / "in", "one")
    proto = onnx.load(path, load_external_data=False)
    side = 1 << 15
    weight = next(one for one in proto.graph.initializer if one.name == "c")
    weight.dims[:] = [SIDE, side * side // SIDE]
    for entry in weight.external_data:
        if entry.key == "length":
            entry.value = str(4 * SIDE * (side * side // SIDE))
    with (tmp_path / "in/w.bin").open("ab") as file:
        file.truncate(file.tell() + 4 * side * side)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = side * side // SIDE
    onnx.save(proto, path)
    saved = fold_unchecked(path).save(tmp_path / "in/o.onnx", external_data="inline")
    assert "2 GB" in saved.said
    onnx.checker.check_model(str(tmp_path / "in/o.onnx"))


def test_a_layout_that_is_none_is_an_error(tmp_path):
    result = fold_unchecked(written(tmp_path, "one"))
    with pytest.raises(UsageError, match="no layout"):
        result.save(tmp_path / "o.onnx", external_data="two")
    with pytest.raises(UsageError, match="negative"):
        result.save(tmp_path / "o.onnx", size_threshold=-1)


def test_a_model_in_memory_lies_inside_whatever_its_tensors_are(tmp_path):
    assert plan_of(load(written(tmp_path, "inline")), Layout()).files == ()


def exchange_data(folder: Path) -> None:
    data = folder / "w.bin"
    data.rename(folder / "old.bin")
    data.write_bytes((folder / "old.bin").read_bytes()[::-1])


def test_data_that_another_file_took_the_place_of_is_not_read(tmp_path):
    path = written(tmp_path, "one")
    read = load(path)
    exchange_data(tmp_path)
    with pytest.raises(ModelError, match="cannot be read any more"):
        save(read, tmp_path / "o.onnx")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx", "old.bin", "w.bin"]


def test_data_that_was_read_is_read_on_whatever_becomes_of_its_name(tmp_path):
    path = written(tmp_path, "one")
    read, before = load(path), numbers(path)
    read.graph.initializers["s"].const_value.numpy()
    exchange_data(tmp_path)
    save(read, tmp_path / "o.onnx")
    assert numbers(tmp_path / "o.onnx") == before
