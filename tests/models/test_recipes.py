"""The recipes: trained by our modules or by torch's, they are the same networks."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bnfold import train  # noqa: E402  behind what skips the file
from models import digits  # noqa: E402
from models.recipes import RECIPES, build, example  # noqa: E402
from models.unfused import unfused  # noqa: E402


def one_step(net, name):
    """The output, the gradients, and what the step left in the buffers."""
    y = net(example(name, batch=4))
    y.square().sum().backward()
    return [y, *(one.grad for one in net.parameters()), *net.buffers()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", RECIPES)
def test_torchs_modules_compute_the_same_bit_for_bit(name, training):
    ours = build(name).train(training)
    torchs = unfused(copy.deepcopy(ours))
    assert not any(isinstance(one, train.FusedBatchNorm) for one in torchs.modules())
    assert ours.state_dict().keys() == torchs.state_dict().keys()
    found, wanted = one_step(ours, name), one_step(torchs, name)
    assert len(found) == len(wanted)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("name", RECIPES)
def test_every_batch_norm_is_ours_and_computes_the_relu_behind_it(name):
    net = build(name)
    norms = [
        one for one in net.modules() if isinstance(one, torch.nn.modules.batchnorm._NormBase)
    ]
    assert len(norms) == RECIPES[name].batch_norms
    assert all(isinstance(one, train.FusedBatchNorm) for one in norms)
    assert not any(type(one) is torch.nn.ReLU for one in net.modules())


def test_the_packaged_digits_are_scikit_learns():
    pytest.importorskip("sklearn")
    for part, arrays in digits.split().items():
        with np.load(digits.HERE / f"digits_{part}.npz") as stored:
            for name, array in arrays.items():
                assert stored[name].dtype == array.dtype
                np.testing.assert_array_equal(stored[name], array)


def test_no_image_is_both_trained_on_and_tested():
    data = digits.load()
    assert data.train_images.shape == (1297, 1, 8, 8)
    assert data.test_images.shape == (500, 1, 8, 8)
    assert data.train_images.dtype == torch.float32
    assert 0 <= data.train_images.min() < data.train_images.max() == 1
    trained_on = {one.numpy().tobytes() for one in data.train_images}
    assert not any(one.numpy().tobytes() in trained_on for one in data.test_images)
