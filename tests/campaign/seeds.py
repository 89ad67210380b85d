"""Seeds of the short campaign: cheap ones, and some that showed faults once."""

from __future__ import annotations

from typing import Final

SEEDS: Final[dict[str, tuple[int, ...]]] = {
    "chain": (1, 2, 3, 4, 12, 13, 15, 16, 17, 19, 23, 28, 30, 31, 34, 35, 58, 61),
    "bodies": (0, 1, 2, 3, 4, 6, 7, 13, 15, 17, 18, 21, 24, 34, 55, 63),
    "computed constants": (6, 8, 10, 12, 16, 17, 18, 20, 24, 25, 29, 32, 34, 35, 44, 47),
    "windows": (1, 4, 5, 7, 8, 10, 13, 14, 15, 17, 18, 20, 25, 26, 28, 31, 34, 35),
    "wide": (1, 12, 15, 16, 21, 24, 26, 28, 32),
    "masked attention": (0, 14, 16, 17, 18, 22, 23, 25, 26, 27, 29, 35),
    "open features": (2, 6, 12, 14, 15, 16, 17, 29, 35),
    "pre-activation": (1, 2, 6, 10, 17, 18, 21, 22, 23, 24, 33),
    "quantised": (3, 5, 6, 7, 8, 9, 14, 17, 20, 23, 24, 28, 32, 33),
    "networks": (11, 12, 16, 17, 22, 23, 25, 26, 28, 33),
    "battery": (5, 42, 79, 153, 301, 375, 449, 560, 597, 745, 893, 930, 1041, 1226),
}
"""By source. Those of `work.Task`; for `pytest -m thorough`."""

FEW: Final[dict[str, tuple[int, ...]]] = {
    "chain": (12, 15, 16, 17, 28, 30, 34, 35),
    "bodies": (0, 2, 7, 18, 21, 34),
    "computed constants": (8, 10, 16, 18, 20, 24, 25, 32, 34, 44),
    "windows": (1, 4, 15, 17, 18, 20),
    "wide": (1, 12, 26, 28),
    "masked attention": (14, 22, 25, 35),
    "open features": (2, 6, 12, 14, 29, 35),
    "pre-activation": (1, 2, 6, 10, 17, 18, 22, 23, 24, 33),
    "quantised": (3, 7, 9, 23, 32),
    "networks": (12, 17, 25, 33),
    "battery": (79, 301, 375, 597, 745, 930, 1041),
}
"""Of those, for `make test`: the cheapest that between them have each rule, each operator that
absorbs a map, each kind of fault and forgery, and each type of each source, that all have."""

SUITE: Final[dict[str, tuple[int, ...]]] = {
    "Conv": (0, 1),
    "Gemm": (0, 1),
    "Softmax": (0,),
    "Resize": (0, 1),
    "Gather": (0, 1),
    "Transpose": (0,),
    "ConvTranspose": (0, 1),
    "LayerNormalization": (1,),
    "Attention": (0, 1),
    "Pad": (0, 1),
    "Einsum": (0,),
}
"""Which test cases of an operator of the ONNX suite.

Not of those whose module takes a second to make its cases (AveragePool, MaxPool)."""

SLOW_SUITE: Final[dict[str, tuple[int, ...]]] = {"LayerNormalization": (0,)}
"""The same for `pytest -m thorough`: what takes as long as all others together."""

FORGED: Final = frozenset(
    {
        ("battery", 79),
        ("battery", 301),
        ("battery", 745),
        ("bodies", 2),
        ("bodies", 17),
        ("chain", 12),
        ("chain", 15),
        ("chain", 30),
        ("computed constants", 10),
        ("computed constants", 16),
        ("computed constants", 25),
        ("computed constants", 34),
        ("masked attention", 16),
        ("masked attention", 22),
        ("masked attention", 25),
        ("networks", 12),
        ("networks", 33),
        ("open features", 6),
        ("open features", 12),
        ("open features", 15),
        ("pre-activation", 2),
        ("pre-activation", 17),
        ("pre-activation", 23),
        ("quantised", 7),
        ("quantised", 28),
        ("wide", 26),
        ("wide", 32),
        ("windows", 15),
        ("windows", 18),
    }
)
"""For which certificates are forged."""
