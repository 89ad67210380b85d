"""convert keeps the function and everything about a model; revert is its exact inverse."""

from __future__ import annotations

import copy
import pickle

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Residual(nn.Module):
    """As torchvision's basic block: one ReLU called twice, an addition in place."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.downsample = None

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class TwoSums(nn.Module):
    """Two BatchNorms added to each other, then to what a third made."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x):
        y = torch.relu(self.a(x) + self.b(x))
        return nn.functional.leaky_relu(self.c(y) + y, 0.2)


class Deciding(nn.Module):
    """A forward that torch.fx cannot read."""

    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.bn(x)
        return torch.relu(y) if bool(x.sum() > 0) else y


class Modal(Deciding):
    """A forward that torch.fx can read, but would freeze in one mode."""

    def forward(self, x):
        y = self.bn(x)
        return torch.relu(y) if self.training else y


class Counting(Deciding):
    """A forward that remembers."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.relu(self.bn(x))


class Optional(Deciding):
    """A forward whose second input may be absent."""

    def forward(self, x, other=None):
        y = self.bn(x)
        return torch.relu(y if other is None else y + other)


def sequence():
    return nn.Sequential(
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.3), nn.BatchNorm2d(4), nn.SiLU()
    )


def whole():
    return nn.Sequential(sequence(), Residual(), Residual(), TwoSums(), nn.BatchNorm2d(4))


NETS = [sequence, Residual, TwoSums, Deciding, Modal, Counting, Optional, whole]


def described(model):
    """Everything about a model that convert must bring back."""
    return [
        (name, type(m), {k: v for k, v in vars(m).items() if not k.startswith("_")}, repr(m))
        for name, m in model.named_modules(remove_duplicate=False)
    ]


def results(model, x):
    y = model(x)
    model.zero_grad()
    y.square().mean().backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.eval()
    out = [y.detach(), *grads, *(b.clone() for b in model.buffers()), model(x).detach()]
    model.train()
    return out


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, **CLOSE)


@pytest.fixture
def x():
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("make", NETS)
def test_converted_nets_compute_the_same(make, device, x):
    torch.manual_seed(0)
    net, x = make().to(device), x.to(device)
    other = train.convert(copy.deepcopy(net))
    assert_same(results(net, x), results(other, x))
    assert all(
        type(m).__module__.startswith("bnfold")
        for m in other.modules()
        if isinstance(m, nn.BatchNorm2d)
    )


@pytest.mark.parametrize("make", NETS)
def test_revert_is_the_exact_inverse(make):
    net = make()
    before, tensors = described(net), [*net.parameters(), *net.buffers()]
    same = train.revert(train.convert(net))
    assert same is net
    assert described(net) == before
    assert all(
        a is b for a, b in zip(tensors, [*net.parameters(), *net.buffers()], strict=True)
    )


def test_what_is_fused_in_a_residual_block():
    net = train.convert(Residual())
    assert train.fusions(net) == {"bn1": "relu", "bn2": "addition + relu"}
    assert isinstance(net, Residual)
    assert type(net) is not Residual
    assert net.bn1.activation is None  # whoever calls it elsewhere gets a BatchNorm


def test_a_sum_of_two_batch_norms_belongs_to_the_later(x):
    net = train.convert(TwoSums())
    assert train.fusions(net) == {"b": "addition + relu", "c": "addition + leaky_relu"}
    net(x)


@pytest.mark.parametrize("make", [Deciding, Counting])
def test_forwards_that_cannot_be_trusted_stay_as_they_are(make):
    net = train.convert(make())
    assert type(net) is make
    assert train.fusions(net) == {}


@pytest.mark.parametrize(
    ("make", "fused"), [(Modal, "relu"), (Optional, "relu or addition + relu")]
)
def test_a_forward_of_several_ways_is_fused_in_each(make, fused):
    assert train.fusions(train.convert(make())) == {"bn": fused}


def test_hooks_see_what_they_saw(x):
    net = sequence()
    seen = []
    net[1].register_forward_hook(lambda *args: seen.append(args[2].detach().clone()))
    net(x)
    train.convert(net)
    net(x)
    torch.testing.assert_close(seen[0], seen[1], **CLOSE)
    assert train.fusions(net) == {"3": "silu"}


def test_shared_modules_are_fused_where_they_are_called_so(x):
    bn, relu = nn.BatchNorm2d(4), nn.ReLU()
    net = nn.Sequential(bn, relu, nn.Conv2d(4, 4, 1), bn, nn.BatchNorm2d(4), relu)
    expected = copy.deepcopy(net)
    train.convert(net)
    assert train.fusions(net) == {"0": "relu", "4": "relu"}
    assert_same(results(expected, x), results(net, x))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_converted_nets_can_be_copied(again, x):
    net = train.convert(whole())
    other = again(net)
    assert_same(results(net, x), results(other, x))
    assert described(train.revert(other)) == described(train.revert(net))


def test_flags_and_training_state_are_kept():
    net = whole()
    net[1].bn1.eval()
    net[1].bn1.weight.requires_grad_(False)  # noqa: FBT003  # torch's own signature
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    train.convert(net)
    assert not net[1].bn1.training
    assert net[1].bn2.training
    assert not net[1].bn1.weight.requires_grad
    assert held == [id(p) for p in net.parameters()]


def test_our_own_modules_are_left_alone():
    net = nn.Sequential(train.BatchNorm2d(4, activation="silu"), nn.ReLU())
    train.revert(train.convert(net))
    assert net[0].activation == "silu"
    assert type(net[0]) is train.BatchNorm2d


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_converted_nets_compile_whole(x):
    net = train.convert(whole())
    other = copy.deepcopy(net)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), other(x), **CLOSE)
