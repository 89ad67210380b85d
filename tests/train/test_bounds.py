"""The judge of the kernels is itself judged: what is slightly wrong is convicted by name."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from bnfold.train.kernels.reference import Activation  # noqa: E402  # after the skip
from tests.train.bounds import expect  # noqa: E402  # after the skip

NAMES = ("y", "dx", "dweight", "dbias", "dresidual", "mean", "unbiased_var")


@pytest.fixture
def truth():
    rng = torch.Generator().manual_seed(5)
    x, dy, residual = (torch.randn(4, 6, 5, 5, generator=rng) for _ in range(3))
    weight, bias = torch.randn(6, generator=rng), torch.randn(6, generator=rng)
    return expect(x + 100, weight, bias, residual, dy, 1e-5, Activation("relu"))


@pytest.mark.parametrize("name", NAMES)
def test_bounds_acquit_what_is_rounded_once(truth, name):
    getattr(truth, name).assert_holds(getattr(truth, name).value.float(), name)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_convict_one_channel_off_by_a_thousandth(truth, name):
    spoiled = getattr(truth, name).value.clone()
    channel = spoiled[3] if spoiled.dim() == 1 else spoiled[:, 3]
    channel *= 1.001
    with pytest.raises(AssertionError, match=name):
        getattr(truth, name).assert_holds(spoiled, name)


def test_bounds_convict_a_variance_as_a_difference_of_moments():
    x = torch.randn(8, 2, 9, 9, generator=torch.Generator().manual_seed(6)) + 1e3
    truth = expect(x, None, None, None, torch.ones_like(x), 1e-5, Activation(None))
    axes = (0, 2, 3)
    naive = (x * x).mean(axes) - x.mean(axes) ** 2
    with pytest.raises(AssertionError, match="variance"):
        truth.unbiased_var.assert_holds(naive * 648 / 647, "variance")
