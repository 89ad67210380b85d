"""What the ranks of a distributed test do.

    python -m tests.train.ranks FILE CASE,…:WORLD …

All ranks of a world meet in FILE.WORLD, and write what they say beside it. They are forks of
one process, for to load torch takes longer than the cases. Each case compares our modules with
torch's under the same wrapper.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from bnfold import train
from bnfold.train.kernels.reference import Activation

KERNELS = os.environ.get("TRITON_INTERPRET") == "1"
if KERNELS:
    from tests.train.interpreting import patch_once_a_launch

    patch_once_a_launch()
CASES: dict[str, Callable[[int, int], None]] = {}


def case(function: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Let a function be a case."""
    CASES[function.__name__] = function
    return function


class Block(nn.Module):
    """A residual block as in a network of torch's modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


class Net(nn.Module):
    """Two blocks, and a branch that is not always used."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.extra = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.uses_extra = True

    def forward(self, x):
        y = self.blocks(x)
        return self.extra(y) if self.uses_extra else y


def pair(**settings):
    """The same net twice: torch's modules, and converted."""
    torch.manual_seed(0)
    net = Net()
    vars(net).update(settings)
    return net, train.convert(copy.deepcopy(net))


def batch(rank: int, turn: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(10 * turn + rank)
    return torch.randn(3, 8, 4, 4, generator=generator)


def step(call, optimizer, x) -> torch.Tensor:
    y = call(x)
    optimizer.zero_grad()
    y.float().square().mean().backward()
    optimizer.step()
    return y.detach()


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def alike(one: nn.Module, other: nn.Module) -> None:
    """Parameters and buffers are the same, bit by bit without kernels."""
    for (name, first), second in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        first, second = full(first), full(second)
        if KERNELS:
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(first, second), name


def trained_alike(one, other, rank: int, turns: int = 2) -> None:
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (one, other)]
    for turn in range(turns):
        for call, optimizer in zip((one, other), optimizers, strict=True):
            step(call, optimizer, batch(rank, turn))
    alike(one, other)


@case
def ddp(rank: int, world: int) -> None:  # noqa: ARG001  # a case takes both
    for settings in (
        {},
        {"broadcast_buffers": False},
        {"find_unused_parameters": True},
        {"static_graph": True},
    ):
        is_short = "find_unused_parameters" in settings
        pairs = [
            DistributedDataParallel(one, **settings) for one in pair(uses_extra=not is_short)
        ]
        trained_alike(*pairs, rank)


@case
def ddp_accumulates(rank: int, world: int) -> None:  # noqa: ARG001  # a case takes both
    one, other = (DistributedDataParallel(net) for net in pair())
    for net in (one, other):
        with net.no_sync():
            net(batch(rank, 0)).square().mean().backward()
        net(batch(rank, 1)).square().mean().backward()
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-5, atol=1e-6)
    with train.recompute():
        y = other(batch(rank, 2))
    y.square().mean().backward()
    one(batch(rank, 2)).square().mean().backward()
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-5, atol=1e-6)


def sharded(net: nn.Module, mesh, *, by_layer: bool, **settings) -> nn.Module:
    if by_layer:
        for block in net.blocks:
            fully_shard(block.bn1, mesh=mesh, **settings)
            fully_shard(block, mesh=mesh, **settings)
    return fully_shard(net, mesh=mesh, **settings)


@case
def fsdp(rank: int, world: int) -> None:
    mesh = distributed.init_device_mesh("cpu", (world,))
    for by_layer in (False, True):
        one, other = (sharded(net, mesh, by_layer=by_layer) for net in pair())
        trained_alike(one, other, rank)
        other.load_state_dict(one.state_dict())
        alike(one, other)
        late = train.convert(sharded(pair()[0], mesh, by_layer=by_layer))
        again = sharded(pair()[0], mesh, by_layer=by_layer)
        trained_alike(again, late, rank)
        train.revert(other)
        trained_alike(one, other, rank, turns=1)


@case
def fsdp_recomputes(rank: int, world: int) -> None:
    """Weights are gone between forward and backward, and gathered anew before a rebuild."""
    mesh = distributed.init_device_mesh("cpu", (world,))
    for by_layer in (False, True):
        one, other = (sharded(net, mesh, by_layer=by_layer) for net in pair())

        def recomputed(x, net=other):
            with train.recompute():
                return net(x)

        optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (one, other)]
        for call, optimizer in zip((one, recomputed), optimizers, strict=True):
            step(call, optimizer, batch(rank, 0))
        alike(one, other)


