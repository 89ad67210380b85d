"""A small net, exported, against torch in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bnfold.evidence.reference import Evaluator
from bnfold.model.io import load
from tests.evidence.reference.nodes import close

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
nn = torch.nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.norm = nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.gelu(self.depth(x)) + x
        x = self.up(self.pool(x))
        x = nn.functional.interpolate(x, scale_factor=1.5, mode="bilinear")
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1)).softmax(-1)


def test_an_exported_net(tmp_path):
    torch.manual_seed(0)
    net = Net().eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 16, 16)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own future
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False)
        wanted = net.double()(x.double())
    model = load(path)
    (name,) = (value.name for value in model.graph.inputs)
    evaluator = Evaluator(model)
    (y,) = evaluator.run({name: x.numpy()}).values()
    close(y, wanted.detach(), 1e-7)  # scale constants in the graph are float32
    assert not evaluator.fell_back
    assert np.ptp(y) > 1e-3
