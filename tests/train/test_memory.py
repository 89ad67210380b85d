"""Recomputed outputs: fewer bytes, the same bits."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # after the skip
from torch.utils.checkpoint import checkpoint  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip
from bnfold.train.functional import INTERPRETED  # noqa: E402  # after the skip

# numpy warns about lanes outside the tensor, which nothing stores.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


class Block(nn.Module):
    """A bottleneck, as in a residual network."""

    def __init__(self, activation="relu"):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 1, bias=False)
        self.bn1 = train.BatchNorm2d(8, activation=activation)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = train.BatchNorm2d(8, activation=activation)
        self.conv3 = nn.Conv2d(8, 8, 1, bias=False)
        self.bn3 = train.BatchNorm2d(8, activation=activation)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        return self.bn3(self.conv3(y), x)


def net(device, activation="relu"):
    torch.manual_seed(0)
    model = nn.Sequential(Block(activation), Block(activation), nn.Conv2d(8, 4, 1))
    return model.to(device), torch.randn(2, 8, 8, 8).to(device)


def train_step(model, x):
    y = model(x)
    model.zero_grad()
    return y


def results(model, y):
    y.square().mean().backward()
    return [y.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_recomputed_gradients_are_the_same_bits(device, activation):
    model, x = net(device, activation)
    other = copy.deepcopy(model)
    kept = results(model, train_step(model, x))
    with train.recompute():
        y = train_step(other, x)
    again = results(other, y)
    for first, second in zip(kept, again, strict=True):
        assert torch.equal(first, second)


def test_recomputing_saves_bytes_of_every_inner_layer(device):
    model, x = net(device)
    size = x.numel() * 4
    kept = train.saved_bytes(model, x)
    with train.recompute():
        less = train.saved_bytes(model, x)
    # x; then what each of six layers normalises, and six outputs, all read by convolutions.
    small = 8 * size // 32 + 4096  # signs, one bit per value; vectors of eight channels
    assert 13 * size <= kept.total_bytes <= 13 * size + small
    # The second block's output stays: its residual, the first block's, is rebuilt. Five go.
    assert 8 * size <= less.total_bytes <= 8 * size + small
    assert "0.bn1" in kept.layers
    assert "in all" in str(less)


def test_of_a_chain_of_residuals_every_other_output_is_rebuilt(device):
    torch.manual_seed(0)
    model, x = nn.Sequential(*(Block() for _ in range(4)), nn.Conv2d(8, 4, 1)), net(device)[1]
    model.to(device)
    other = copy.deepcopy(model)
    kept = results(model, train_step(model, x))
    with train.recompute():
        y = train_step(other, x)
    for first, second in zip(kept, results(other, y), strict=True):
        assert torch.equal(first, second)
    with train.recompute():
        less = train.saved_bytes(model, x).total_bytes
    # x, what twelve layers normalise, and the outputs of the second and the fourth block.
    size = x.numel() * 4
    assert 15 * size <= less <= 15 * size + 16 * size // 32 + 8192


class Branches(nn.Module):
    """Outputs are added that nothing else keeps, as in RepVGG and MobileOne."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1, bias=False) for _ in range(3))
        self.bns = nn.ModuleList(train.BatchNorm2d(8) for _ in range(3))
        self.last = train.BatchNorm2d(8, activation="relu")

    def forward(self, x):
        y = None
        for conv, bn in zip(self.convs, self.bns, strict=True):
            y = bn(conv(x), y)
        return self.last(x, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(Branches(), Branches(), Branches()),
        lambda: nn.Sequential(Block(None), Block("silu"), Branches()),
        lambda: nn.Sequential(*(train.BatchNorm2d(8, activation="silu") for _ in range(4))),
    ],
    ids=["branches", "blocks", "norms"],
)
def test_recomputing_never_keeps_more(device, make):
    torch.manual_seed(0)
    model, x = nn.Sequential(make(), nn.Conv2d(8, 4, 1)).to(device), net(device)[1]
    if not INTERPRETED:  # where a step takes seconds; what is kept is what may go wrong
        other = copy.deepcopy(model)
        kept = results(model, train_step(model, x))
        with train.recompute():
            y = train_step(other, x)
        for first, second in zip(kept, results(other, y), strict=True):
            assert torch.equal(first, second)
    plain = train.saved_bytes(model, x).total_bytes
    with train.recompute():
        assert train.saved_bytes(model, x).total_bytes <= plain


