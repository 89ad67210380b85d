"""Models as people write them: converted ones give the same bits, whatever else is called."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # after the skip
from torch.nn import functional  # noqa: E402  # after the skip
from torch.utils.checkpoint import checkpoint  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip
from bnfold.train.functional import INTERPRETED  # noqa: E402  # after the skip

if INTERPRETED:
    pytest.skip("kernels do not give torch's bits", allow_module_level=True)


class Parts(nn.Module):
    """What the models below are made of."""

    def __init__(self):
        super().__init__()
        self.c, self.c2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.bn, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu, self.act = nn.ReLU(inplace=True), nn.SiLU()


class ConvBn(nn.Sequential):
    def __init__(self):
        super().__init__(OrderedDict(conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4)))


class Tapped(nn.Module):
    """The children of a sequence, called one by one, looked at between BatchNorm and SiLU."""

    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.SiLU())

    def forward(self, x):
        seen = []
        for layer in self.f:
            x = layer(x)
            seen.append(x)
        return sum(seen)


class Inner(Parts):
    def features(self, x):
        return self.act(self.bn(self.c(x)))

    def forward(self, x):
        return functional.silu(self.features(x))


class ByAnotherMethod(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x):
        return self.inner.features(x) + self.inner(x)


class WritesItsInput(Parts):
    def forward(self, x):
        x += self.bn(self.c(x.clone())).detach()
        return functional.relu(self.bn2(x))


class CallerOfAWriter(nn.Module):
    """The input of a block is read again after the block has written to it."""

    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Conv2d(4, 4, 1), WritesItsInput()

    def forward(self, x):
        y = self.first(x).detach()
        z = self.block(y)
        return y + z


class ListKeeper(Parts):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(1)
        return torch.relu(self.bn(self.c(x))) * len(self.seen)


class BufferWriter(Parts):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return torch.relu(self.bn(self.c(x))) * self.calls.clone()


class BufferCounter(BufferWriter):
    def forward(self, x):
        self.calls += 1
        return torch.relu(self.bn(self.c(x))) * self.calls.clone()


class WithoutGradients(Parts):
    def forward(self, x):
        with torch.no_grad():
            y = self.bn(self.c(x))
        return torch.relu(y) + self.bn2(self.c2(x))


def chance():
    return 2.0 if torch.rand(1).item() < 0.5 else 3.0


class ByChance(Parts):
    def forward(self, x):
        return torch.relu(self.bn(self.c(x))) * chance()


class WrittenBetween(Parts):
    """What the BatchNorm reads is written to before the addition."""

    def forward(self, x):
        y = self.bn(x.clone())
        z = functional.relu(x.mul(2), inplace=True)
        return torch.relu(y + z)


class SumAndMore(Parts):
    def forward(self, x):
        y = self.bn(self.c(x))
        y += x
        return self.relu(y) + y


class WeighedSum(Parts):
    def forward(self, x):
        return torch.relu(torch.add(self.bn(x), self.bn2(x), alpha=2))


class NumberAdded(Parts):
    def forward(self, x):
        return torch.relu(self.bn(x) + 3) + torch.relu(self.bn2(x) + x.shape[0])


class Doubled(Parts):
    def forward(self, x):
        y = self.bn(x)
        return torch.relu(y + y)


class DroppedOut(Parts):
    def forward(self, x):
        y = functional.dropout(self.bn(self.c(x)), 0.5, self.training)
        return torch.relu(self.bn2(self.c2(y)) + functional.dropout(x, 0.5, self.training))


class PartlyFrozen(Parts):
    def train(self, mode=True):  # noqa: FBT002  # torch's own signature
        super().train(mode)
        self.bn.eval()
        return self

    def forward(self, x):
        return torch.relu(self.bn2(self.c2(torch.relu(self.bn(self.c(x))))) + x)


class Skipping(Parts):
    """An optional input, given or not, and a number."""

    def forward(self, x, skip=None, factor=2):
        y = self.bn(self.c(x))
        if skip is not None:
            y = y + skip
        return self.relu(y) * factor


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = Skipping(), Skipping()

    def forward(self, x):
        y = self.a(x)
        return self.b(y, x) + self.b(y, None) + self.a(x, skip=y, factor=3)


class Tails(nn.Module):
    """BatchNorms at the end of sequences, an addition and an activation in the parent."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(ConvBn(), nn.ReLU(), ConvBn())
        self.short = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.last = ConvBn()

    def forward(self, x):
        y = torch.relu(self.body(x) + self.short(x))
        return functional.gelu(self.last(y))


class TailsTapped(Tails):
    def forward(self, x):
        return functional.silu(self.last(x) + x) + self.last(x) + self.last.bn(x)


