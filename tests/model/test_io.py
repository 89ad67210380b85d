"""Reading and writing: what the fold does not touch comes back as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.errors import OutputError
from bnfold.model.io import from_proto, load, to_proto
from bnfold.model.save import save
from tests.battery.cases import ALL
from tests.small import conv_bn

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models_come_back_bit_for_bit(path):
    proto = onnx.load(path)
    back = to_proto(from_proto(proto))
    assert back.SerializeToString(deterministic=True) == proto.SerializeToString(
        deterministic=True
    )


def test_battery_models_come_back_bit_for_bit():
    changed = [
        case.name
        for case in ALL
        if to_proto(from_proto(proto := case.build())).SerializeToString(deterministic=True)
        != proto.SerializeToString(deterministic=True)
    ]
    assert changed == ["guards/unsorted"]  # that one is sorted, and says so


def external(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(conv_bn(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def test_external_weights_stay_outside(tmp_path):
    path = external(tmp_path / "a")
    data = (tmp_path / "a/w.bin").read_bytes()
    (tmp_path / "b").mkdir()
    out = tmp_path / "b" / "out.onnx"
    bnfold.fold(path, verify=False).save(out)
    assert sorted(entry.name for entry in out.parent.iterdir()) == [
        "out.onnx",
        "out.onnx.data",
    ]
    inside = bnfold.fold(conv_bn(), verify=False).to_proto()
    folded = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    for tensor in inside.graph.initializer:
        assert np.array_equal(folded[tensor.name], numpy_helper.to_array(tensor))
    assert (tmp_path / "a/w.bin").read_bytes() == data


def test_external_weights_beside_the_original_are_not_overwritten(tmp_path):
    path = external(tmp_path)
    data = (tmp_path / "w.bin").read_bytes()
    bnfold.fold(path, verify=False).save(tmp_path / "out.onnx")
    assert (tmp_path / "w.bin").read_bytes() == data
    onnx.checker.check_model(tmp_path / "out.onnx")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    model = load(external(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    monkeypatch.setattr("bnfold.files.pairs.write_through", _disk_full)
    with pytest.raises(OutputError, match="cannot write"):
        save(model, tmp_path / "b" / "out.onnx")
    assert list((tmp_path / "b").iterdir()) == []


def _disk_full(*_):
    raise OSError(28, "No space left on device")


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    out = tmp_path / "out.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr("bnfold.model.save.to_proto", _fails)
    with pytest.raises(OutputError):
        save(from_proto(conv_bn()), out)
    assert out.read_bytes() == b"before"


def _fails(*_):
    raise OSError(5, "Input/output error")


def test_no_type_information_is_invented_or_lost():
    proto = conv_bn()
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("b", 1, ["N", 4, 8, 8]))
    folded = bnfold.fold(proto, verify=False).to_proto()
    assert list(folded.graph.value_info) == list(proto.graph.value_info)
    assert [node.output[0] for node in folded.graph.node] == ["b", "y"]
