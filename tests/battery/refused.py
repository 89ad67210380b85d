"""Graphs of the battery that ONNX Runtime 1.32 does not run as they are, and why."""

from __future__ import annotations

from typing import Final

_SPELLINGS: Final = ("bn", "sub_mul_add", "scalar_mul_add")
_BRANCHES: Final = ("repvgg", "mobile_one", "fast_vit", "rep_vit")

NO_BFLOAT16: Final = {
    *(
        f"direct/types/bf16/{one}/conv_{way}"
        for one in _SPELLINGS
        for way in ("above", "below")
    ),
    *(f"direct/types/bf16_with_fp32_parameters/conv_{way}" for way in ("above", "below")),
    *(f"parallel/{net}/bf16" for net in _BRANCHES),
    *(f"linear/gemm_{way}/bn/bf16" for way in ("above", "below")),
    *("guards/number/overflow/bf16", "guards/number/tiny_variance_bf16"),
    "constants/fields/bf16",
}
NO_FLOAT64_CONV: Final = {
    *(
        f"direct/types/fp64/{one}/conv_{way}"
        for one in _SPELLINGS
        for way in ("above", "below")
    ),
    *(f"carriers/cast/fp32_fp64/{one}/above" for one in ("bn", "mul")),
    *(f"parallel/{net}/fp64" for net in _BRANCHES),
    "constants/fields/fp64",
}
NO_OPSET_6: Final = {
    f"guards/opset6/{one}"
    for one in (
        "bn_training",
        "bn_test",
        "mul_axis_1",
        "mul_last_axis",
        "mul_two_axes",
        "gemm",
    )
}
OTHERS: Final = {
    "guards/names/same_node_names": "two nodes of one name",
    "guards/training/1": "statistics of one output",
    "guards/training/1/opset14": "statistics of one output",
    "guards/foreign/before": "an operator of nobody's",
    "guards/foreign/between": "an operator of nobody's",
    "guards/foreign/after": "an operator of nobody's",
    "guards/foreign/reader": "an operator of nobody's",
    "guards/foreign/namesake": "an operator of nobody's",
}
REFUSED: Final = frozenset({*NO_BFLOAT16, *NO_FLOAT64_CONV, *NO_OPSET_6, *OTHERS})
