"""Models read without their large weights: what protobuf would have read, or nothing."""

from __future__ import annotations

import copy
import os
import pickle
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.errors import ModelError, UsageError
from bnfold.folding.api import fold_unchecked
from bnfold.model import held_outside
from bnfold.model import light as under_test
from bnfold.model.digests import place_of, tensor_digest
from bnfold.model.held_inside import HeldInside
from bnfold.model.io import load, to_proto
from bnfold.model.light import light_of
from bnfold.model.reads import reads_of_file
from tests.model.wires import (
    BYTES,
    UNKNOWN,
    files,
    graph,
    long_varint,
    model,
    number,
    tensor,
    told,
    varint,
)
from tests.small import conv_bn


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let every file be a large one."""
    for name in ("LEAST_FILE_BYTES", "LEAST_BYTES", "LEAST_SHARE"):
        monkeypatch.setattr(under_test, name, 0)
    monkeypatch.setattr(under_test, "LEAST_BYTES", 1)


def parsed(data: bytes) -> bytes | None:
    """What protobuf itself makes of a file, as bytes; None if it refuses it."""
    try:
        return onnx.ModelProto.FromString(data).SerializeToString(deterministic=True)
    except DecodeError:
        return None


def filled(light) -> bytes:
    """A light message with its weights put back, as bytes."""
    proto = onnx.ModelProto()
    proto.CopyFrom(light.proto)
    for place, offset in light.offsets.items():
        one = proto.graph.initializer[place]
        assert not one.HasField("raw_data")
        width = ir.DataType(one.data_type).itemsize
        size = int(np.prod(one.dims) * width)
        one.raw_data = light.file.copied(offset, size).tobytes()
    return proto.SerializeToString(deterministic=True)


def outcome(path) -> object:
    """What a user meets: the model as it is written again, or the error."""
    try:
        return to_proto(load(path)).SerializeToString(deterministic=True)
    except ModelError as error:
        return str(error)


def outcome_of_old(path) -> object:
    """The same where protobuf reads the whole file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test, "LEAST_FILE_BYTES", 1 << 40)
        return outcome(path)


def checked(path, data: bytes) -> str:
    """Hold the reader to protobuf; say what came of it."""
    path.write_bytes(data)
    light, expected = light_of(path), parsed(data)
    assert outcome(path) == outcome_of_old(path)
    if light is None:
        return "whole"
    assert filled(light) == expected
    return "light" if light.offsets else "nothing left out"


@settings(max_examples=400, deadline=None)
@given(data=files())
def hold_to_protobuf(path, seen: Counter[str], data: bytes) -> None:
    seen[checked(path, data)] += 1


