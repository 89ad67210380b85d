"""The modules are torch's BatchNorm, then residual, then activation, whatever is done."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  # after the skip
from torch.utils.checkpoint import checkpoint  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip
from bnfold.errors import UsageError  # noqa: E402  # after the skip
from bnfold.train import functional  # noqa: E402  # after the skip
from bnfold.train.kernels.reference import Activation  # noqa: E402  # after the skip

PAIRS = [
    (train.BatchNorm1d, nn.BatchNorm1d, (5, 4)),
    (train.BatchNorm1d, nn.BatchNorm1d, (5, 4, 3)),
    (train.BatchNorm2d, nn.BatchNorm2d, (3, 4, 5, 2)),
    (train.BatchNorm3d, nn.BatchNorm3d, (2, 4, 2, 3, 2)),
]
SETTINGS = [
    {},
    {"momentum": None},
    {"track_running_stats": False},
    {"affine": False, "eps": 1e-3},
]
# The interpreter takes a second for each; the drawn steps of test_kernels.py do the rest.
ACTIVATIONS = ["relu"]
ACTIVATIONS += [] if functional.INTERPRETED else [None, "silu", "leaky_relu", "gelu"]
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
# numpy warns about lanes outside the tensor, which nothing stores.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


class Expected(nn.Module):
    """What a module of ours must be: torch's, an addition, an activation."""

    def __init__(self, bn, activation):
        super().__init__()
        self.bn, self.activation = bn, Activation(activation)

    def forward(self, x, residual=None):
        y = self.bn(x)
        return self.activation(y if residual is None else y + residual)


class Net(nn.Module):
    """Two convolutions, the second with a residual."""

    def __init__(self, **settings):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = train.BatchNorm2d(8, activation="relu", **settings)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = train.BatchNorm2d(8, activation="relu", **settings)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return self.bn2(self.conv2(y), y)


def net(device, **settings):
    torch.manual_seed(1)
    return Net(**settings).to(device), torch.randn(4, 3, 6, 6).to(device)


def step(call, module, x):
    """Output, gradients and buffers after one training step."""
    module.zero_grad()
    y = call(x)
    y.square().mean().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    return [y.detach(), *grads, *(b.clone() for b in module.buffers())]


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, **CLOSE)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("ours", "torchs", "shape"), PAIRS)
def test_two_steps_and_an_evaluation_are_torchs(
    device, ours, torchs, shape, settings, activation
):
    torch.manual_seed(0)
    mine = ours(4, activation=activation, **settings).to(device)
    theirs = Expected(torchs(4, **settings).to(device), activation)
    for turn in range(3):
        mine.train(turn < 2)
        theirs.train(turn < 2)
        x = (torch.randn(shape) * 2 + 3).to(device).requires_grad_()
        residual = torch.randn(shape).to(device).requires_grad_() if turn % 2 else None
        y, expected = mine(x, residual), theirs(x, residual)
        torch.testing.assert_close(y, expected, **CLOSE)
        inputs = [x, *mine.parameters(), *([] if residual is None else [residual])]
        others = [x, *theirs.parameters(), *([] if residual is None else [residual])]
        dy = torch.randn(shape).to(device)
        assert_same(
            torch.autograd.grad(y, inputs, dy), torch.autograd.grad(expected, others, dy)
        )
        assert_same(mine.buffers(), theirs.buffers())
    assert mine.state_dict().keys() == theirs.bn.state_dict().keys()


@pytest.mark.skipif(functional.INTERPRETED, reason="kernels, not torch's operators")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_on_a_cpu_the_numbers_are_torchs_own(momentum):
    mine = train.BatchNorm2d(4, activation="relu", momentum=momentum)
    theirs = nn.BatchNorm2d(4, momentum=momentum)
    for _ in range(3):
        x = torch.randn(3, 4, 5, 5)
        assert torch.equal(mine(x), torch.relu(theirs(x)))
        assert torch.equal(mine.running_var, theirs.running_var)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_types_keep_type_and_layout(device, dtype, channels_last):
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(4, 16, 6, 6).to(device, dtype).to(memory_format=form).requires_grad_()
    y = train.BatchNorm2d(16, activation="relu").to(device)(x)
    y.float().sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert y.is_contiguous(memory_format=form)


def test_autocast_leaves_the_type_of_the_input(device):
    model, x = net(device)
    with torch.autocast(device, torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (3, 4, 0, 3)])
