"""What tests on a GPU share; they are run with this folder's settings only.

`benchmarks/gpu/run_all.py` starts them with ``--confcutdir=tests/gpu``, so nothing here may
need a fixture of the folders above.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

_ASK = "import onnxruntime; print(*onnxruntime.get_available_providers())"


@pytest.fixture(scope="session")
def cuda() -> str:
    """The CUDA provider's short name; skips where this ONNX Runtime has none."""
    done = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode != 0:
        pytest.skip(f"ONNX Runtime does not load: {done.stderr.strip()[-200:]}")
    if "CUDAExecutionProvider" not in done.stdout.split():
        pytest.skip(f"this ONNX Runtime has no CUDA provider, only {done.stdout.strip()}")
    return "cuda"
