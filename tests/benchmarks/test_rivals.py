from __future__ import annotations

import sys
import types
from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import resnet, rivals, whole_step  # noqa: E402  # they need torch
from benchmarks.gpu.clocks import HostClock  # noqa: E402  # as above
from benchmarks.gpu.layers import Arm, Inputs, made_inputs  # noqa: E402  # as above
from benchmarks.gpu.rivals import AbsentError  # noqa: E402  # as above
from benchmarks.gpu.training_plan import PARAMETERS, Layer, Net  # noqa: E402  # as above
from bnfold import train  # noqa: E402  # as above

_ADDED = Layer(2, 8, 6, "float32", channels_last=True, kind="bn+add+relu")
_PLAIN = Layer(2, 8, 6, "float16", channels_last=True, kind="bn")


@pytest.mark.parametrize("arm", ["eager", "again", "compiled", "ours", "ours compiled"])
def test_all_arms_compute_the_same(arm):
    at = made_inputs(_ADDED, "cpu")[0]
    theirs, mine = (rivals.build(one, _ADDED, "cpu") for one in ("eager", arm))
    torch.testing.assert_close(mine(at.x, at.residual), theirs(at.x, at.residual))


def test_what_is_not_installed_says_so(monkeypatch):
    for name in ("inplace_abn", "apex"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AbsentError, match="inplace_abn is not installed"):
        rivals.build("inplace_abn", _PLAIN, "cpu")
    with pytest.raises(AbsentError, match=r"apex\.contrib\.groupbn\.batch_norm is not"):
        rivals.build("apex", _PLAIN, "cpu")


def test_what_computes_something_else_says_so():
    with pytest.raises(AbsentError, match="no residual"):
        rivals.build("inplace_abn", _ADDED, "cpu")
    with pytest.raises(AbsentError, match="float16"):
        rivals.build("apex", _ADDED, "cpu")


class _InPlaceABN(torch.nn.BatchNorm2d):
    def __init__(self, channels: int, activation: str) -> None:
        super().__init__(channels)
        self.activation = activation

    def forward(self, x):
        return x.mul_(2)


def test_a_rival_that_overwrites_its_input_gets_one_of_its_own(monkeypatch):
    module = types.ModuleType("inplace_abn")
    module.InPlaceABN = _InPlaceABN
    monkeypatch.setitem(sys.modules, "inplace_abn", module)
    built = rivals.build("inplace_abn", _PLAIN, "cpu")
    assert built.bn.activation == "identity"
    at = made_inputs(_PLAIN, "cpu")[0]
    before = at.x.detach().clone()
    arm = Arm("inplace_abn", built, [at], 1, HostClock())
    y = arm.forward(arm.some(1)[0])
    torch.testing.assert_close(y, 2 * before)
    assert torch.equal(at.x, before)


class _Nhwc(torch.nn.BatchNorm2d):
    def __init__(self, channels: int, *, fuse_relu: bool) -> None:
        super().__init__(channels)
        self.fuse_relu = fuse_relu

    def forward(self, x, z=None):
        assert x.is_contiguous()
        assert z is None or z.is_contiguous()
        return x if z is None else x + z


def test_apex_gets_the_channels_last_in_the_shape(monkeypatch):
    names = ["apex", "apex.contrib", "apex.contrib.groupbn", "apex.contrib.groupbn.batch_norm"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[names[-1]].BatchNorm2d_NHWC = _Nhwc
    layer = Layer(2, 8, 6, "float16", channels_last=True, kind="bn+add+relu")
    at = made_inputs(layer, "cpu")[0]
    built = rivals.build("apex", layer, "cpu")
    assert built.bn.fuse_relu is True
    torch.testing.assert_close(built(at.x, at.residual), at.x + at.residual)


def test_inputs_are_as_asked_for():
    for last in (True, False):
        layer = Layer(2, 8, 6, "bfloat16", channels_last=last, kind="bn+relu")
        at: Inputs = made_inputs(layer, "cpu")[0]
        form = torch.channels_last if last else torch.contiguous_format
        assert at.x.dtype == torch.bfloat16
        assert at.residual is None
        assert at.x.is_contiguous(memory_format=form)
        assert at.dy.is_contiguous(memory_format=form)


def test_the_network_is_resnet50_and_all_of_its_batchnorms_become_ours():
    with torch.device("meta"):
        net = resnet.build("resnet50")
    assert sum(one.numel() for one in net.parameters()) == 25_557_032
    train.convert(net)
    ours = [one for one in net.modules() if isinstance(one, train.FusedBatchNorm)]
    assert len(ours) == 53
    assert Counter(train.fusions(net).values()) == {"relu": 33, "addition + relu": 16}


def test_weights_are_the_same_every_time_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    one, other = (resnet.build("tiny").state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(state, torch.get_rng_state())


def test_parameters_are_narrow_but_for_those_of_batchnorm():
    net = Net("tiny", 2, PARAMETERS)
    arm = whole_step.built("ours", net, whole_step.drawn(net, "cpu"))
    kinds = {name.split(".")[-2][:2]: one.dtype for name, one in arm.module.named_parameters()}
    assert kinds["bn"] == torch.float32
    assert arm.autocast is None
    assert next(arm.module.parameters()).dtype == torch.bfloat16
    assert torch.isfinite(arm.step())


def test_a_network_that_learns_something_else_is_found():
    losses = {"eager": [7.0, 6.9, 6.8], "ours": [7.01, 6.91, 6.79], "bad": [7.0, 6.9, 6.9]}
    gradient = {"eager": 3.0, "ours": 3.05, "bad": 3.0}
    agrees = {"eager": True, "ours": True, "bad": False}
    assert whole_step.agreement(losses, gradient) == agrees
    assert whole_step.agreement(losses, {**gradient, "ours": 3.1})["ours"] is False
    lost = {**losses, "ours": [float("nan")] * 3}
    assert whole_step.agreement(lost, gradient)["ours"] is False
    assert whole_step.agreement({"ours": [1.0]}, {"ours": 1.0}) == {}
