"""Test the tests of the kernels: faults in their source are seen, and the kernels have none.

TRITON_INTERPRET=1 pytest tests/train/test_kernel_mutants.py -m "thorough or not gpu"
"""

from __future__ import annotations

import dataclasses
import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from bnfold.train import functional  # noqa: E402  # after the skip
from bnfold.train.kernels import launch, tiles  # noqa: E402  # after the skip
from bnfold.train.kernels.reference import Activation, Running  # noqa: E402  # after the skip
from tests.train import test_kernels  # noqa: E402  # after the skip
from tests.train.kernel_mutants import MUTANTS, at_work  # noqa: E402  # after the skip
from tests.train.steps import Step, small_tiles  # noqa: E402  # after the skip

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
FEW = 15  # each so many-th mutant is judged in the quick run, all by `pytest -m thorough`
ROWS = Step(
    shape=(4, 21, 3, 3),
    dtype=torch.float32,
    channels_last=True,
    activation="relu",
    has_residual=True,
    affine="both",
    offset=1e4,
    momentum=0.1,
    seed=5,
    tile_elements=128,
    programs=4,
    alone=0,
)
WIDE = dataclasses.replace(  # planes of two tiles
    ROWS, shape=(4, 3, 1, 70), seed=7, tile_elements=64, programs=16
)
SETTINGS = (
    {},
    {"activation": "silu", "affine": "weight", "momentum": None, "offset": 0.0},
    {"activation": "leaky_relu", "has_residual": False, "offset": 100.0, "affine": "none"},
)
STEPS = [
    dataclasses.replace(base, channels_last=last, alone=alone, **settings)
    for settings in SETTINGS
    for base, last in ((ROWS, True), (ROWS, False), (WIDE, False))
    for alone in (0, 99)
]
JUDGES = [
    test_kernels.test_backward_masks_exactly_what_forward_clipped.hypothesis.inner_test,
    test_kernels.test_a_frozen_step_is_the_formula.hypothesis.inner_test,
]


def judge(device, step):
    """Raise where the kernels do not compute a step, or touch what is not theirs."""
    test_kernels.check(device, step)
    if step.alone == 0:
        for other in JUDGES:
            other(device, step)


