"""Statistics of the data itself: pooled over batches of any size, and nothing else changed."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402  # after the skip
from hypothesis import strategies as st  # noqa: E402  # after the skip
from torch import nn  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip
from bnfold.errors import UsageError  # noqa: E402  # after the skip
from bnfold.train import recalibration  # noqa: E402  # after the skip


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 5, 3),
        train.BatchNorm2d(5, activation="relu"),
        nn.Dropout(0.5),
        nn.Conv2d(5, 4, 3),
    )


def images(count, seed=0, offset=7.0):
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + offset


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    offset=st.sampled_from((0.0, 100.0, -1e4)),
)
def test_the_first_layer_gets_mean_and_variance_of_all_images(sizes, offset):
    model, data = net(), images(sum(sizes), offset=offset)
    done = train.recalibrate(model, data.split(sizes))
    wide = data.double()
    torch.testing.assert_close(
        model[0].running_mean.double(), wide.mean((0, 2, 3)), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        model[0].running_var.double(), wide.var((0, 2, 3)), rtol=1e-6, atol=0
    )
    assert done.batches == len(sizes) == int(model[0].num_batches_tracked)
    assert done.layers["0"].values == sum(sizes) * 36


def test_a_deep_layer_gets_what_it_will_see():
    """With one batch of all data, evaluation computes what the pass in training did."""
    model, data = net().double(), images(64).double()
    inside = {}
    model[2].register_forward_hook(lambda _m, _a, y: inside.setdefault("pass", y))
    train.recalibrate(model, [data])
    with torch.no_grad():
        seen = model[1](model.eval()[0](data))
    mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3))
    # running_var is unbiased, a batch normalises by the biased one: off by 1 / n.
    torch.testing.assert_close(model[2].running_mean, mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model[2].running_var, var, rtol=2e-3, atol=0)
    assert inside["pass"].shape == (64, 5, 4, 4)


def test_the_model_is_as_it_was_but_for_the_statistics():
    model = net()
    model[1].eval()
    model.train()
    model[4].eval()
    model[2].momentum = None
    before = copy.deepcopy(model)
    train.recalibrate(model, [images(4), images(5)])
    for one, other in zip(model.modules(), before.modules(), strict=True):
        assert one.training == other.training
        assert getattr(one, "momentum", 0) == getattr(other, "momentum", 0)
        assert not one._forward_pre_hooks
    for name, value in model.state_dict().items():
        moved = "running" in name or "num_batches" in name
        assert torch.equal(value, before.state_dict()[name]) is not moved, name


def test_where_a_batch_fails_nothing_is_changed():
    model = net()
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()]
    with pytest.raises(RuntimeError):
        train.recalibrate(model, [images(4), torch.randn(2, 4, 6, 6)])
    assert [m.training for m in model.modules()] == flags
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("batches", "forward"),
    [
        ([(images(4), torch.zeros(4))], None),
        ([{"input": images(4)}], None),
        ([{"pixels": images(4)}], lambda model, batch: model(batch["pixels"])),
        ((images(4) for _ in range(9)), None),
    ],
    ids=["tuple", "mapping", "forward", "generator"],
)
def test_batches_of_any_form(batches, forward):
    model = net()
    train.recalibrate(model, batches, forward=forward, max_batches=1)
    torch.testing.assert_close(model[0].running_mean, images(4).mean((0, 2, 3)))
    assert int(model[0].num_batches_tracked) == 1


def test_frozen_layers_and_those_without_statistics_are_left():
    model = nn.Sequential(
        train.BatchNorm2d(3, frozen=True),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.BatchNorm2d(3),
    )
    done = train.recalibrate(model, [images(8)])
    assert list(done.layers) == ["2"]
    assert not bool(model[0].running_mean.any())
    assert "2: mean moved by" in str(done)


def test_a_layer_that_sees_nothing_is_named():
    model = net()
    model.unused = nn.BatchNorm1d(7)
    done = train.recalibrate(model, [images(4)], forward=lambda m, x: m[2](m[1](m[0](x))))
    assert done.unseen == ("unused",)
    assert "unused: saw no data" in str(done)


def test_what_cannot_be_done_is_said():
    with pytest.raises(UsageError, match="there is nothing to recalibrate"):
        train.recalibrate(nn.Linear(3, 3), [torch.randn(2, 3)])
    with pytest.raises(UsageError, match="there is no data to recalibrate with"):
        train.recalibrate(net(), [])
    with pytest.raises(UsageError, match="there is no data to recalibrate with"):
        train.recalibrate(net(), [images(0)])


def test_large_batches_are_widened_a_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr(recalibration, "_CHUNK", 100)
    model = net()
    train.recalibrate(model, [images(11)])
    torch.testing.assert_close(model[0].running_var, images(11).var((0, 2, 3)))


def test_it_mends_statistics_that_the_weights_have_left_behind():
    """A fold takes running statistics for the truth; here they are wrong, and set right."""
    model, data = net().eval(), images(256)
    with torch.no_grad():
        model[0].running_mean.fill_(-50)
        wrong = model(data)
        train.recalibrate(model, data.split(64))
        right = model(data)
    alone = copy.deepcopy(model).train()
    alone[3].eval()
    with torch.no_grad():
        truth = alone(data)
    assert float((right - truth).abs().max()) < 0.02 < float((wrong - truth).abs().max())
