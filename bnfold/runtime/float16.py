"""Convert a float32 model to float16: ``python -m bnfold.runtime.float16 IN OUT``.

Runs ONNX Runtime's own converter in a process of its own, as all that imports the runtime.
Inputs and outputs become float16 too.
"""

from __future__ import annotations

import sys
import warnings

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from bnfold.process import bound_for_good


def main(source: str, target: str, bound_bytes: str = "") -> None:
    """Convert the model file and write it, weights inside."""
    if bound_bytes:
        bound_for_good(int(bound_bytes), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_float_to_float16(onnx.load(source), keep_io_types=False)
    onnx.save(model, target)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # noqa: BLE001 (told to the parent on stderr, without a traceback)
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])
