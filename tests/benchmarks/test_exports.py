from __future__ import annotations

import numpy as np
import onnx
import pytest

from benchmarks.arms import NETS
from bnfold.inputs.signature import inputs_of
from bnfold.model.io import opened

torch = pytest.importorskip("torch")
exports = pytest.importorskip("benchmarks.exports")
ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ["tiny_ocr", "tiny_unet"])
def test_an_export_runs_at_every_batch_size_as_torch_does(name, tmp_path):
    net, example = exports.build(name)
    path = tmp_path / "net.onnx"
    exports.export(net, example, "torchscript-batch", path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (only,) = session.get_inputs()
    for batch in (1, 3):
        x = torch.randn(batch, *example.shape[1:])
        with torch.no_grad():
            expected = net(x).numpy()
        (found,) = session.run(None, {only.name: x.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_the_recogniser_has_scalar_maps_behind_its_convolutions(tmp_path):
    net, example = exports.build("tiny_ocr")
    path = tmp_path / "net.onnx"
    exports.export(net, example, "torchscript-batch", path)
    graph = onnx.load(path).graph
    scalars = {one.name for one in graph.initializer if list(one.dims) == [1]}
    maps = [
        node
        for node in graph.node
        if node.op_type in ("Mul", "Add") and scalars & set(node.input)
    ]
    assert len(maps) > 40
    (slot,) = inputs_of(opened(path))
    assert not isinstance(slot.dims[0], int)


def test_networks_are_the_same_every_time():
    (one, _), (other, _) = exports.build("ocr_crnn"), exports.build("ocr_crnn")
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_every_network_of_the_table_has_a_recipe():
    assert set(NETS) <= set(exports.NETS)
