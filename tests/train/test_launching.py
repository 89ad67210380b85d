"""Launches as a device would get them: compiled by triton for what they are called with."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton", reason="triton is not installed: nothing to compile with")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

from benchmarks import no_device  # noqa: E402  # after the skip
from bnfold.train import functional  # noqa: E402  # after the skip
from bnfold.train.kernels import tiles  # noqa: E402  # after the skip
from bnfold.train.kernels.launch import (  # noqa: E402  # after the skip
    gradient_call,
    normalise_call,
    statistics_call,
    sums_call,
)
from bnfold.train.kernels.layout import Planes, Rows  # noqa: E402  # after the skip
from bnfold.train.kernels.plans import Plan  # noqa: E402  # after the skip
from bnfold.train.kernels.reference import Activation, Running  # noqa: E402  # after the skip

SEVERAL = {"rows": ["rows_statistics", "finish_statistics", "rows_normalise"]}
SEVERAL["planes"] = [name.replace("rows", "planes") for name in SEVERAL["rows"]]
SEVERAL_BACK = {"rows": ["rows_sums", "finish_sums", "rows_gradient"]}
SEVERAL_BACK["planes"] = [name.replace("rows", "planes") for name in SEVERAL_BACK["rows"]]


@pytest.fixture
def log():
    """What is compiled and launched, with plans that nobody else has."""
    same = tiles.Table(tiles.packaged().entries, tiles.packaged().sources)
    with no_device.compiled_only() as kept, tiles.using(same):
        yield kept


def step(side, images, dtype=torch.bfloat16, *, momentum=0.1, has_residual=True, at=0):
    """Forward and backward of one layer, with or without memory that is aligned."""
    shape = (images, 32, 16, 16)
    count = torch.Size(shape).numel()

    def tensor():
        flat = torch.zeros(count + at, dtype=dtype)[at:]
        if side == "planes":
            return flat.view(shape)
        return flat.view(images, 16, 16, 32).permute(0, 3, 1, 2)

    x, residual = tensor().requires_grad_(), tensor().requires_grad_()
    weight, bias = torch.ones(32, requires_grad=True), torch.zeros(32, requires_grad=True)
    running = Running(torch.zeros(32), torch.ones(32), torch.tensor(0), momentum)
    added = residual if has_residual else None
    y = functional.fused(x, running, weight, bias, added, 1e-5, Activation("relu"))
    y.backward(tensor())


@pytest.mark.parametrize("side", ["rows", "planes"])
def test_a_large_step_is_three_launches_each_way(log, side):
    step(side, 300)
    assert log.names == [*SEVERAL[side], *SEVERAL_BACK[side]]


@pytest.mark.parametrize("side", ["rows", "planes"])
def test_a_small_step_is_one_launch_each_way(log, side):
    step(side, 2)
    assert log.names == [f"{side}_alone", f"{side}_backward_alone"]


def test_the_mean_of_all_batches_takes_one_more(log):
    step("rows", 2, momentum=None, has_residual=False)
    assert log.names == ["rows_alone", "update_running", "rows_backward_alone"]


@pytest.mark.parametrize("images", [2, 300])
def test_the_second_step_passes_what_the_first_did(log, images):
    """It goes around triton's own inspection of arguments; nothing may get lost."""
    step("rows", images)
    compiled, first = set(log.compiled), list(log.launches)
    log.launches.clear()
    step("rows", images)
    assert log.compiled == compiled
    for before, after in zip(first, log.launches, strict=True):
        assert (before.name, before.grid) == (after.name, after.grid)
        for one, other in zip(before.arguments, after.arguments, strict=True):
            if isinstance(one, torch.Tensor):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
            else:
                assert one == other


def test_memory_that_is_not_aligned_gets_kernels_of_its_own(log):
    step("planes", 2, has_residual=False)
    aligned = len(log.compiled)
    step("planes", 2, has_residual=False, at=1)
    assert len(log.compiled) == 2 * aligned
    step("planes", 2, torch.float32, has_residual=False)
    assert len(log.compiled) == 3 * aligned
    step("planes", 2, has_residual=False)
    step("planes", 2, has_residual=False, at=1)
    assert len(log.compiled) == 3 * aligned


def test_a_frozen_step_is_one_pass_each_way(log):
    x = torch.zeros(2, 32, 8, 8, requires_grad=True)
    weight = torch.ones(32, requires_grad=True)
    mean, var = torch.zeros(32), torch.ones(32)
    kind = Activation("relu")
    functional.frozen(x, mean, var, weight, None, None, 1e-5, kind).sum().backward()
    forwards = ["invert_deviation", "planes_normalise"]
    assert log.names == [*forwards, "planes_sums", "finish_sums"]
    log.launches.clear()
    functional.frozen(x, mean, var, weight.detach(), None, None, 1e-5, kind).sum().backward()
    assert log.names == [*forwards, "planes_sums"]


@pytest.mark.parametrize(
    "layout",
    [
        Planes(1, 1, 2**32),  # one volume, larger than anyone's
        Planes(2**20, 64, 49),
        Planes(1, 2**22, 2),
        Rows(2**26, 64),
        Rows(2, 2**22),
        Rows(2**32, 1),
    ],
    ids=str,
)
def test_no_grid_is_larger_than_a_device_takes(layout):
    plan = Plan(layout, 2, 90, 132, tiles.packaged())
    for make in (statistics_call, sums_call, normalise_call, gradient_call):
        settings = () if make is statistics_call else ("relu", 0.0)
        grid = plan.call(make, *settings).grid
        assert all(g <= most for g, most in zip(grid, no_device.MOST, strict=True)), make
