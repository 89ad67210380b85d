"""Reparametrised weights as torch exports them: nothing is left of what computes them."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402  behind what skips the file
from torch.nn import functional as F  # noqa: E402, N812  as everybody calls it
from torch.nn.utils import parametrizations  # noqa: E402  as above

import bnfold  # noqa: E402  as above


class Standardised(nn.Conv2d):
    """timm's ScaledStdConv2d: the weight is normalised by F.batch_norm."""

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        gain = torch.linspace(0.5, 1.5, self.out_channels)
        w = F.batch_norm(flat, None, None, weight=gain.to(flat), training=True, eps=1e-6)
        return F.conv2d(x, w.reshape_as(self.weight), self.bias)


class LowRank(nn.Linear):
    """LoRA: W + B · A · s."""

    def __init__(self, ins, outs):
        super().__init__(ins, outs)
        self.a, self.b = (nn.Parameter(torch.randn(*s)) for s in ((2, ins), (outs, 2)))

    def forward(self, x):
        return F.linear(x, self.weight + (self.b @ self.a) * 0.5, self.bias)


class Scaled(nn.Module):
    """A LayerScale behind a layer."""

    def __init__(self, layer, channels):
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.linspace(0.5, 2.0, channels))

    def forward(self, x):
        return self.layer(x) * self.scale


def _conv(wrap):
    return nn.Sequential(wrap(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)), (2, 3, 8, 8), "Conv"


def _linear(wrap):
    return nn.Sequential(wrap(nn.Linear(8, 6)), nn.BatchNorm1d(6)), (4, 8), "Gemm"


NETS = {
    "weight_norm conv": lambda: _conv(parametrizations.weight_norm),
    "weight_norm along 1": lambda: _conv(lambda m: parametrizations.weight_norm(m, dim=1)),
    "weight_norm linear": lambda: _linear(parametrizations.weight_norm),
    "old weight_norm": lambda: _conv(nn.utils.weight_norm),
    "old spectral_norm": lambda: _conv(nn.utils.spectral_norm),
    "spectral_norm conv": lambda: _conv(parametrizations.spectral_norm),
    "spectral_norm linear": lambda: _linear(parametrizations.spectral_norm),
    "LoRA": lambda: (Scaled(LowRank(8, 6), 6), (4, 8), "Gemm"),
    "weight standardisation": lambda: (
        nn.Sequential(Standardised(3, 6, 3), nn.BatchNorm2d(6)),
        (2, 3, 8, 8),
        "Conv",
    ),
}
TORCHSCRIPT = [name for name in NETS if not name.startswith("spectral_norm")]
"""It cannot write aten::vdot, which spectral_norm of torch 2.13 calls."""
DYNAMO = ["weight_norm conv", "spectral_norm linear"]


def _made(name):
    torch.manual_seed(3)
    net, shape, kind = NETS[name]()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return net.eval(), torch.randn(*shape), kind


def _check(net, x, model: onnx.ModelProto, kind: str, *, verify: bool) -> None:
    before = model.ByteSize()
    result = bnfold.fold(model, verify=verify)
    folded = result.to_proto()
    assert [node.op_type for node in folded.graph.node] == [kind]
    assert result.report.stays == ()
    assert folded.ByteSize() < before
    assert not verify or result.check.verdict == "passed"
    with torch.no_grad():
        wanted = net.double()(x.double()).numpy()
    session = ort.InferenceSession(
        folded.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {model.graph.input[0].name: x.numpy()})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6 * np.abs(wanted).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCHSCRIPT)
def test_torchscript_exports_fold_to_one_operator(name):
    net, x, kind = _made(name)
    written = io.BytesIO()
    torch.onnx.export(
        net, (x,), written, dynamo=False, opset_version=17, do_constant_folding=False
    )
    model = onnx.load_from_string(written.getvalue())
    _check(net, x, model, kind, verify=name == "weight standardisation")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DYNAMO)
def test_dynamo_exports_that_nobody_optimised_fold_to_one_operator(name):
    net, x, kind = _made(name)
    program = torch.onnx.export(net, (x,), dynamo=True, optimize=False, verbose=False)
    _check(net, x, program.model_proto, kind, verify=False)