@case
def fsdp_mixed(rank: int, world: int) -> None:
    """BatchNorm in float32, as torch needs it on a CPU; all else in bfloat16."""
    mesh = distributed.init_device_mesh("cpu", (world,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)

    def wrapped(net: nn.Module) -> nn.Module:
        for module in [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]:
            fully_shard(module, mesh=mesh)
        return fully_shard(net, mesh=mesh, mp_policy=policy)

    trained_alike(*(wrapped(net) for net in pair()), rank)


@case
def fsdp_kernels(rank: int, world: int) -> None:
    mesh = distributed.init_device_mesh("cpu", (world,))
    one, other = (fully_shard(nn.Sequential(net.blocks[0]), mesh=mesh) for net in pair())
    trained_alike(one, other, rank, turns=1)
    fsdp_recomputes(rank, world)


class Reference(nn.Module):
    """BatchNorm over the batches of all ranks, one behind the other."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(4, **settings)

    def forward(self, x, residual, activation):
        y = self.bn(x)
        return Activation(activation)(y if residual is None else y + residual)


def drawn(sizes: list[int], turn: int, dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """x, residual and gradient of every rank; mean far from zero, and different on each."""
    rng = torch.Generator().manual_seed(turn)
    return [
        [
            (torch.randn(n, 4, 3, 2, generator=rng) * (r + 1) + 30 * r).to(dtype),
            *(torch.randn(n, 4, 3, 2, generator=rng).to(dtype) for _ in range(2)),
        ]
        for r, n in enumerate(sizes)
    ]


def sync_step(module, reference, sizes, rank, turn, activation, dtype, close) -> None:
    """One step on this rank, and the same in float64 on all batches together."""
    batches = drawn(sizes, turn, dtype)
    x, residual, dy = (t.clone() for t in batches[rank])
    x.requires_grad_()
    residual = residual.requires_grad_() if turn else None
    y = module(x, residual)
    wide = [torch.cat([b[i] for b in batches]).double() for i in range(3)]
    wide[0].requires_grad_()
    expected = reference(wide[0], wide[1] if turn else None, activation)
    given = list(module.parameters())
    grads = torch.autograd.grad(y, [x, *given], dy)
    wanted = torch.autograd.grad(expected, [wide[0], *reference.parameters()], wide[2])
    start = sum(sizes[:rank])
    here = slice(start, start + sizes[rank])
    torch.testing.assert_close(y.double(), expected[here], **close)
    torch.testing.assert_close(grads[0].double(), wanted[0][here], **close)
    for ours, theirs in zip(grads[1:], wanted[1:], strict=True):
        distributed.all_reduce(ours)
        torch.testing.assert_close(ours.double(), theirs, **close)
    for ours, theirs in zip(module.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, **close)


@case
def synchronised(rank: int, world: int) -> None:
    """Even, uneven and empty batches; against float64 over all of them."""
    fine = {"rtol": 1e-4, "atol": 1e-4}
    for sizes in ([2, 2, 2], [4, 1, 0], [0, 0, 3]):
        for settings in ({}, {"momentum": None}, {"affine": False}):
            for activation in (None, "relu", "silu"):
                torch.manual_seed(1)
                module = train.SyncBatchNorm(4, activation=activation, **settings)
                reference = Reference(**settings).double()
                for turn in range(2):
                    sync_step(
                        module, reference, sizes[:world], rank, turn, activation,
                        torch.float32, fine,
                    )  # fmt: skip
                module.eval(), reference.eval()
                x = drawn([2], 5, torch.float32)[0][0]
                torch.testing.assert_close(
                    module(x).double(), reference(x.double(), None, activation), **fine
                )


@case
def synchronised_kernels(rank: int, world: int) -> None:
    """As `synchronised`, by the kernels where a rank has values, and rebuilt by them."""
    fine = {"rtol": 1e-4, "atol": 1e-4}
    for sizes, activations in (([4, 1, 0], ("relu", "silu")), ([2, 2, 2], (None,))):
        for activation in activations:  # each is slow in the interpreter
            torch.manual_seed(1)
            module = train.SyncBatchNorm(4, activation=activation)
            for turn in range(2):
                reference = Reference().double()
                reference.bn.load_state_dict(module.state_dict())
                sync_step(
                    module, reference, sizes[:world], rank, turn, activation, torch.float32,
                    fine,
                )  # fmt: skip
            x, residual, dy = (t.clone() for t in drawn(sizes, 3, torch.float32)[rank])
            results = []
            for context in (nullcontext(), train.recompute()):
                inputs = [x.requires_grad_(), residual.requires_grad_()]
                with context:
                    y = module(*inputs)
                    kept = y * y  # saves the output
                results.append([y.detach(), *torch.autograd.grad(kept, inputs, dy)])
                if len(x):
                    names = str(y.grad_fn), str(y.grad_fn.next_functions)
                    assert "SynchronisedByKernels" in "".join(names)
            for plain, rebuilt in zip(*results, strict=True):
                assert torch.equal(plain, rebuilt)


@case
def synchronised_refuses(_rank: int, _world: int) -> None:
    """Kernels would read what lies behind the vectors; torch says what is wrong."""
    with pytest.raises(RuntimeError, match="should contain 8 elements not 4"):
        train.SyncBatchNorm(4)(torch.randn(2, 8, 3, 2))


@case
def synchronised_halves(rank: int, world: int) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        module, reference = train.SyncBatchNorm(4), Reference().double()
        module = module.double() if dtype is torch.float64 else module
        close = {"rtol": 1e-9, "atol": 1e-9}
        if dtype is not torch.float64:
            close = {"rtol": 0.05, "atol": 0.05}
        sync_step(module, reference, [2, 3, 1][:world], rank, 1, None, dtype, close)


@case
def sync_converted(rank: int, world: int) -> None:
    """A net of ours, made synchronous, under DDP: as the whole batch on one rank."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, 8, 1), train.BatchNorm2d(8, activation="silu"), Block(), nn.Flatten(1)
    )
    whole = copy.deepcopy(net)
    for one in (train.convert(net), whole):
        one.train()
    net = train.SyncBatchNorm.convert_sync_batchnorm(net)
    assert all(type(m) is train.SyncBatchNorm for m in net.modules() if hasattr(m, "eps"))
    parallel = DistributedDataParallel(net)
    for one, x in (
        (parallel, batch(rank, 0)), (whole, torch.cat([batch(r, 0) for r in range(world)]))
    ):  # fmt: skip
        one(x).square().mean().backward()
    for first, second in zip(net.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-5)
    for first, second in zip(net.buffers(), whole.buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@case
def recalibrated(rank: int, _world: int) -> None:
    """Ranks with more, fewer and no batches get the statistics of all of them."""
    data = [x for x, *_ in drawn([3, 1, 4, 2], 7, torch.float32)]
    mine = {0: data[:3], 1: data[3:]}.get(rank, [])
    module = train.BatchNorm2d(4)
    done = train.recalibrate(module, mine)
    everything = torch.cat(data).double()
    mean, var = module.running_mean.double(), module.running_var.double()
    torch.testing.assert_close(mean, everything.mean((0, 2, 3)), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(var, everything.var((0, 2, 3)), rtol=1e-6, atol=0)
    assert done.batches == len(mine)
    assert done.layers[""].values == everything.numel() // 4


def be_a_rank(names: list[str], rank: int, world: int, file: str) -> None:
    """Meet the other ranks, run the cases, and leave without waiting for anybody."""
    code = 1
    try:
        for stream, name in ((1, "out"), (2, "err")):
            said = os.open(f"{file}.{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, stream)
        distributed.init_process_group(
            "gloo", init_method=f"file://{file}", rank=rank, world_size=world,
            timeout=timedelta(seconds=60),
        )  # fmt: skip
        for name in names:
            CASES[name](rank, world)
            sys.stdout.write(f"{name} alike\n")
        code = 0
    except BaseException:  # noqa: BLE001  a fork must not go on with what its parent began
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking a process group down can wait for a thread that waits for it


def run(names: list[str], world: int, file: str) -> bool:
    """Start the ranks of a world and wait for all of them; return whether one failed."""
    ranks = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            be_a_rank(names, rank, world, file)
        ranks.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in ranks]
    return any(ended)


def main() -> None:
    """Run one world after the other."""
    torch.set_num_threads(1)  # and so no thread was started that a fork would lack
    warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has a new name
    importlib.import_module("torch._dynamo")  # each rank would load it
    file, *worlds = sys.argv[1:]
    failed = []
    for words in worlds:
        names, world = words.split(":")
        failed.append(run(names.split(","), int(world), f"{file}.{world}"))
    sys.exit(any(failed))


if __name__ == "__main__":
    main()
