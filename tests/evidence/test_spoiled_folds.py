"""The judge is tested: spoiled folds are convicted by name, honest ones acquitted."""

import onnx_ir as ir
import pytest

from bnfold.evidence import check_fold
from bnfold.records import Verdict
from tests.evidence.nets import SPOILED, bn_conv, conv_bn, fans, honest

WARNED = {
    "bfloat16": "bfloat16 was judged in a float32 copy, at the accuracy of bfloat16",
    "float64": "double was judged in a float32 copy, at the accuracy of float32 only",
}


def spoiled_and_honest(dtype: str) -> tuple[ir.Model, ir.Model]:
    pairs = {
        name: conv_bn(name, dtype, fold, seed)
        for seed, (name, fold) in enumerate(SPOILED.items())
    }
    pairs["padding_ignored"] = bn_conv("padding_ignored", dtype, 50, pad=1)
    pairs["honest"] = conv_bn("honest", dtype, honest, 60)
    pairs["honest_in_front"] = bn_conv("honest_in_front", dtype, 61, pad=0)
    return fans(pairs, dtype)


def beyond_storage(dtype: str) -> set[str]:
    """One percent of one channel is two units in the last place of bfloat16: noise."""
    return {"one_channel_off"} if dtype == "bfloat16" else set()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_each_spoiled_fold_is_convicted_and_honest_ones_are_not(dtype: str) -> None:
    report = check_fold(*spoiled_and_honest(dtype))
    assert report.verdict is Verdict.FAILED
    acquitted = {check.name for check in report.outputs if check.passed}
    assert acquitted - beyond_storage(dtype) == {"honest", "honest_in_front"}
    assert WARNED.get(dtype, "") in " ".join(report.warnings)
    assert bool(report.warnings) == (dtype in WARNED)
    convicted = {*SPOILED, "padding_ignored"} - beyond_storage(dtype)
    assert all(f"output {name!r}" in report.why for name in convicted)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_honest_folds_pass_on_several_sizes(dtype: str) -> None:
    pairs = {f"net{seed}": conv_bn(f"net{seed}", dtype, honest, seed) for seed in range(12)}
    report = check_fold(*fans(pairs, dtype), seed=3)
    assert report.passed, report.why
    assert len(report.outputs) == 12
    sizes = {case["x"] for case in report.cases}
    assert {size[0] for size in sizes} == {1, 3}
    assert len({size[2] for size in sizes}) > 1
