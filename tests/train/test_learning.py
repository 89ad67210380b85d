"""A whole network learns with our modules what it learns with torch's, from the same seed."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from models import digits  # noqa: E402  behind what skips the file
from models.training import Settings, Training, reproducible  # noqa: E402
from tests.train.conftest import INTERPRETED  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic")  # torch's pooling on a GPU

# Triton's interpreter takes about a second for a step.
SIZE = {"steps": 2, "batch_size": 4} if INTERPRETED else {"steps": 40, "batch_size": 64}
WAYS = {
    "plain": {},
    "recompute": {"recompute": True},
    "channels_last": {"channels_last": True},
    "bfloat16": {"bfloat16": True},
}


def learnt(device, batch_norm, *, steps, batch_size, **way):
    """The loss of every step, and the network after the last."""
    settings = Settings("cnn", batch_norm, epochs=4, batch_size=batch_size, **way)
    with reproducible(device, settings.threads):
        training = Training(settings, digits.load(), device)
        training.net.train()
        epochs = (batch for _ in range(settings.epochs) for batch in training.batches())
        losses = [float(training.step(*batch)) for batch in islice(epochs, steps)]
    return losses, training.net.cpu().state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("way", ["plain", "channels_last"] if INTERPRETED else WAYS)
def test_the_loss_curve_is_torchs(device, way):
    """On a CPU bit for bit; where kernels run, within rounding."""
    ours = learnt(device, "bnfold", **SIZE, **WAYS[way])
    torchs = learnt(device, "torch", **SIZE, **WAYS[way])
    assert len(ours[0]) == SIZE["steps"]
    if device == "cpu" and not INTERPRETED:
        assert ours[0] == torchs[0]
        assert same(ours[1], torchs[1])
    else:
        np.testing.assert_allclose(
            ours[0], torchs[0], rtol=0.05 if way == "bfloat16" else 1e-2
        )
        np.testing.assert_allclose(
            ours[0][:2], torchs[0][:2], rtol=1e-2 if way == "bfloat16" else 1e-5
        )


@pytest.mark.skipif(INTERPRETED, reason="test_memory.py has it, on smaller networks")
def test_saving_memory_changes_nothing(device):
    wanted = learnt(device, "bnfold", **SIZE)
    found = learnt(device, "bnfold", recompute=True, **SIZE)
    assert found[0] == wanted[0]
    assert same(found[1], wanted[1])


@pytest.mark.skipif(INTERPRETED, reason="it says nothing about the kernels")
@pytest.mark.parametrize(("way", "rtol"), [("channels_last", 1e-3), ("bfloat16", 0.05)])
def test_other_ways_to_compute_learn_the_same(device, way, rtol):
    wanted = learnt(device, "bnfold", **SIZE)[0]
    found = learnt(device, "bnfold", **SIZE, **WAYS[way])[0]
    np.testing.assert_allclose(np.mean(found), np.mean(wanted), rtol=rtol)
    assert found[-1] < 0.6 * found[0]
