"""The kernels are the formula, within the rounding of the type."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import HealthCheck, given, settings  # noqa: E402  # after the skip

from bnfold.train import autograd, functional  # noqa: E402  # after the skip
from bnfold.train.kernels import launch, plans, reference, tiles  # noqa: E402  # after the skip
from bnfold.train.kernels.reference import Running  # noqa: E402  # after the skip
from tests.train.bounds import CORNERS, expect, storage_unit  # noqa: E402  # after the skip
from tests.train.steps import Step, small_tiles, steps  # noqa: E402  # after the skip

# numpy warns where a GPU goes on: exp(−pre) overflows to infinity, whose reciprocal is right,
# and lanes outside the tensor, which nothing stores, may be out of the storage type's range.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

# The interpreter takes a second for what a GPU does in a millisecond.
few = settings(
    max_examples=25 if torch.cuda.is_available() else 6,  # the interpreter takes seconds each
    suppress_health_check=list(HealthCheck),
)
# By whether channels are last: the smallest of several tiles, splits and blocks of channels.
FEW_VALUES = {True: (4, 35, 3, 3), False: (41, 3, 3, 3)}
SHAPES = (
    dict.fromkeys((True, False), (9, 70, 5, 5)) if torch.cuda.is_available() else FEW_VALUES
)
LARGE = Step(
    shape=SHAPES[True],
    dtype=torch.bfloat16,
    channels_last=True,
    activation="relu",
    has_residual=True,
    affine="both",
    offset=3.0,
    momentum=0.1,
    seed=3,
    tile_elements=128,
    programs=16,
    alone=0,
)
MANY = [(torch.float32, False), (torch.bfloat16, True)]
MANY += [] if functional.INTERPRETED else [(torch.float32, True), (torch.bfloat16, False)]


def train(step: Step, device: str, run=functional.fused):
    """Run a step on the kernels: output, gradients by name, running statistics, counter."""
    x, weight, bias, residual = step.make(device)
    named = {"dx": x, "dweight": weight, "dbias": bias, "dresidual": residual}
    named = {name: t.requires_grad_() for name, t in named.items() if t is not None}
    mean = torch.zeros(x.shape[1], device=device)
    var = torch.ones(x.shape[1], device=device)
    counter = torch.tensor(4, device=device)
    with small_tiles(step):
        running = Running(mean, var, counter, step.momentum)
        y = run(x, running, weight, bias, residual, 1e-5, step.kind)
        grads = torch.autograd.grad(y, list(named.values()), step.gradient(device))
    return y.detach(), dict(zip(named, grads, strict=True)), (mean, var), counter


@few
@given(step=steps())
def test_a_step_is_the_formula_and_the_same_bits_each_time(kernels, step):
    once = check(kernels, step)
    assert_same_bits(once, train(step, kernels))


@few
@given(step=steps())
def test_operators_for_compilers_give_the_same_bits(kernels, step):
    direct = train(step, kernels)
    traced = train(step, kernels, functional.fused_by_operators)
    assert_same_bits(direct, traced)


def check(device, step):
    """Raise where a step is not the formula; return what it gave."""
    y, grads, (mean, var), counter = given = train(step, device)
    x, weight, bias, residual = step.make(device)
    truth = expect(x, weight, bias, residual, step.gradient(device), 1e-5, step.kind)
    truth.y.assert_holds(y, "y")
    for name, grad in grads.items():
        getattr(truth, name).assert_holds(grad, name)
    assert y.stride() == x.stride()
    assert grads["dx"].dtype == x.dtype
    assert int(counter) == 5
    share = 0.2 if step.momentum is None else step.momentum
    for running, start, batch in ((mean, 0.0, truth.mean), (var, 1.0, truth.unbiased_var)):
        blended = (1 - share) * start + share * batch.value
        bound = share * batch.bound + 4 * 2.0**-24 * blended.abs() + 2.0**-24
        dataclasses.replace(batch, value=blended, bound=bound).assert_holds(running, "running")
    return given


@pytest.mark.parametrize(("dtype", "channels_last"), MANY)
def test_many_splits_and_many_tiles_are_the_formula(kernels, dtype, channels_last):
    step = dataclasses.replace(
        LARGE, shape=SHAPES[channels_last], dtype=dtype, channels_last=channels_last
    )
    with small_tiles(step):
        plan = plans.plan_of(step.make(kernels)[0])
        assert min(plan.splits) > 1
        assert tiles.tiles_of(plan.tile("statistics"), plan.layout) > min(plan.splits)
    check(kernels, step)


@pytest.mark.parametrize("activation", ["relu", "silu", None])
@pytest.mark.parametrize("has_residual", [False, True])
def test_one_launch_is_the_formula(kernels, activation, has_residual):
    alone = dataclasses.replace(
        LARGE, activation=activation, has_residual=has_residual, alone=99
    )
    check(kernels, alone)


def assert_same_bits(one, other):
    assert torch.equal(one[0], other[0])
    for name, grad in one[1].items():
        assert torch.equal(grad, other[1][name]), name
    for first, second in zip((*one[2], one[3]), (*other[2], other[3]), strict=True):
        assert torch.equal(first, second)


@few
@given(step=steps())
def test_the_output_can_be_rebuilt_bit_for_bit(kernels, step):
    x, weight, bias, residual = step.make(kernels)
    with small_tiles(step):
        done = launch.forward(x, weight, bias, residual, 1e-5, step.kind)
        affine = launch.Affine(done.mean, done.rstd, weight, bias)
        again = launch.normalise(x, affine, residual, step.kind, None)
    assert torch.equal(done.y, again)


@few
@given(step=steps())
def test_backward_masks_exactly_what_forward_clipped(kernels, step):
    step = dataclasses.replace(step, activation="relu", dtype=torch.float32)
    x, weight, bias, residual = step.make(kernels)
    bias = torch.zeros(x.shape[1], device=kernels, requires_grad=True)
    with small_tiles(step):
        y, _, _, _, bits = autograd.normalise(x, weight, bias, residual, 1e-5, "relu", 0.0)
        (dbias,) = torch.autograd.grad(y, bias, torch.ones_like(y))
    axes = [axis for axis in range(x.dim()) if axis != 1]
    assert torch.equal(dbias, (y > 0).sum(axes).float())
    if residual is not None:
        assert torch.equal(reference.unpack_bits(bits, x), y > 0)


@few
@given(step=steps())
def test_a_frozen_step_is_the_formula(kernels, step):
    """Of known statistics; gradients only where float32 cannot be on the other side."""
    step = dataclasses.replace(step, offset=0.0)
    x, weight, bias, residual = step.make(kernels)
    mean = torch.linspace(-1, 1, x.shape[1], device=kernels)
    var = torch.linspace(0.5, 2, x.shape[1], device=kernels)
    given = [None if t is None else t.requires_grad_() for t in (x, weight, bias, residual)]
    with small_tiles(step):
        y = functional.frozen(given[0], mean, var, *given[1:], 1e-5, step.kind)
        wide = [None if t is None else t.detach().double().requires_grad_() for t in given]
        normal = torch.nn.functional.batch_norm(
            wide[0], mean.double(), var.double(), wide[1], wide[2], eps=1e-5
        )
        pre = normal if wide[3] is None else normal + wide[3]
        corners = CORNERS.get(step.activation, ())
        clear = [((pre - corner).abs() > 1e-4).detach() for corner in corners]
        dy = step.gradient(kernels)
        dy = dy * torch.stack(clear).all(0) if clear else dy
        inputs = [t for t in given if t is not None]
        grads = torch.autograd.grad(y, inputs, dy)
    expected = step.kind(pre)
    truths = torch.autograd.grad(expected, [t for t in wide if t is not None], dy.double())
    unit = 4 * storage_unit(x.dtype)
    for actual, truth in zip((y, *grads), (expected.detach(), *truths), strict=True):
        # Sums over a channel come from values that were rounded to the type on the way.
        close = {"rtol": unit + 1e-5, "atol": (unit + 1e-5) * (1 + float(truth.abs().max()))}
        torch.testing.assert_close(actual.detach().double(), truth, **close)


def test_a_constant_channel_has_no_variance_at_all(kernels):
    x = torch.full((4, 3, 5, 5), 12345.678, device=kernels)
    y, mean, _, var, _ = autograd.normalise(x, None, None, None, 1e-5, "", 0.0)
    assert not bool(var.any())
    assert not bool(y.any())
    assert torch.equal(mean, x[0, :, 0, 0])


def test_nan_passes_and_stays_in_its_channel(kernels):
    x = torch.randn(4, 3, 5, 5, device=kernels)
    x[1, 1, 2, 2] = torch.nan
    y, *_ = autograd.normalise(x, None, None, None, 1e-5, "relu", 0.0)
    assert bool(y[:, 1].isnan().all())
    assert not bool(y[:, [0, 2]].isnan().any())


@pytest.mark.parametrize("activation", ["", "relu", "silu"])
@pytest.mark.parametrize("has_residual", [False, True])
def test_operators_keep_the_rules_of_torch(kernels, activation, has_residual):
    x = torch.randn(4, 3, 2, 2, device=kernels, requires_grad=True)
    weight = torch.randn(3, device=kernels, requires_grad=True)
    residual = torch.randn_like(x).requires_grad_() if has_residual else None
    arguments = (x, weight, None, residual, 1e-5, activation, 0.0)
    torch.library.opcheck(autograd.normalise, arguments)
    mean, var = torch.zeros(3, device=kernels), torch.ones(3, device=kernels)
    counter = torch.tensor(0, device=kernels)
    torch.library.opcheck(
        autograd.update_running, (mean, var, counter, mean + 1, var, 8, None)
    )


@pytest.mark.gpu
def test_more_than_two_to_the_31_values():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if torch.cuda.get_device_properties(0).total_memory < 40 << 30:
        pytest.skip("needs a device with 40 GiB")
    x = torch.zeros(2**25 + 8, 64, 1, 1, device="cuda", dtype=torch.bfloat16)
    x[-4:] = 2.0
    for tensor in (x, x.reshape(4, 64, -1)):
        y, mean, *_ = autograd.normalise(tensor, None, None, None, 1e-5, "", 0.0)
        assert torch.isfinite(mean).all()
        assert bool((y.flatten()[-4:] > 100).all())
        del y
