"""Tests of the training side: skipped without torch; kernels run where a GPU or triton is.

`TRITON_INTERPRET=1 pytest tests/train` runs the kernels on the CPU; `test_in_interpreter.py`
does just that in a process of its own, because triton must know before kernels are imported.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED and importlib.util.find_spec("triton"):
    from tests.train.interpreting import patch_once_a_launch

    patch_once_a_launch()
ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def available(device: str) -> str:
    """Return the device, or skip."""
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    # The convolutions around our layers are to compute the same twice, and in float32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return device


@pytest.fixture(params=["cpu", ON_GPU] if INTERPRETED else [ON_GPU])
def kernels(request: pytest.FixtureRequest) -> str:
    """A device on which the kernels run."""
    pytest.importorskip("triton")
    return available(request.param)


@pytest.fixture(params=["cpu", ON_GPU])
def device(request: pytest.FixtureRequest) -> str:
    """Any device; on a GPU, and in the interpreter, kernels do the work."""
    return available(request.param)