class Yolo(nn.Module):
    """One activation for all, an Identity for none."""

    shared = nn.SiLU()

    class Conv(nn.Module):
        def __init__(self, act):
            super().__init__()
            self.conv, self.bn, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), act

        def forward(self, x):
            return self.act(self.bn(self.conv(x)))

    def __init__(self):
        super().__init__()
        self.a, self.b = Yolo.Conv(self.shared), Yolo.Conv(self.shared)
        self.c = Yolo.Conv(nn.Identity())
        self.more = nn.ModuleList([Yolo.Conv(self.shared)])

    def forward(self, x):
        y = [self.a(x), self.b(x)]
        y.extend(m(y[-1]) for m in self.more)
        return sum(y) + self.c(x)


class Subclassed(Parts):
    class Defaults(nn.BatchNorm2d):
        def __init__(self, channels):
            super().__init__(channels, eps=1e-3, momentum=0.03)

    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    def __init__(self):
        super().__init__()
        self.bn, self.bn2 = Subclassed.Defaults(4), Subclassed.Own(4)

    def forward(self, x):
        return torch.relu(self.bn2(self.c2(torch.relu(self.bn(self.c(x))))) + x)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        for i in range(3):
            setattr(self, f"bn{i}", nn.BatchNorm2d(4))

    def forward(self, x):
        for i in range(3):
            x = functional.leaky_relu(getattr(self, f"bn{i}")(x), 0.2)
        return x


class Asking(Parts):
    def forward(self, x):
        if isinstance(x, torch.Tensor):
            x = [x]
        return torch.relu(self.bn(self.c(torch.cat(x, 1))))


class Checkpointed(Parts):
    def inner(self, x):
        return torch.relu(self.bn(self.c(x)))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


class CheckpointedOnDemand(Checkpointed):
    """A switch that is off when the model is converted."""

    def __init__(self):
        super().__init__()
        self.saves_memory = False

    def forward(self, x):
        if self.saves_memory:
            return checkpoint(self.inner, x, use_reentrant=False)
        return self.inner(x)


class SharedBlocks(nn.Module):
    """One block in two others, and one under two names."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(ConvBn(), nn.ReLU())
        self.b = nn.ModuleList([self.a[0], ConvBn()])
        self.again = self.b[1]

    def forward(self, x):
        y = torch.relu(self.b[0](self.a(x)) + x)
        return functional.silu(self.b[1](y)) + self.again(x)


class SummedInPlace(nn.Module):
    """Branches added into the output of the first, as in a re-parameterised block."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([ConvBn(), ConvBn(), ConvBn()])

    def forward(self, x):
        y = self.branches[0](x)
        for branch in self.branches[1:]:
            y += branch(x)
        return torch.relu(y)


class Activations(nn.Module):
    """Every activation, as a module and as a function."""

    def __init__(self):
        super().__init__()
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(10))
        self.acts = nn.ModuleList(
            [nn.ReLU6(), nn.Hardswish(), nn.Mish(), nn.GELU(approximate="tanh"), nn.ELU()]
        )

    def forward(self, x):
        for bn, act in zip(self.bns, self.acts, strict=False):
            x = act(bn(x))
        x = functional.hardswish(self.bns[5](x) + x, inplace=True)
        x = functional.mish(self.bns[6](functional.relu6(self.bns[7](x))))
        return functional.gelu(self.bns[8](x), approximate="tanh") + torch.tanh(self.bns[9](x))


class ByKeyword(Parts):
    def forward(self, x, *, scale=1.5):
        return functional.relu(input=self.bn(input=self.c(x))) * scale


class Synchronised(Parts):
    def __init__(self):
        super().__init__()
        self.bn2 = nn.SyncBatchNorm(4)

    def forward(self, x):
        return torch.relu(self.bn(self.c(x)))


WILD = [
    *(Tapped, ByAnotherMethod, CallerOfAWriter, ListKeeper, BufferWriter, BufferCounter),
    *(
        WithoutGradients,
        ByChance,
        WrittenBetween,
        SumAndMore,
        WeighedSum,
        NumberAdded,
        Doubled,
    ),
    *(DroppedOut, PartlyFrozen, Decoder, Tails, TailsTapped, Yolo, Subclassed, Named, Asking),
    *(Checkpointed, CheckpointedOnDemand, SharedBlocks, SummedInPlace, Activations),
    *(ByKeyword, Synchronised),
]


@pytest.fixture
def x():
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(7))