def test_empty_batches_are_torchs(device, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    mine = train.BatchNorm2d(4, activation="relu").to(device)
    theirs = nn.BatchNorm2d(4).to(device)
    assert mine(x).shape == theirs(x).shape == shape
    mine(x).sum().backward()
    theirs(x)
    assert x.grad.shape == shape
    for ours, other in zip(mine.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(ours, other, equal_nan=True)


def test_a_batch_of_one_value_is_refused_as_by_torch(device):
    message = "Expected more than 1 value per channel"
    with pytest.raises(ValueError, match=message):
        train.BatchNorm1d(4).to(device)(torch.randn(1, 4, device=device))
    with pytest.raises(ValueError, match="expected 4D input"):
        train.BatchNorm2d(4).to(device)(torch.randn(2, 4, device=device))
    with pytest.raises(ValueError, match="activation must be"):
        train.BatchNorm2d(4, activation="tanh")


def test_an_activation_in_the_place_of_eps_is_noticed():
    with pytest.raises(TypeError, match="activation='relu'"):
        train.BatchNorm2d(4, "relu")


@pytest.mark.parametrize("tensor", ["broadcast", "wider", "strided"])
def test_any_residual_that_torch_adds(device, tensor):
    x = torch.randn(3, 4, 5, 5, device=device)
    residual = {
        "broadcast": torch.randn(3, 4, 1, 1, device=device),
        "wider": torch.randn(3, 4, 5, 5, device=device, dtype=torch.float64),
        "strided": torch.randn(3, 5, 5, 4, device=device).permute(0, 3, 1, 2),
    }[tensor]
    mine, theirs = train.BatchNorm2d(4, activation="relu"), nn.BatchNorm2d(4)
    y, expected = mine.to(device)(x, residual), torch.relu(theirs.to(device)(x) + residual)
    torch.testing.assert_close(y, expected, **CLOSE)


@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize(
    ("residual", "error", "said"),
    [
        (torch.ones(3, 5, 5, 5), ValueError, r"\(3, 5, 5, 5\).*\(3, 4, 5, 5\)"),
        (torch.ones(3, 4, 5, 5, device="meta"), ValueError, "the residual is on meta"),
        ("relu", TypeError, "activation='relu'"),
    ],
    ids=["shape", "device", "name"],
)
def test_a_residual_that_cannot_be_added_changes_nothing(
    device, residual, error, said, evaluates
):
    bn = train.BatchNorm2d(4).to(device).train(not evaluates)
    with pytest.raises(error, match=said):
        bn(torch.randn(3, 4, 5, 5, device=device), residual)
    assert bn.num_batches_tracked.item() == 0
    assert bn.running_mean.eq(0).all()


def test_inputs_in_any_layout(device):
    x = torch.randn(6, 3, 8, 5, device=device).transpose(0, 2)[:, :, ::2]
    mine, theirs = train.BatchNorm2d(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(mine.to(device)(x), theirs.to(device)(x), **CLOSE)


def test_frozen_uses_the_running_statistics_and_keeps_them(device):
    mine = train.BatchNorm2d(4, frozen=True, activation="relu").to(device)
    mine.running_mean += 1
    x = torch.randn(3, 4, 5, 5, device=device, requires_grad=True)
    expected = torch.relu(nn.functional.batch_norm(x, mine.running_mean, mine.running_var))
    before = [b.clone() for b in mine.buffers()]
    torch.testing.assert_close(mine(x), expected)
    assert_same(mine.buffers(), before)


def test_state_dicts_go_both_ways(device):
    mine, theirs = train.BatchNorm2d(4, activation="silu"), nn.BatchNorm2d(4)
    theirs(torch.randn(3, 4, 5, 5))
    mine.load_state_dict(theirs.state_dict())
    nn.BatchNorm2d(4).load_state_dict(mine.to(device).state_dict())
    assert_same(mine.cpu().buffers(), theirs.buffers())
    assert isinstance(mine, nn.BatchNorm2d)
    assert "activation='silu'" in repr(mine)


@pytest.mark.parametrize("settings", [{"activation": "relu"}, {"frozen": True}], ids=str)
def test_torchs_sync_batch_norm_does_not_drop_what_it_has_no_place_for(settings):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), train.BatchNorm2d(4, **settings))
    with pytest.raises(UsageError, match=r"call bnfold\.train\.convert_sync_batchnorm"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(model[1]) is train.BatchNorm2d
    assert not hasattr(model[1], "qconfig")
    model[1].qconfig = "kept"
    assert copy.deepcopy(model)[1].qconfig == "kept"


def test_torchs_sync_batch_norm_takes_what_it_has_a_place_for():
    model = train.convert(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    other = nn.SyncBatchNorm.convert_sync_batchnorm(model).eval()
    assert type(other[0]) is nn.SyncBatchNorm
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(other(x), torch.relu(nn.BatchNorm2d(4).eval()(x)))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_train_alike(device, again):
    model, x = net(device)
    other = again(model)
    assert_same(step(model, model, x), step(other, other, x))
    assert other.bn.activation == "relu"


@pytest.mark.parametrize("settings", [{}, {"momentum": None}], ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler itself
def test_compiles_whole(device, settings):
    model, x = net(device, **settings)
    other = copy.deepcopy(model)
    torch._dynamo.reset()
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert_same(step(model, model, x), step(compiled, other, x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter itself
def test_evaluation_exports_as_batch_norm(device):
    model, x = net(device)
    program = torch.export.export(model.eval(), (x,))
    called = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert called.count("aten.batch_norm.default") == 2
    assert not [name for name in called if "bnfold" in name]
    torch.testing.assert_close(program.module()(x), model(x), **CLOSE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's exporter itself
def test_training_exports_too(device):
    model, x = net(device)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), copy.deepcopy(model)(x), **CLOSE)


def test_checkpointing_gives_the_same_gradients(device):
    model, x = net(device)
    other = copy.deepcopy(model)
    count = 1 + len(list(model.parameters()))
    plain = step(model, model, x)
    again = step(lambda v: checkpoint(other, v, use_reentrant=False), other, x)
    assert_same(plain[:count], again[:count])


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
@pytest.mark.parametrize("has_residual", [False, True])
def test_gradients_of_gradients_are_torchs(device, activation, has_residual):
    torch.manual_seed(2)
    x = torch.randn(4, 3, 2, 2).to(device).requires_grad_()
    residual = torch.randn(4, 3, 2, 2).to(device).requires_grad_() if has_residual else None
    inputs = [x] if residual is None else [x, residual]
    mine = train.BatchNorm2d(3, activation=activation).to(device)
    theirs = Expected(nn.BatchNorm2d(3).to(device), activation)
    results = []
    for module in (mine, theirs):
        y = module(x, residual)
        first = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in first), inputs))
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-3)


def test_training_gives_the_same_loss_curve(device):
    torch.manual_seed(3)
    mine, _ = net(device)
    theirs = nn.ModuleDict({"bn": nn.BatchNorm2d(8), "bn2": nn.BatchNorm2d(8)}).to(device)
    conv, conv2 = copy.deepcopy(mine.conv), copy.deepcopy(mine.conv2)

    def torchs(x):
        y = torch.relu(theirs["bn"](conv(x)))
        return torch.relu(theirs["bn2"](conv2(y)) + y)

    parameters = [*theirs.parameters(), *conv.parameters(), *conv2.parameters()]
    losses = []
    for call, weights in ((mine, list(mine.parameters())), (torchs, parameters)):
        torch.manual_seed(4)
        optimizer, curve = torch.optim.SGD(weights, lr=0.05), []
        for _ in range(3 if functional.INTERPRETED else 8):
            x = torch.randn(8, 3, 6, 6).to(device)
            loss = (call(x).mean(1) - x.mean(1)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        losses.append(curve)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


PARALLEL = """
import copy, os, sys, torch
from tests.train.test_modules import assert_same, net, step
device, rendezvous = sys.argv[1:]
model, x = net(device)
other = copy.deepcopy(model)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1
)
parallel = torch.nn.parallel.DistributedDataParallel(other)
assert_same(step(model, model, x), step(parallel, other, x))
print("alike", flush=True)
os._exit(0)  # taking a process group down can wait for a thread that waits for this one
"""


def test_distributed_data_parallel_trains_alike(device, tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    if device == "cpu" and not functional.INTERPRETED:
        pytest.skip("test_distributed.py has it, on two ranks")
    done = subprocess.run(
        [sys.executable, "-c", PARALLEL, device, str(tmp_path / "rendezvous")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.stdout.strip() == "alike", done.stderr[-3000:]
