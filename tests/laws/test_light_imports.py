"""`import bnfold` and `bnfold --help` load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "triton", "onnxruntime", "onnx", "onnx_ir", "numpy", "rich", "matplotlib"}
PROBE = """
import sys
{work}
print(*sorted({{name.split('.')[0] for name in sys.modules}}))
"""


def loaded(work: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(work=work)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "work",
    [
        "import bnfold",
        "import bnfold.cli.main as m; sys.argv = ['bnfold', '--help']\n"
        "try: m.main()\nexcept SystemExit: pass",
    ],
)
def test_loads_nothing_heavy(work):
    assert not loaded(work) & HEAVY


def test_folding_needs_no_runtime_no_torch_and_no_rich(tmp_path):
    import onnx

    from tests.small import conv_bn

    onnx.save(conv_bn(), tmp_path / "m.onnx")
    work = (
        f"import bnfold; bnfold.fold({str(tmp_path / 'm.onnx')!r}, verify=False)"
        f".save({str(tmp_path / 'o.onnx')!r})"
    )
    assert not loaded(work) & {"torch", "triton", "onnxruntime", "rich", "matplotlib", "click"}
    assert (tmp_path / "o.onnx").exists()
