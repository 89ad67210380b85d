"""Whatever the kernels are given, and whoever calls them: as torch, or a clear refusal."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from torch.autograd import forward_ad  # noqa: E402  # after the skip

from bnfold import train  # noqa: E402  # after the skip
from bnfold.train import functional  # noqa: E402  # after the skip
from bnfold.train.kernels import launch, plans, tiles  # noqa: E402  # after the skip
from bnfold.train.kernels.layout import Planes  # noqa: E402  # after the skip

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture
def x(kernels):
    return torch.randn(4, 8, 3, 3, device=kernels)


def differentiated(run, x, *others):
    """Return what a function gives, and the gradients of what it is given."""
    inputs = [t.detach().requires_grad_() for t in (x, *others)]
    y = run(*inputs)
    return y.detach(), torch.autograd.grad(y.square().sum(), inputs)


@pytest.mark.parametrize("features", [4, 16])
@pytest.mark.parametrize("settings", [{}, {"track_running_stats": False}], ids=str)
def test_a_module_of_other_channels_is_refused(x, features, settings):
    """A kernel would write behind the running statistics."""
    bn = train.BatchNorm2d(features, **settings).to(x.device)
    with pytest.raises(RuntimeError, match=f"should contain 8 elements not {features}"):
        bn(x)
    assert not bool(bn.state_dict().get("num_batches_tracked", torch.zeros(()))), "not counted"


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
@pytest.mark.parametrize("training", [True, False])
def test_a_vector_of_other_channels_is_refused(x, name, training):
    vectors = {"running_mean": torch.zeros(8), "running_var": torch.ones(8)}
    vectors |= {name: torch.ones(9)}
    given = {n: v.to(x.device) for n, v in vectors.items()}
    with pytest.raises(RuntimeError, match=f"{name} should contain 8 elements not 9"):
        functional.batch_norm(x.requires_grad_(), **given, training=training)


@pytest.mark.parametrize("training", [True, False])
def test_vectors_with_strides_are_read_where_they_are(x, training):
    weight = torch.linspace(-1, 1, 16, device=x.device)[::2]
    bias = torch.randn(1, device=x.device).expand(8)
    mean = torch.randn(8, 2, device=x.device)[:, 0]
    var = torch.rand(8, 2, device=x.device)[:, 0] + 0.5
    kept = [mean.clone(), var.clone()]

    def ours(x, weight, bias):
        return functional.batch_norm(x, mean, var, weight, bias, training=training)

    def torchs(x, weight, bias):
        return torch.nn.functional.batch_norm(x, *kept, weight, bias, training)

    torch.testing.assert_close(
        differentiated(ours, x, weight, bias), differentiated(torchs, x, weight, bias), **CLOSE
    )
    torch.testing.assert_close([mean, var], kept, **CLOSE)


@pytest.mark.gpu
def test_another_device_is_refused_and_a_counter_may_be_elsewhere(x):
    if not x.is_cuda:
        pytest.skip("no CUDA device")
    for name in ("weight", "bias"):
        with pytest.raises(RuntimeError, match="same device"):
            functional.batch_norm(x, None, None, **{name: torch.ones(8)}, training=True)
    counter = torch.tensor(3)
    mean, var = torch.zeros(8, device=x.device), torch.ones(8, device=x.device)
    functional.batch_norm(x, mean, var, training=True, num_batches_tracked=counter)
    assert int(counter) == 4
    with pytest.raises(RuntimeError, match="device"):
        functional.batch_norm(x, mean, var, training=True, residual=x.cpu())


def pair(x, **settings):
    """Our layer and torch's."""
    both = (train.BatchNorm2d(8, **settings), torch.nn.BatchNorm2d(8, **settings))
    return [bn.to(x.device) for bn in both]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_transforms_of_functions_are_torchs(x):
    """Custom operators have no rule for them, and no tangent."""
    ours, torchs = pair(x, track_running_stats=False)
    tangent, many = torch.randn_like(x), torch.randn(2, *x.shape, device=x.device)
    for transform in (
        lambda bn: torch.func.jvp(bn, (x,), (tangent,)),
        lambda bn: torch.func.grad(lambda t: bn(t).pow(3).sum())(x),
        lambda bn: torch.func.vmap(bn)(many),
        lambda bn: torch.func.hessian(lambda t: bn(t).pow(3).sum())(x[:2, :, :1, :1]),
    ):
        torch.testing.assert_close(transform(ours), transform(torchs), **CLOSE)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_forward_mode_is_torchs(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.randn_like(x))
        one, other = (forward_ad.unpack_dual(bn(dual)) for bn in pair(x))
    torch.testing.assert_close(one, other, **CLOSE)
    assert bool(one.tangent.any())


def test_numbers_may_be_integers(x):
    for numbers in ({"eps": 1}, {"momentum": 1}, {"momentum": 0}):
        one, other = pair(x, **numbers)
        torch.testing.assert_close(one(x), other(x), **CLOSE)
        torch.testing.assert_close(one.state_dict(), other.state_dict(), **CLOSE)
    for slope in (0, 1):
        y = functional.batch_norm(
            x, None, None, training=True, activation="leaky_relu", negative_slope=slope
        )
        normal = torch.nn.functional.batch_norm(x, None, None, training=True)
        expected = torch.nn.functional.leaky_relu(normal, slope)
        torch.testing.assert_close(y, expected, **CLOSE)


@pytest.mark.parametrize("made_inside", [False, True])
def test_inference_mode_counts_too(x, made_inside):
    bn = train.BatchNorm2d(8).to(x.device)
    with torch.inference_mode():
        bn = train.BatchNorm2d(8).to(x.device) if made_inside else bn
        bn(x)
        assert int(bn.num_batches_tracked) == 1
        torch.testing.assert_close(bn.running_mean, 0.1 * x.mean((0, 2, 3)), **CLOSE)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_a_graph_is_walked_twice_and_its_tensors_moved_away(x, activation):
    bn = train.BatchNorm2d(8, activation=activation).to(x.device)
    leaf, residual = x.requires_grad_(), torch.randn_like(x).requires_grad_()
    with torch.autograd.graph.save_on_cpu(), torch.autograd.detect_anomaly(check_nan=True):
        loss = bn(leaf, residual).square().sum()
        loss.backward(retain_graph=True)
        once = [t.grad.clone() for t in (leaf, residual, *bn.parameters())]
        loss.backward()
    for first, tensor in zip(once, (leaf, residual, *bn.parameters()), strict=True):
        assert torch.equal(tensor.grad, 2 * first)


def test_a_gradient_may_be_one_number_for_all_values(x):
    """The gradient of a sum has strides of zero; a residual may have them, too."""
    wide = torch.randn(1, device=x.device).expand(x.shape)
    bn = train.BatchNorm2d(8, activation="relu").to(x.device)
    leaf = x.requires_grad_()
    (sparse,) = torch.autograd.grad(bn(leaf, wide).sum(), leaf)
    (dense,) = torch.autograd.grad(bn(leaf, wide.clone()), leaf, torch.ones_like(x))
    assert torch.equal(sparse, dense)


def test_a_plan_does_not_grow_with_every_momentum_there_was():
    plan = plans.Plan(Planes(4, 8, 9), 4, 90, 132, tiles.packaged())
    for step in range(2000):
        plan.call(launch.finish_statistics_call, 1e-5, 0.1 / (1 + step))
    assert len(plan.calls) <= 256
