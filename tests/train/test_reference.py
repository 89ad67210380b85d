"""Activations and their slopes are torch's, and so are the kernels' own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from bnfold.train import autograd  # noqa: E402  # after the skip
from bnfold.train.kernels import reference  # noqa: E402  # after the skip
from bnfold.train.kernels.reference import ACTIVATIONS, Activation  # noqa: E402  # after the skip

# Around every corner, on it, and where an exponential is at its limits.
POINTS = torch.cat(
    [torch.linspace(-9, 9, 721), torch.tensor([-88.0, -30.0, 30.0, 88.0, 1e-6, -1e-6])]
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_are_torchs(name):
    x = POINTS.double().requires_grad_()
    kind = Activation(name, 0.125)
    (expected,) = torch.autograd.grad(kind(x).sum(), x)
    torch.testing.assert_close(kind.slope(x.detach()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # exp(88): infinity
def test_kernels_compute_them_at_every_point(kernels, name):
    """Known statistics of 0 and 1 let every point through as it is."""
    kind = Activation(name, 0.125)
    x = POINTS[:, None].to(kernels).requires_grad_()
    zero, one = torch.zeros(1, device=kernels), torch.ones(1, device=kernels)
    y, _ = autograd.FrozenBatchNorm.apply(x, zero, one, None, None, None, 0.0, kind)
    (dx,) = torch.autograd.grad(y.sum(), x)
    wide = POINTS.double()[:, None].requires_grad_()
    expected = kind(wide)
    (slope,) = torch.autograd.grad(expected.sum(), wide)
    torch.testing.assert_close(y.double().cpu(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dx.double().cpu(), slope, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", [None, *ACTIVATIONS])
def test_the_formula_of_the_gradients_is_torchs(name, known):
    torch.manual_seed(0)
    kind = Activation(name, 0.125)
    shape = (4, 3, 2, 2)
    x, residual = (torch.randn(shape, dtype=torch.float64).requires_grad_() for _ in range(2))
    weight, bias = (torch.randn(3, dtype=torch.float64).requires_grad_() for _ in range(2))
    mean, var = torch.randn(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64) + 0.5
    normal = torch.nn.functional.batch_norm(
        x, mean, var, weight, bias, training=not known, momentum=0.0
    )
    dy = torch.randn(shape, dtype=torch.float64)
    inputs = (x, weight, bias, residual)
    expected = torch.autograd.grad(kind(normal + residual), inputs, dy)
    statistics = (mean, (var + 1e-5).rsqrt()) if known else None
    actual = reference.backward(dy, x, weight, bias, residual, None, 1e-5, kind, statistics)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