def test_an_output_that_nobody_saves_leaves_nothing_behind(device):
    """What it would have been rebuilt from is not held until the forward ends."""
    bn = train.BatchNorm2d(8).to(device)
    with train.recompute():
        for _ in range(3):
            x = torch.randn(2, 8, 4, 4, device=device)
            gone = weakref.ref(x)
            y = bn(x)
            del x, y
            bn(torch.randn(2, 8, 4, 4, device=device))
            gc.collect()
            assert gone() is None


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.LeakyReLU(0.2, inplace=True)],
)
def test_converting_saves_no_more_than_activations_in_place(activation):
    conv, last = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1)
    model, x = (
        nn.Sequential(conv, nn.BatchNorm2d(4), activation, last),
        torch.randn(2, 2, 6, 6),
    )
    before = train.saved_bytes(model, x).total_bytes
    steps = []
    for _ in range(2):
        model.zero_grad()
        model(x).square().sum().backward()
        steps.append(conv.weight.grad)
        train.convert(model)
    slack = 256 if INTERPRETED else 0  # signs and vectors of four channels
    assert train.saved_bytes(model, x).total_bytes <= before + slack
    torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-5)


def test_saved_bytes_leaves_the_model_as_it_was(device):
    model, x = net(device)
    before = [b.clone() for b in model.buffers()]
    train.saved_bytes(model, x)
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_output_modified_in_place_is_kept(device):
    torch.manual_seed(0)
    bn, conv = train.BatchNorm2d(4).to(device), nn.Conv2d(4, 4, 1).to(device)
    x = torch.randn(2, 4, 5, 5, device=device)
    grads = []
    for _ in range(2):
        with train.recompute():
            y = conv(bn(x).add_(1))
        conv.zero_grad()
        y.square().mean().backward()
        grads.append(conv.weight.grad)
        y = conv(bn(x) + 1)
        conv.zero_grad()
        y.square().mean().backward()
        grads.append(conv.weight.grad)
    assert torch.equal(grads[0], grads[1])


def test_a_weight_modified_before_backward_is_an_error(device):
    model, x = net(device)
    with train.recompute():
        y = model(x)
    with torch.no_grad():
        model[1].bn1.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        y.sum().backward()


class Viewing(nn.Module):
    """Outputs are read through views: parts of channels, transposed, flattened."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)
        self.bn, self.last = train.BatchNorm2d(8), train.BatchNorm2d(8, activation="relu")
        self.linear = nn.Linear(8 * 64, 4)

    def forward(self, x):
        y = self.bn(self.conv(x))
        z = self.last(self.conv(y.transpose(2, 3)))
        return self.linear(z.flatten(1)) + (y[:, 2:4] * y[:, :2]).mean()


def test_views_of_an_output_are_rebuilt_too(device):
    torch.manual_seed(0)
    model, x = Viewing().to(device), torch.randn(2, 8, 8, 8).to(device)
    other = copy.deepcopy(model)
    kept = results(model, train_step(model, x))
    with train.recompute():
        y = train_step(other, x)
    for first, second in zip(kept, results(other, y), strict=True):
        assert torch.equal(first, second)
    with train.recompute():
        report = train.saved_bytes(model, x)
    # x, and what the two layers normalise; neither output.
    assert report.total_bytes < 3 * x.numel() * 4 + 4096


@pytest.mark.parametrize("use_reentrant", [False] if INTERPRETED else [False, True])
def test_a_checkpoint_inside_finds_the_same_operators(device, use_reentrant):
    model, x = net(device)
    other = copy.deepcopy(model)
    x.requires_grad_()
    found = []
    for one, mode in ((model, False), (other, True)):
        if mode:
            with train.recompute():
                y = checkpoint(one, x, use_reentrant=use_reentrant)
        else:
            y = checkpoint(one, x, use_reentrant=use_reentrant)
        found.append(results(one, y))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


@pytest.mark.skipif(INTERPRETED, reason="slow there, and nothing of it is the kernels'")
def test_two_forwards_before_a_backward(device):
    model, x = net(device)
    other = copy.deepcopy(model)
    one, two = model(x), model(2 * x)
    (one.sum() + two.square().sum()).backward()
    with train.recompute():
        one, two = other(x), other(2 * x)
    (one.sum() + two.square().sum()).backward()
    for first, second in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(first.grad, second.grad)


def test_recomputing_is_of_one_thread(device):
    model, x = net(device)
    other, seen = copy.deepcopy(model), []
    with train.recompute():
        thread = threading.Thread(
            target=lambda: seen.append(train.saved_bytes(other, x).total_bytes)
        )
        thread.start()
        thread.join()
        less = train.saved_bytes(model, x).total_bytes
    assert less < seen[0] == train.saved_bytes(model, x).total_bytes


def test_after_an_error_inside_nothing_is_recomputed(device):
    model, x = net(device)
    with pytest.raises(KeyError), train.recompute():
        raise KeyError
    kept = train.saved_bytes(model, x).total_bytes
    with train.recompute():
        assert train.saved_bytes(model, x).total_bytes < kept
