"""Under torch's wrappers our modules train as torch's do: ranks are processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not hasattr(os, "fork"):
    pytest.skip("ranks are forks", allow_module_level=True)
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from bnfold import train  # noqa: E402  # after the skip

ROOT = Path(__file__).parents[2]
LONGEST_S = 240


def run_ranks(worlds, folder, **environment):
    """Run the cases of each number of ranks; none of them outlives the test."""
    meeting = folder / "meeting"
    ranks = subprocess.Popen(
        [
            sys.executable, "-m", "tests.train.ranks", str(meeting),
            *(f"{','.join(cases)}:{world}" for world, cases in worlds.items()),
        ],
        env={**os.environ, **environment},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, error = ranks.communicate(timeout=LONGEST_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ranks.pid, signal.SIGKILL)
        ranks.wait()
    for world, cases in worlds.items():
        out, said = (
            [Path(f"{meeting}.{world}.{rank}.{kind}").read_text() for rank in range(world)]
            for kind in ("out", "err")
        )
        expected = "".join(f"{case} alike\n" for case in cases)
        assert out == [expected] * world, (error, *(text[-3000:] for text in said))
    assert ranks.returncode == 0, error


SHARDED = ("ddp", "ddp_accumulates", "fsdp", "fsdp_recomputes", "fsdp_mixed")
SYNCHRONISED = ("synchronised", "synchronised_halves", "sync_converted", "recalibrated")


def test_in_parallel_and_sharded_training_is_torchs_and_statistics_are_of_all_ranks(tmp_path):
    """Uneven ranks and empty ones too. All in one test: torch is loaded once."""
    run_ranks({2: SHARDED, 3: SYNCHRONISED}, tmp_path)


def test_kernels_take_statistics_of_all_ranks(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed: no kernels to interpret")
    cases = ("synchronised_kernels", "synchronised_refuses")
    run_ranks({3: cases}, tmp_path, TRITON_INTERPRET="1")


@pytest.mark.thorough
def test_kernels_get_plain_tensors_of_sharded_weights(tmp_path):
    pytest.importorskip("triton", reason="triton is not installed: no kernels to interpret")
    run_ranks({2: ("fsdp_kernels",)}, tmp_path, TRITON_INTERPRET="1")


def test_alone_a_synchronised_batch_norm_is_a_batch_norm():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    one = train.SyncBatchNorm(3, activation="relu")
    other = train.BatchNorm2d(3, activation="relu")
    assert torch.equal(one(x, x), other(x, x))
    assert torch.equal(one.running_var, other.running_var)
    assert one.state_dict().keys() == torch.nn.SyncBatchNorm(3).state_dict().keys()
    with pytest.raises(ValueError, match="at least 2D"):
        one(x[0, 0, 0])


def test_making_a_model_synchronous_keeps_objects_activations_and_state():
    bn = train.BatchNorm2d(3, activation="relu", momentum=0.3).eval()
    net = torch.nn.Sequential(bn, torch.nn.BatchNorm2d(3), torch.nn.SyncBatchNorm(3))
    parameters = list(net.parameters())
    assert train.SyncBatchNorm.convert_sync_batchnorm(net) is net
    assert {type(m) for m in net} == {train.SyncBatchNorm}
    assert net[0] is bn
    assert (bn.activation, bn.momentum, bn.training) == ("relu", 0.3, False)
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