def judge_corners(device):
    """Values on a corner, and beyond the last one."""
    x = torch.randn(5, 3, 40, device=device)
    x[0, :, 0] = 60.0
    weight = torch.tensor([1.0, 0.0, -1.0], device=device)
    dy = torch.randn_like(x)
    for name in ("relu", "relu6", "leaky_relu"):
        kind, results = Activation(name, 0.125), []
        for residual in (None, torch.zeros_like(x)):
            given = [x.clone(), weight.clone(), torch.zeros_like(weight), residual]
            given = [None if t is None else t.requires_grad_() for t in given]
            running = Running(None, None, None, 0.1)
            y = functional.fused(given[0], running, *given[1:], 1e-5, kind)
            results.append(torch.autograd.grad(y, given[:3], dy))
        wide = [t.detach().double().requires_grad_() for t in (x, weight, 0 * weight)]
        y = torch.nn.functional.batch_norm(wide[0], None, None, *wide[1:], training=True)
        results.append(torch.autograd.grad(kind(y), wide, dy.double()))
        for one, other, truth in zip(*results, strict=True):
            torch.testing.assert_close(one.double(), truth, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(other.double(), truth, rtol=1e-4, atol=1e-4)


def judge_other_strides(device):
    """The gradient of the output and a residual may lie as they like."""
    steps = [s for s in STEPS if s.shape == ROWS.shape and s.has_residual][:2]
    for step in steps:
        x, weight, bias, residual = step.make(device)
        dy = step.gradient(device)
        results = []
        for given, added in ((dy, residual), (relaid(dy), relaid(residual))):
            leaf = x.detach().requires_grad_()
            mean, var = torch.zeros(21, device=device), torch.ones(21, device=device)
            running = Running(mean, var, None, 0.1)
            with small_tiles(step):
                y = functional.fused(leaf, running, weight, bias, added, 1e-5, step.kind)
                known = functional.frozen(leaf, mean, var, weight, bias, None, 1e-5, step.kind)
                grads = [torch.autograd.grad(one, leaf, given)[0] for one in (y, known)]
            results.append([y.detach(), mean, *grads])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def relaid(tensor):
    """The same values in the other order."""
    if tensor.is_contiguous():
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor.contiguous()


def judge_many_channels(device):
    """Vectors are longer than what one program takes of them."""
    x = torch.randn(3, 1500, device=device)
    mean, var = torch.zeros(1500, device=device), torch.ones(1500, device=device)
    running = Running(mean, var, torch.tensor(1, device=device), None)
    functional.fused(x, running, None, None, None, 1e-5, Activation(None))
    torch.testing.assert_close(mean, x.mean(0) / 2)
    leaf = x.requires_grad_()
    y = functional.frozen(leaf, mean, var, None, None, None, 1e-5, Activation(None))
    torch.testing.assert_close(y, (leaf - mean) * (var + 1e-5).rsqrt())


def judge_nan(device):
    """A NaN goes on to the gradient, as in torch."""
    for with_residual in (False, True):
        x = torch.randn(4, 3, 5, device=device)
        x[1, 1, 2] = math.nan
        leaf, running = x.requires_grad_(), Running(None, None, None, 0.1)
        added = torch.zeros_like(x) if with_residual else None
        y = functional.fused(leaf, running, None, None, added, 1e-5, Activation("relu"))
        (dx,) = torch.autograd.grad(y.sum(), leaf)
        assert bool(dx[:, 1].isnan().all())
        if with_residual:
            added.requires_grad_()
            y = functional.fused(x, running, None, None, added, 1e-5, Activation("relu"))
            (dadded,) = torch.autograd.grad(y.sum(), added)
            assert bool((dadded[:, 1] == 1).all())


def judge_different_tiles(device):
    """Each kernel has a tile of its own."""
    several = {
        kernel: tiles.Launch(64 << (place % 3), 64, 4, 16, 1 + place % 2)
        for place, kernel in enumerate(tiles.KERNELS)
    }
    several |= dict.fromkeys(
        ("forward_alone", "backward_alone"), tiles.Launch(64, 64, 4, 1, 0)
    )
    step = dataclasses.replace(ROWS, offset=3.0)
    x, weight, bias, residual = step.make(device)
    running = Running(torch.zeros(21, device=device), torch.ones(21, device=device), None, 1.0)
    with tiles.using(tiles.uniform(several)):
        functional.fused(x, running, weight, bias, residual, 1e-5, step.kind)
    torch.testing.assert_close(running.mean, x.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(running.var, x.var((0, 2, 3)), rtol=1e-5, atol=1e-5)


OTHERS = (
    judge_corners,
    judge_nan,
    judge_different_tiles,
    judge_other_strides,
    judge_many_channels,
)


class Fenced:
    """torch, but its memory lies between fences, and is no number before it is written."""

    FENCE = 2048  # values: more than a row of any step

    def __init__(self):
        self.flats = []

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, shape, dtype, device):
        size = shape if isinstance(shape, int) else math.prod(shape)
        flat = torch.full(
            (size + 2 * self.FENCE,), self.filler(dtype), dtype=dtype, device=device
        )
        self.flats.append(flat)
        return flat[self.FENCE : -self.FENCE].view(shape)

    def empty_like(self, x):
        inside = self.empty(x.numel(), x.dtype, x.device)
        return inside.as_strided(x.shape, x.stride())

    @staticmethod
    def filler(dtype):
        return math.nan if dtype.is_floating_point else 0xA5

    def assert_whole(self):
        for flat in self.flats:
            ends = torch.cat([flat[: self.FENCE], flat[-self.FENCE :]])
            as_it_was = ends.isnan() if ends.is_floating_point() else ends == 0xA5
            assert bool(as_it_was.all()), f"{flat.dtype}: written outside"
        self.flats.clear()


def sentence(device, module):
    """Return the first fault that is found, or None."""
    fenced = Fenced()
    module.update_running_call.cache_clear()
    original, module.torch = module.torch, fenced
    try:
        for other in OTHERS:
            other(device)
            fenced.assert_whole()
        for step in STEPS:
            judge(device, step)
            fenced.assert_whole()
    except AssertionError as found:  # anything else would be a fault of the mutant's making
        return str(found) or "an assertion"
    finally:
        module.torch = original
        module.update_running_call.cache_clear()
    return None


def test_the_kernels_themselves_are_acquitted(kernels):
    assert sentence(kernels, launch) is None


def thorough_but_few(mutants):
    return [
        pytest.param(mutant, id=f"{mutant.file}: {mutant.name}".replace(" ", "_"),
                     marks=[pytest.mark.thorough] if place % FEW else [])
        for place, mutant in enumerate(mutants)
    ]  # fmt: skip


@pytest.mark.parametrize("mutant", thorough_but_few(MUTANTS))
def test_a_fault_is_seen(kernels, mutant, tmp_path):
    with at_work(mutant, tmp_path) as module, tiles.using(same_table()):
        assert sentence(kernels, module) is not None


def same_table():
    """The packaged table, without the plans that others made from it."""
    return tiles.Table(tiles.packaged().entries, tiles.packaged().sources)


def test_every_fault_is_another_program():
    sources = {(mutant.file, mutant.source()) for mutant in MUTANTS}
    assert len(sources) == len(MUTANTS) > 40
