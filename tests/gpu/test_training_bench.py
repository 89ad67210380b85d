"""The measurement of training on the device itself: small, but with all that a row needs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from benchmarks.gpu import clocks, layers, torch_kernels, whole_step  # noqa: E402  # they need torch
from benchmarks.gpu.training_plan import AUTOCAST, Layer, Net  # noqa: E402  # as above

pytestmark = pytest.mark.gpu

_COMPILED = dict.fromkeys(("compiled", "ours compiled"), "left out: it takes long")


@pytest.fixture(autouse=True)
def device() -> None:
    """Skip where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_layer_is_measured_and_right(dtype, channels_last):
    layer = Layer(16, 64, 14, dtype, channels_last=channels_last, kind="bn+add+relu")
    row = layers.measure(layer, "cuda", dict(_COMPILED), lambda _arm: None)
    assert row["failures"] == _COMPILED
    assert row["correct"] is True, row["errors"]
    assert row["copy_bytes_per_s"] > 1e10
    assert row["ratios"]["eager / ours"]["step queued"]["low"] > 0
    assert row["peak_bytes"]["ours"] > 0


def test_the_small_launches_of_torch_wait_behind_the_sleep():
    clock = clocks.clock_of("cuda")
    x = torch.ones(1024, device="cuda")
    clock.queued("add", [lambda: x.add_(1)] * 32)
    apart = [clock.called(lambda: x.add_(1)) for _ in range(20)]
    together = [clock.queued("add", [lambda: x.add_(1)] * 32) for _ in range(20)]
    assert clock.too_soon < 3  # other tests may run beside this one
    assert sorted(together)[10] < sorted(apart)[10]


def test_the_profiler_names_the_kernels_of_torch():
    layer = Layer(16, 64, 14, "float16", channels_last=True, kind="bn")
    assert torch_kernels.names(layer, "cuda")


def test_a_network_learns_the_same_with_ours():
    net = Net("tiny", 16, AUTOCAST[0])
    row = whole_step.measure(net, "cuda", dict(_COMPILED), lambda _arm: None)
    assert row["failures"] == _COMPILED
    assert row["agrees"] == dict.fromkeys(("eager", "again", "ours", "ours recompute"), True)
    assert row["saved_bytes"]["ours recompute"] < row["saved_bytes"]["ours"]