def two_steps(net, x):
    """Outputs and gradients of two steps, then buffers, then an evaluation."""
    found = []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    net.train()
    for turn in range(2):
        torch.manual_seed(turn)
        y = net(x.clone())
        optimizer.zero_grad()
        y.square().mean().backward()
        found += [
            y.detach(),
            *(p.grad.clone() for p in net.parameters() if p.grad is not None),
        ]
        optimizer.step()
    net.eval()
    with torch.no_grad():
        return [*found, *(b.clone() for b in net.buffers()), net(x.clone())]


def assert_bits(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert torch.equal(first, second)


def described(net):
    return [
        (name, type(m), repr(m), m.training, sorted(vars(m)))
        for name, m in net.named_modules(remove_duplicate=False)
    ]


@pytest.mark.parametrize("make", WILD)
def test_bits_names_and_the_way_back(make, x):
    torch.manual_seed(0)
    net = make()
    before, names = described(net), list(net.state_dict())
    chance_before = torch.get_rng_state()
    converted = train.convert(copy.deepcopy(net))
    assert torch.equal(torch.get_rng_state(), chance_before)
    assert list(converted.state_dict()) == names
    expected = two_steps(copy.deepcopy(net), x)
    assert_bits(two_steps(copy.deepcopy(converted), x), expected)
    assert_bits(two_steps(pickle.loads(pickle.dumps(converted)), x), expected)
    assert described(train.revert(train.convert(net))) == before


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        (
            Tails,
            {"body.0.bn": "relu", "short.1": "addition + relu", "last.bn": "gelu"},
        ),
        (DroppedOut, {"bn2": "addition + relu"}),
        (Decoder, dict.fromkeys(("a.bn", "b.bn"), "relu or addition + relu")),
        (Yolo, {"a.bn": "silu", "b.bn": "silu", "more.0.bn": "silu", "c.bn": "addition"}),
        (Subclassed, {"bn": "relu"}),
        (Named, dict.fromkeys(("bn0", "bn1", "bn2"), "leaky_relu")),
        (Asking, {"bn": "relu"}),
        (
            SharedBlocks,
            {"b.1.bn": "addition or silu", "a.0.bn": "addition + relu or relu"},
        ),
        (SummedInPlace, {"branches.1.bn": "addition", "branches.2.bn": "addition + relu"}),
        (
            Activations,
            {
                **{f"bns.{i}": a for i, a in ((0, "relu6"), (1, "hardswish"), (2, "mish"))},
                **{f"bns.{i}": "gelu_tanh" for i in (3, 8)},
                "bns.5": "addition + hardswish",
                "bns.6": "mish",
                "bns.7": "relu6",
            },
        ),
        (ByKeyword, {}),
        (Checkpointed, {}),
        (CheckpointedOnDemand, {"bn": "relu"}),
    ],
)
def test_what_is_fused(make, fused):
    assert train.fusions(train.convert(make())) == fused


def changed(change):
    """A converted net and an original, both changed in one way after the conversion."""
    torch.manual_seed(0)
    net = nn.Sequential(Parts(), Tails())
    net[0] = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Identity())
    converted = train.convert(copy.deepcopy(net))
    for one in (net, converted):
        change(one)
    return net, converted


def doubled(module):
    module.register_forward_hook(lambda _, __, y: 2 * y)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: doubled(net[0][2]),
        lambda net: doubled(net[0][1]),
        lambda net: doubled(net[1].short),
        lambda net: doubled(net[1].short[1]),
        lambda net: net[0].append(nn.Sigmoid()),
        lambda net: setattr(net[0], "2", nn.Tanh()),
        lambda net: setattr(net[1].short, "1", nn.GroupNorm(2, 4)),
        lambda net: net[1].body.insert(1, nn.Tanh()),
        lambda net: setattr(net[1], "last", nn.Conv2d(4, 4, 1, bias=False).requires_grad_()),
        lambda net: train.revert(net[1].short),
        lambda net: train.revert(net[0]),
        lambda net: nn.SyncBatchNorm.convert_sync_batchnorm(net).eval(),
    ],
)
def test_what_changes_after_the_conversion_is_respected(change, x):
    torch.manual_seed(1)
    net, converted = changed(change)
    converted.load_state_dict(net.state_dict())
    for training in (False,) if not net.training else (True, False):
        net.train(training)
        converted.train(training)
        assert torch.equal(converted(x), net(x))


def test_an_attribute_that_a_forward_decides_by_may_change(x):
    class Switched(Parts):
        is_short = False

        def __init__(self):
            super().__init__()
            self.is_short = False

        def forward(self, x):
            y = torch.relu(self.bn(self.c(x)))
            return y if self.is_short else torch.relu(self.bn2(y))

    torch.manual_seed(0)
    net = Switched().eval()
    converted = train.convert(copy.deepcopy(net))
    assert train.fusions(converted) == {"bn": "relu", "bn2": "relu"}
    for net.is_short in (True, False):
        converted.is_short = net.is_short
        assert torch.equal(converted(x), net(x))