def test_any_bytes_are_read_as_protobuf_reads_them(tmp_path):
    seen: Counter[str] = Counter()
    hold_to_protobuf(tmp_path / "m.onnx", seen)
    assert seen["light"] > 20, "it compared too little"
    assert seen["whole"] > 20


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_spoiled_models_are_read_as_protobuf_reads_them(tmp_path_factory, data):
    spoiled = bytearray(conv_bn().SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("spoiled") / "m.onnx"
    checked(path, bytes(spoiled))


DATA = bytes(range(16))
PLAIN = tensor("w", (4,), DATA)
TINY = {"w": b"".join(PLAIN)}
LONG = varint(9 << 3 | BYTES) + long_varint(16, 4) + DATA
GROUP = UNKNOWN[6]


def whole_model(*tensors: bytes) -> bytes:
    return b"".join(model(b"".join(graph(*tensors))))


ODDITIES = {
    "plain": (whole_model(TINY["w"]), "light"),
    "data first": (whole_model(b"".join(reversed(PLAIN))), "light"),
    "unknown field": (whole_model(TINY["w"] + told(900, b"abc")), "light"),
    "metadata": (whole_model(TINY["w"] + UNKNOWN[-1]), "light"),
    "number 9 as a number": (whole_model(TINY["w"] + number(9, 3)), "whole"),
    "data twice": (whole_model(TINY["w"] + told(9, DATA[::-1])), "whole"),
    "numbers too": (whole_model(TINY["w"] + told(4, bytes(4))), "nothing left out"),
    "data too short": (whole_model(b"".join(tensor("w", (5,), DATA))), "nothing left out"),
    "no name": (whole_model(b"".join(tensor("", (4,), DATA))), "nothing left out"),
    "two of a name": (whole_model(TINY["w"], TINY["w"]), "nothing left out"),
    "no known type": (whole_model(b"".join(tensor("w", (4,), DATA, 99))), "nothing left out"),
    "texts": (whole_model(b"".join(tensor("w", (4,), DATA, 8))), "nothing left out"),
    "outside": (whole_model(TINY["w"] + number(14, 1)), "nothing left out"),
    "negative size": (
        whole_model(b"".join(tensor("w", ((1 << 64) - 4,), DATA))),
        "nothing left out",
    ),
    "no graph": (b"".join(model()), "whole"),
    "graph in pieces": (
        b"".join(model(b"".join(graph(TINY["w"])), told(5, TINY["w"]))),
        "whole",
    ),
    "long length": (whole_model(b"".join(PLAIN[:-1]) + LONG), "whole"),
    "group": (whole_model(TINY["w"]) + GROUP, "whole"),
    "group in the graph": (b"".join(model(b"".join(graph(TINY["w"])) + GROUP)), "whole"),
    "cut": (whole_model(TINY["w"])[:-3], "whole"),
    "beyond the end": (whole_model(TINY["w"]) + varint(900 << 3 | BYTES) + b"\x7f", "whole"),
    "length of four billion": (
        whole_model(TINY["w"]) + varint(900 << 3 | BYTES) + varint(1 << 32),
        "whole",
    ),
    "number 0": (whole_model(TINY["w"]) + b"\0\0", "whole"),
    "tag too large": (whole_model(TINY["w"]) + varint(1 << 33) + b"\0", "whole"),
    "eleven bytes": (whole_model(TINY["w"]) + b"\x08" + b"\xff" * 10 + b"\1", "whole"),
    "empty": (b"", "whole"),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_oddities_are_left_to_protobuf(tmp_path, name):
    data, expected = ODDITIES[name]
    assert checked(tmp_path / "m.onnx", data) == expected


def test_the_oracle_notices_a_reader_that_takes_the_first_of_two(tmp_path, monkeypatch):
    """The negative control of all tests above."""
    monkeypatch.setattr(under_test, "_is_plain", lambda *_: True)
    with pytest.raises(AssertionError):
        checked(tmp_path / "m.onnx", ODDITIES["data too short"][0])
    data = whole_model(TINY["w"], b"".join(tensor("v", (4,), DATA[::-1])))
    assert checked(tmp_path / "m.onnx", data) == "light"
    lightened = under_test._lightened
    monkeypatch.setattr(
        under_test, "_lightened", lambda found, *more: lightened(_turned(found), *more)
    )
    with pytest.raises((AssertionError, ModelError)):
        checked(tmp_path / "m.onnx", data)


def _turned(found):
    found.parts[:] = [
        part._replace(number=other.number)
        for part, other in zip(found.parts, found.parts[::-1], strict=True)
    ]
    return found


def test_a_file_of_many_fields_is_left_to_protobuf(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(whole_model(TINY["w"]) + number(900, 1) * 1000)
    assert light_of(path) is not None
    monkeypatch.setattr(under_test, "_MOST_STEPS", 500)
    assert light_of(path) is None


def test_small_files_and_those_with_little_to_leave_out_are_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(whole_model(TINY["w"]))
    for name, value in (("LEAST_FILE_BYTES", 1 << 20), ("LEAST_SHARE", 0.5)):
        with monkeypatch.context() as patch:
            patch.setattr(under_test, name, value)
            assert light_of(path) is None
    assert light_of(path) is not None


def written(folder, kind=onnx.TensorProto.FLOAT):
    """A model with one weight of a type; its file and its array."""
    dtype = ir.DataType(kind)
    raw = np.random.default_rng(0).bytes(int(24 * dtype.itemsize))
    data = whole_model(b"".join(tensor("w", (4, 6), raw, kind)) + UNKNOWN[-1])
    path = folder / "m.onnx"
    path.write_bytes(data)
    proto = onnx.ModelProto.FromString(data).graph.initializer[0]
    return path, ir.serde.TensorProtoTensor(proto)


@pytest.mark.parametrize("kind", list(ir.DataType))
def test_a_tensor_of_any_type_is_what_it_was(tmp_path, kind):
    if kind in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return
    path, old = written(tmp_path, int(kind))
    held = load(path).graph.initializers["w"].const_value
    assert isinstance(held, HeldInside) is (kind.bitwidth != 6)
    assert held.numpy().dtype == old.numpy().dtype
    assert held.numpy().tobytes() == old.numpy().tobytes()
    assert held.numpy().flags.writeable is old.numpy().flags.writeable
    assert held.tobytes() == old.tobytes()
    assert (held.name, held.dtype, held.shape, held.nbytes) == (
        old.name,
        old.dtype,
        old.shape,
        old.nbytes,
    )
    assert held.metadata_props == old.metadata_props
    assert held.raw == old.raw
    assert tensor_digest(held) == tensor_digest(old)
    assert repr(held).count("w") == repr(old).count("w")
    message = ir.serde.serialize_tensor(held)
    assert message.SerializeToString() == ir.serde.serialize_tensor(old).SerializeToString()
    for twin in (copy.deepcopy(held), pickle.loads(pickle.dumps(held)), copy.copy(held)):
        assert type(twin) is ir.serde.TensorProtoTensor
        assert twin.raw == old.raw
        assert twin.metadata_props == old.metadata_props


def test_a_file_that_is_read_twice_has_tensors_at_the_same_place(tmp_path):
    path, _ = written(tmp_path)
    one, other = (load(path).graph.initializers["w"].const_value for _ in range(2))
    assert one is not other
    assert place_of(one) == place_of(other)
    path.write_bytes(path.read_bytes().replace(b"g", b"h"))
    os.utime(path, ns=(1, 1))
    assert place_of(load(path).graph.initializers["w"].const_value) != place_of(one)


def test_a_file_that_is_removed_or_replaced_is_read_on(tmp_path):
    path, old = written(tmp_path)
    held = load(path).graph.initializers["w"].const_value
    path.rename(tmp_path / "old.onnx")
    path.write_bytes(b"another")
    assert held.tobytes() == old.tobytes()
    (tmp_path / "old.onnx").unlink()
    assert held.tobytes() == old.tobytes()


@pytest.mark.parametrize("change", ["written over", "cut", "longer"])
def test_a_file_that_is_written_to_is_an_error_and_no_array_changes(tmp_path, change):
    path, old = written(tmp_path)
    held = load(path).graph.initializers["w"].const_value
    before = held.numpy()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if change == "written over":
            file.write(bytes(size))
        elif change == "cut":
            file.truncate(3)
        else:
            file.seek(size)
            file.write(b"\0")
    os.utime(path, ns=(1, 1))
    for read in (held.tobytes, lambda: held.part(0, 1), lambda: held.raw):
        with pytest.raises(ModelError, match="cannot be read any more"):
            read()
    assert before.tobytes() == old.tobytes()


def test_files_that_a_light_model_reads_are_known(tmp_path, monkeypatch):
    outside = b"".join(tensor("v", (4,), b"")[:-1]) + number(14, 1)
    entry = told(13, told(1, b"location") + told(2, b"w.bin"))
    (tmp_path / "w.bin").write_bytes(DATA)
    path = tmp_path / "m.onnx"
    path.write_bytes(whole_model(TINY["w"], outside + entry))
    assert checked(path, path.read_bytes()) == "light"
    found = [read.path.name for read in reads_of_file(path, "MODEL")]
    assert found == ["m.onnx", "w.bin"]
    monkeypatch.setattr(under_test, "LEAST_FILE_BYTES", 1 << 40)
    assert [read.path.name for read in reads_of_file(path, "MODEL")] == found


def test_a_fold_of_a_light_model_refuses_to_write_over_it(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(conv_bn(), path)
    result = fold_unchecked(path)
    tensors = [one.const_value for one in load(path).graph.initializers.values()]
    assert all(isinstance(one, HeldInside) for one in tensors)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        result.save(path)
    assert path.read_bytes() == before


def test_more_files_than_may_stay_open_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(held_outside, "_MOST_OPEN", 0)
    path, old = written(tmp_path)
    held = load(path).graph.initializers["w"].const_value
    assert isinstance(held, HeldInside)
    assert held.tobytes() == old.tobytes()
    path.rename(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="cannot be read any more"):
        held.tobytes()