def test_lazy_batch_norms_are_converted_once_they_know_their_channels(x):
    net = nn.Sequential(nn.LazyBatchNorm2d(), nn.ReLU())
    train.convert(net)
    assert type(net[0]) is nn.LazyBatchNorm2d
    net(x)
    train.convert(net)
    assert train.fusions(net) == {"0": "relu"}


def test_classes_that_notice_subclasses_are_not_rewritten():
    class Noticing(nn.Module):
        seen = ()

        def __init_subclass__(cls, *, name):
            Noticing.seen += (name,)

    class Registered(Noticing, name="one"):
        def __init__(self):
            super().__init__()
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x):
            return torch.relu(self.bn(x))

    assert train.fusions(train.convert(Registered())) == {}
    assert Noticing.seen == ("one",)


def test_fusions_are_those_that_hold_now():
    net = train.convert(Tails())
    net.short.register_forward_hook(lambda *_: None)
    assert train.fusions(net) == {"body.0.bn": "relu"}
    net.body = nn.Identity()
    assert train.fusions(net) == {}
    net = train.convert_sync_batchnorm(train.convert(Tails()))
    assert train.fusions(net) == {}
    net.load_state_dict(train.convert(net).state_dict())


def test_converting_again_changes_nothing():
    net = train.convert(Tails())
    kinds = [type(m) for m in net.modules()]
    assert [type(m) for m in train.convert(net).modules()] == kinds


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
@pytest.mark.parametrize("make", [Tails, Decoder, Yolo])
def test_compiles_whole(make, x):
    torch.manual_seed(0)
    net = train.convert(make())
    other = copy.deepcopy(net)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter itself
def test_exports_as_the_original_does(x):
    torch.manual_seed(0)
    net = Tails().eval()
    programs = [torch.export.export(m, (x,)) for m in (net, train.convert(copy.deepcopy(net)))]
    counted = [
        sorted(str(n.target) for n in p.graph.nodes if n.op == "call_function")
        for p in programs
    ]
    assert counted[0] == counted[1]


def test_saved_bytes_sees_the_fused_layers(x):
    net = train.convert(nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 4, 1)))
    with train.recompute():
        report = train.saved_bytes(net, x)
    assert report.layers == {"0": x.nbytes}


def test_subclasses_stay_what_they_are():
    net = train.convert(Subclassed())
    assert isinstance(net.bn, Subclassed.Defaults)
    assert isinstance(net.bn, train.BatchNorm2d)
    assert type(net.bn2) is Subclassed.Own


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's, which holds what follows the normalisation."""

    def __init__(self, channels, act, drop=None):
        super().__init__(channels)
        self.drop, self.act = drop or nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Acting(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = BatchNormAct2d(4, nn.SiLU(inplace=True))
        self.b = BatchNormAct2d(4, nn.ELU())
        self.c = BatchNormAct2d(4, nn.ReLU(), nn.Dropout(0.3))
        self.d = BatchNormAct2d(4, nn.Identity())

    def forward(self, x):
        return torch.relu(self.d(self.c(self.b(self.a(x)))) + x)


def test_batch_norms_that_hold_an_activation_compute_it(x, monkeypatch):
    monkeypatch.setattr(BatchNormAct2d, "__module__", "timm.layers.norm_act")
    torch.manual_seed(0)
    net = Acting()
    before = described(net)
    converted = train.convert(copy.deepcopy(net))
    assert train.fusions(converted) == {"a": "silu", "d": "addition + relu"}
    expected = two_steps(copy.deepcopy(net), x)
    assert_bits(two_steps(copy.deepcopy(converted), x), expected)
    for one in (net, converted):  # seen by who looks later, and exchanged
        doubled(one.a.act)
        one.c.act = nn.GELU()
    assert_bits(two_steps(copy.deepcopy(converted), x), two_steps(copy.deepcopy(net), x))
    assert isinstance(converted.a, BatchNormAct2d)
    assert [d[:2] for d in described(train.revert(converted))][:3] == [d[:2] for d in before][
        :3
    ]


def test_torch_fx_reads_converted_models_as_it_reads_the_original(x):
    torch.manual_seed(0)
    net = Tails().eval()
    converted = train.convert(copy.deepcopy(net))
    assert torch.equal(torch.fx.symbolic_trace(converted)(x), net(x))
